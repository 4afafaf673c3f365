"""An S3 server on this machine, which programs reach through their environment as they reach Amazon's."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.search.cli import wait_until

BUCKET = "runs-bucket"
_SERVE = """
import sys, time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address=sys.argv[2], port=0)
server.start()
print("port", server.get_host_and_port()[1], file=open(sys.argv[1], "w"), flush=True)
time.sleep(86400)
"""


@contextmanager
def object_server(folder: Path, *, address: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """A server with an empty bucket; what has to be in the environment of whoever uses it.

    Args:
        folder: for its log.
        address: of this machine, on which it listens.
    """
    told = folder / "port"
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", _SERVE, str(told), address], stdout=log, stderr=log)
    try:
        wait_until(lambda: told.is_file() and told.read_text().endswith("\n"), timeout_s=60)
        url = f"http://{address}:{told.read_text().split()[1]}"
        with urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT")):
            pass
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-prints",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        process.kill()
        process.wait()
