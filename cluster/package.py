"""What of the working directory goes to the cluster? Code and settings; never data, results or environments."""

from __future__ import annotations

import os
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from cluster.archive import MARK
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
    ".envrc",
    ".netrc",
    ".pgpass",
    ".git-credentials",
    ".npmrc",
    ".pypirc",
    ".boto",
    ".s3cfg",
    ".ssh/",
    ".aws/",
    ".kube/",
    ".docker/",
    ".gnupg/",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.kdbx",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "auth_token",
    "token.txt",
    "credentials",
    "*credentials*.json",
    "secrets.json",
    "secrets.toml",
    "secrets.y*ml",
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
_PACKAGES = ("cluster", "search", "trainables")
_INSTALLED = Path(__file__).parents[1]
_ENTRY = Path("search/run.py")
_DATA_REMEDY = "data are not sent: copy them to the nodes once, and give their path there (-o task.data.root=...)"


@dataclass(frozen=True)
class Package:
    """What is sent.

    Attributes:
        files: relative to the root, sorted.
        code: of vistune itself, likewise relative to the folder it is installed in; empty where the root has it.
        num_bytes: of all files together, uncompressed.
    """

    root: Path
    files: tuple[Path, ...]
    num_bytes: int
    code: tuple[Path, ...] = ()

    @property
    def mib(self) -> float:
        return self.num_bytes / 2**20

    def write(self, path: Path) -> None:
        """Writes it as a zip file, byte for byte the same for the same files."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, source in [(file, self.root) for file in self.files] + [(file, _INSTALLED) for file in self.code]:
                entry = zipfile.ZipInfo(file.as_posix(), date_time=_EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = ((source / file).stat().st_mode & 0o777 | 0o600) << 16
                archive.writestr(entry, (source / file).read_bytes())


def collect(root: Path, *, max_mib: float = MAX_MIB) -> Package:
    """The files of a folder that are to be sent, and vistune's own code where the folder is no checkout of it.

    Args:
        max_mib: most that all files together may have, in MiB, uncompressed.

    Raises:
        ConfigError: if data, results or an environment are among them, or they are too large; says which lines of
            `.vistuneignore` leave them out.
    """
    root = root.absolute()
    files = tuple(sorted(_files(root, [_Ignored(Path(), _spec(ALWAYS_IGNORED, root))])))
    sizes = {file: (root / file).stat().st_size for file in files}
    code = () if _ENTRY in files else _own_code(files)
    package = Package(root, files, sum(sizes.values()) + sum((_INSTALLED / file).stat().st_size for file in code), code)
    problems = [*_results(root, files), *_environments(files), *_images(files), *_data(sizes)]
    if not problems and package.mib > max_mib:
        problems = _too_large(sizes, package, max_mib=max_mib)
    if problems:
        raise ConfigError("\n".join(f"{root}: {problem}" for problem in problems[: 2 * _SHOWN]))
    return package


@dataclass(frozen=True)
class _Ignored:
    """What the ignore files of one folder say of what lies below it."""

    folder: Path
    spec: GitIgnoreSpec

    def says(self, path: Path, *, is_folder: bool) -> bool | None:
        """Whether a path is left out; None where these files say nothing of it."""
        return self.spec.check_file(f"{path.relative_to(self.folder).as_posix()}{'/' if is_folder else ''}").include


def _rules(root: Path, folder: Path) -> list[_Ignored]:
    """Those of a folder's own ignore files."""
    rules = []
    for name in IGNORE_FILES:
        file = root / folder / name
        if file.is_file():
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError as error:
                raise ConfigError(f"{file}: is no text in UTF-8 ({error.reason} at byte {error.start})") from error
            rules.append(_Ignored(folder, _spec(lines, file)))
    return rules


def _spec(lines: Iterable[str], where: Path) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise ConfigError(f"{where}: a pattern cannot be read: {error}") from error


def _files(root: Path, rules: Sequence[_Ignored], folder: Path = Path()) -> Iterator[Path]:
    """All files below a folder but those left out: of several rules the deepest that says anything counts."""
    rules = [*rules, *_rules(root, folder)]
    with os.scandir(root / folder) as entries:
        for entry in entries:
            path = folder / entry.name
            said = (rule.says(path, is_folder=entry.is_dir()) for rule in reversed(rules))
            if next((each for each in said if each is not None), False):
                continue
            # Links to folders are not followed: they lead to data more often than to code.
            if entry.is_dir(follow_symlinks=False):
                if not (root / path / MARK).is_file():  # a run that was fetched from a cluster
                    yield from _files(root, rules, path)
            elif entry.is_file():
                yield _told(path, root)


def _told(path: Path, root: Path) -> Path:
    """Refuses a name that the cluster could not be told."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{root}: the name of {str(path)!r} is no UTF-8; give it another one, or leave it out"
        ) from error
    return path


def _own_code(files: Sequence[Path]) -> tuple[Path, ...]:
    """Vistune as it is installed here, for a folder that holds spaces only.

    Raises:
        ConfigError: if the folder has something else under one of these names.
    """
    clash = sorted({file.parts[0] for file in files if file.parts[0] in _PACKAGES})
    if clash:
        raise ConfigError(
            f"{clash[0]}: the name is that of a package of vistune, which is sent along, as this folder is no checkout "
            "of it; give it another name, or leave it out with a line in .vistuneignore"
        )
    found = [path for package in _PACKAGES for path in (_INSTALLED / package).rglob("*") if path.is_file()]
    own = [path.relative_to(_INSTALLED) for path in found if "__pycache__" not in path.parts]
    return tuple(sorted(own))


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
