"""The dependency audit, by the real pip-audit against a stand-in for the list of vulnerabilities."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

_SCRIPT = Path(__file__).parents[1] / ".ci" / "audit.py"


class _List(BaseHTTPRequestHandler):
    """Answers as OSV does: whatever is known of a package at a version."""

    vulnerable = "urllib3"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name, version = asked["package"]["name"], asked["version"]
        found: dict[str, Any] = {}
        if name == self.vulnerable:
            ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}]
            affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": ranges, "versions": [version]}]
            about = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-0001"], "modified": "2026-01-01T00:00:00Z"}
            found = {"vulns": [about | {"published": "2026-01-01T00:00:00Z", "summary": "bad", "affected": affected}]}
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to standard error."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _List)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


def _audit(folder: Path, *pins: str, options: tuple[str, ...]) -> tuple[int, str]:
    (folder / "pins.txt").write_text("\n".join(pins) + "\n")
    command = [sys.executable, str(_SCRIPT), "--requirement", str(folder / "pins.txt"), *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def test_a_known_vulnerability_fails_the_audit(tmp_path: Path, url: str) -> None:
    status, told = _audit(tmp_path, "filelock==4.2.12", "urllib3==2.8.0", options=("--osv-url", url))
    assert (status, told) == (
        1,
        "VULNERABLE: urllib3 2.8.0: PYSEC-2026-1; fixed in 99.0\n2 packages audited, 1 known vulnerabilities\n",
    )


def test_no_vulnerability_passes_it(tmp_path: Path, url: str) -> None:
    status, told = _audit(tmp_path, "filelock==4.2.12", options=("--osv-url", url))
    assert (status, told) == (0, "1 packages audited, 0 known vulnerabilities\n")


@pytest.mark.parametrize(("more", "expected"), [((), 0), (("--require-answer",), 3)])
def test_no_answer_is_not_told_as_a_pass(tmp_path: Path, more: tuple[str, ...], expected: int) -> None:
    status, told = _audit(tmp_path, "filelock==4.2.12", options=("--osv-url", "http://127.0.0.1:9/v1/query", *more))
    assert status == expected
    assert "osv: no answer" in told
    assert "NOT AUDITED: no list of vulnerabilities could be reached" in told
