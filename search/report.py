"""What has a run found so far? `python -m search.report RUN` writes its page, also of a run that was cut off."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from search.storage import add_storage_path, storage_root
from trainables.errors import ConfigError, VistuneError, first_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = _parse(arguments)
    try:
        path = rewrite_report(options.run, storage_path=storage_root(options.storage_path))
    except VistuneError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    print(path)
    return 0


def rewrite_report(run: str, *, storage_path: Path) -> Path:
    """Writes the page of a run from its files, whatever state it is in; nothing else of the run is touched.

    Args:
        run: name under the storage path, or a folder.

    Returns:
        The page's path.

    Raises:
        ConfigError: if there is no such run, or its files cannot be read.
    """
    from search.html_report import write_html_report
    from search.report_source import read_source
    from search.storage import find_run

    paths = find_run(run, storage_path=storage_path)
    source = read_source(paths)
    try:
        return write_html_report(source)
    except OSError as error:
        raise ConfigError(f"{paths.report}: cannot be written: {first_line(error)}") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        found = f"{type(error).__name__}: {first_line(error)}"
        raise ConfigError(
            f"{paths.root}: a file of the run does not hold what vistune writes there ({found}); "
            f"look at {paths.summary.name} and {paths.environment.name}, and restore them from a copy"
        ) from error


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m search.report",
        description="Write a run's report.html from its files: of a run that was killed, is still going, or has ended.",
    )
    parser.add_argument("run", metavar="RUN", help="name or folder; python -m search.list shows which there are")
    add_storage_path(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
