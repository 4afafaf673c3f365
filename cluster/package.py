"""What of the working directory goes to the cluster? Code and settings; never data, results or environments."""

from __future__ import annotations

import os
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from trainables.errors import ConfigError

IGNORE_FILES = (".gitignore", ".vistuneignore")

# Left out in any case, unless an ignore file takes one back with `!`.
ALWAYS_IGNORED = (
    ".git",
    ".hg/",
    ".venv",
    "venv",
    "__pycache__/",
    "*.py[cod]",
    "*.egg-info/",
    ".*_cache/",
    ".ipynb_checkpoints/",
    ".tox/",
    "/results",
    # What is nobody else's business.
    ".env",
    ".env.*",
    ".netrc",
    ".ssh/",
    ".aws/",
    "*.pem",
    "*.key",
    "auth_token",
)

MAX_MIB = 20.0
# So many images in one folder are a data set; a picture or two in a document are not.
MAX_IMAGES = 20

_IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)
_DATA_SUFFIXES = frozenset((".npy", ".npz", ".parquet", ".arrow", ".tfrecord", ".lmdb", ".h5", ".hdf5", ".u8"))
_MAX_DATA_BYTES = 2**20
_ARCHIVE_SUFFIXES = frozenset((".zip", ".tar", ".tgz", ".gz", ".7z"))
# A zip file with these times is the same whenever it is made, so that the cluster knows a package it has already.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_SHOWN = 5
_DATA_REMEDY = "data are not sent: copy them to the nodes once, and give their path there (-o task.data.root=...)"


@dataclass(frozen=True)
class Package:
    """What is sent.

    Attributes:
        files: relative to the root, sorted.
        num_bytes: of all files together, uncompressed.
    """

    root: Path
    files: tuple[Path, ...]
    num_bytes: int

    @property
    def mib(self) -> float:
        return self.num_bytes / 2**20

    def write(self, path: Path) -> None:
        """Writes it as a zip file, byte for byte the same for the same files."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in self.files:
                entry = zipfile.ZipInfo(file.as_posix(), date_time=_EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = ((self.root / file).stat().st_mode & 0o777 | 0o600) << 16
                archive.writestr(entry, (self.root / file).read_bytes())


def collect(root: Path, *, max_mib: float = MAX_MIB) -> Package:
    """The files of a folder that are to be sent.

    Args:
        max_mib: most that all files together may have, in MiB, uncompressed.

    Raises:
        ConfigError: if data, results or an environment are among them, or they are too large; says which lines of
            `.vistuneignore` leave them out.
    """
    root = root.absolute()
    files = tuple(sorted(_files(root, _ignored(root))))
    sizes = {file: (root / file).stat().st_size for file in files}
    package = Package(root, files, sum(sizes.values()))
    problems = [*_results(root, files), *_environments(files), *_images(files), *_data(sizes)]
    if not problems and package.mib > max_mib:
        problems = _too_large(sizes, package, max_mib=max_mib)
    if problems:
        raise ConfigError("\n".join(f"{root}: {problem}" for problem in problems[: 2 * _SHOWN]))
    return package


def _ignored(root: Path) -> GitIgnoreSpec:
    lines = list(ALWAYS_IGNORED)
    for name in IGNORE_FILES:
        if (root / name).is_file():
            lines += (root / name).read_text(encoding="utf-8").splitlines()
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise ConfigError(f"{root}: a pattern of {' or '.join(IGNORE_FILES)} cannot be read: {error}") from error


def _files(root: Path, ignored: GitIgnoreSpec, folder: Path = Path()) -> Iterator[Path]:
    with os.scandir(root / folder) as entries:
        for entry in entries:
            path = folder / entry.name
            # Links to folders are not followed: they lead to data more often than to code.
            is_folder = entry.is_dir(follow_symlinks=False)
            if ignored.match_file(f"{path.as_posix()}/" if entry.is_dir() else path.as_posix()):
                continue
            if is_folder:
                yield from _files(root, ignored, path)
            elif entry.is_file():
                yield path


def _results(root: Path, files: Sequence[Path]) -> list[str]:
    runs = {
        file.parent for file in files if file.name == "study.log" and (root / file.parent / "config.yaml").is_file()
    }
    folders = {run.parent if len(run.parts) > 1 else run for run in runs}
    return [_refused(folder, "holds results of searches") for folder in sorted(folders)]


def _environments(files: Sequence[Path]) -> list[str]:
    return [_refused(file.parent, "is a Python environment") for file in files if file.name == "pyvenv.cfg"]


def _images(files: Sequence[Path]) -> list[str]:
    """One line for each folder of the root that holds images, naming the deepest folder that holds all of these."""
    images: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        if file.suffix.lower() in _IMAGE_SUFFIXES:
            images[file.parts[0] if len(file.parts) > 1 else ""].append(file.parent)
    return [
        _refused(Path(os.path.commonpath(parents)), f"holds {len(parents):,} images; {_DATA_REMEDY}")
        for parents in images.values()
        if len(parents) > MAX_IMAGES
    ]


def _data(sizes: dict[Path, int]) -> list[str]:
    found = [
        file
        for file, size in sizes.items()
        if size > _MAX_DATA_BYTES and file.suffix.lower() in _DATA_SUFFIXES | _ARCHIVE_SUFFIXES
    ]
    return [
        _refused(file, f"is data ({sizes[file] / 2**20:.1f} MiB); {_DATA_REMEDY}", is_folder=False) for file in found
    ]


def _too_large(sizes: dict[Path, int], package: Package, *, max_mib: float) -> list[str]:
    largest = sorted(sizes, key=lambda file: -sizes[file])[:_SHOWN]
    told = ", ".join(f"{file} ({sizes[file] / 2**20:.1f} MiB)" for file in largest)
    return [
        f"the package has {package.mib:.1f} MiB, at most {max_mib:g} are sent; the largest files are {told}; leave out "
        "what the search does not need with lines in .vistuneignore, or raise --package-mib"
    ]


def _refused(path: Path, what: str, *, is_folder: bool = True) -> str:
    pattern = f"/{path.as_posix()}{'/' if is_folder else ''}" if path.parts else "/*.*"
    return f"{path if path.parts else 'this folder'} {what}; leave it out with the line {pattern} in .vistuneignore"
