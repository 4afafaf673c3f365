"""Prints a run for another machine to read: `python -m cluster.pack RUN`, which `cluster.submit` starts to fetch it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.archive import MAX_MIB, is_wanted, printed
from search.storage import find_run, folder_of_runs, storage_root
from trainables.errors import VistuneError
from trainables.object_store import fetch

SUCCESS, UNUSABLE = 0, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m cluster.pack", description=__doc__)
    parser.add_argument("run", help="name or folder of the run")
    parser.add_argument("--storage-path", type=folder_of_runs, help="folder that holds runs, as for search.run")
    parser.add_argument("--fetch-mib", type=float, default=MAX_MIB, help="most that its files may have together")
    options = parser.parse_args(arguments)
    try:
        paths = find_run(options.run, storage_path=storage_root(options.storage_path))
        # The run's own files are here by now; what trials wrote, and a new head has no copy of, is not.
        fetch(paths.root, wanted=lambda name: name.startswith(("trials/", "final/")) and is_wanted(Path(name)))
        for text in printed(paths.root, max_mib=options.fetch_mib):
            print(text)
    except (VistuneError, OSError) as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    return SUCCESS


if __name__ == "__main__":
    sys.exit(main())
