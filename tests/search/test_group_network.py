"""Which interface has an address?"""

from __future__ import annotations

from search.group_network import interface_of


def test_an_interface_is_found_by_its_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.255") is None
