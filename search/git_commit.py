"""Of which commit is this code? Said by git, or by who sent the code to where there is no git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

VARIABLE = "VISTUNE_GIT_COMMIT"


def git_commit() -> str | None:
    """The commit of vistune's own checkout, with `+changes` where files differ from it; else $VISTUNE_GIT_COMMIT."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + "+changes" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return os.environ.get(VARIABLE) or None
