"""Servers on this machine that speak S3 or GCS; programs reach them as the real ones, through their environment."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.search.cli import wait_until

BUCKET = "runs-bucket"
_SERVE_GCS = """
import sys, time
from gcp_storage_emulator.server import create_server
server = create_server(sys.argv[2], 0, in_memory=True, default_bucket=sys.argv[3])
server.start()
print("port", server._api._httpd.server_address[1], file=open(sys.argv[1], "w"), flush=True)
time.sleep(86400)
"""
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
    """An S3 server with an empty bucket; what has to be in the environment of whoever uses it.

    Args:
        folder: for its log.
        address: of this machine, on which it listens.
    """
    with _served(_SERVE, folder, address=address) as url:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT")):
            pass
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-prints",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def gcs_server(folder: Path) -> Iterator[dict[str, str]]:
    """The same for GCS."""
    with _served(_SERVE_GCS, folder, address="127.0.0.1") as url:
        yield {"STORAGE_EMULATOR_HOST": url}


@contextmanager
def _served(script: str, folder: Path, *, address: str) -> Iterator[str]:
    told = folder / "port"
    with (folder / "server.log").open("wb") as log:
        command = [sys.executable, "-c", script, str(told), address, BUCKET]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: told.is_file() and told.read_text().endswith("\n"), timeout_s=60)
        yield f"http://{address}:{told.read_text().split()[1]}"
    finally:
        process.kill()
        process.wait()
