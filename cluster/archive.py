"""How does a run come back through a job's log? As lines of text: a head, a compressed archive, and a seal.

The job server speaks HTTP only and gives out logs only, so a small job on the cluster prints the run (`cluster.pack`),
and the machine that asked for it reads the log. Nothing is put in place before the seal agrees.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from trainables.atomic_files import write_beside
from trainables.errors import DataError

MAX_MIB = 256.0
HEAD, PART, SEAL = "vistune-archive ", "vistune-part ", "vistune-seal "
# The mark of a run that came from a cluster: such a folder may be brought up to date, another may not.
MARK = ".fetched.json"

# Ray's log reader takes up to 20,000 characters at a time.
_PART_BYTES = 12_000
_MAX_FILES = 200_000


def wanted(root: Path) -> list[Path]:
    """The files of a run that are worth sending, relative to its folder, sorted.

    Checkpoints, the weights of trials other than the winner, scratch and hidden files stay where they are.
    """
    found = []
    for folder, folders, names in os.walk(root):
        here = Path(folder).relative_to(root)
        if here == Path("logs"):
            folders[:] = [name for name in folders if name != "tune"]
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [here / name for name in names if is_wanted(here / name) and not (root / here / name).is_symlink()]
    return sorted(found)


def is_wanted(file: Path) -> bool:
    """Whether a file of a run is sent, by its path below the run's folder."""
    if file.name.startswith("."):
        return False
    if file.parts[0] not in ("trials", "final"):
        return True
    return file.suffix != ".safetensors" and not file.name.startswith(("checkpoint.", "attempt"))


def printed(root: Path, *, max_mib: float) -> Iterator[str]:
    """The lines that stand for a run.

    Raises:
        DataError: if its files are larger than that together; names the largest.
    """
    files = wanted(root)
    sizes = {file: (root / file).stat().st_size for file in files}
    total = sum(sizes.values())
    if total > max_mib * 2**20:
        largest = ", ".join(
            f"{file} ({sizes[file] / 2**20:.0f} MiB)" for file in sorted(sizes, key=lambda f: -sizes[f])[:5]
        )
        raise DataError(
            f"{root}: {total / 2**20:.0f} MiB, at most {max_mib:g} are fetched; the largest files are {largest}; raise "
            "--fetch-mib, or copy the folder by other means"
        )
    yield HEAD + json.dumps({"run": root.name, "max_bytes": int(max_mib * 2**20)})
    digest = hashlib.sha256()
    with tempfile.TemporaryFile() as archive:
        count = _write_archive(archive, root, files)
        archive.seek(0)
        while part := archive.read(_PART_BYTES):
            digest.update(part)
            yield PART + base64.b64encode(part).decode("ascii")
    yield SEAL + json.dumps({"sha256": digest.hexdigest(), "files": count})


def _write_archive(archive: IO[bytes], root: Path, files: Iterable[Path]) -> int:
    """Packs the files as they are now; those that went since they were listed are left out."""
    count = 0
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=6) as tar:
        for file in files:
            try:
                with (root / file).open("rb") as content:
                    info = tar.gettarinfo(arcname=file.as_posix(), fileobj=content)
                    tar.addfile(info, content)
            except FileNotFoundError:
                continue
            count += 1
    return count


def received(lines: Iterable[str], archive: IO[bytes], *, max_mib: float) -> int:
    """Writes what `printed` made of a run back into a file; returns how many files it holds.

    Raises:
        DataError: if lines are missing or changed, or it is larger than that; with the lines that are not of it where
            there is no archive at all, since these then say why.
    """
    digest = hashlib.sha256()
    size, begun, others = 0, False, []
    for text in lines:
        if text.startswith(HEAD):
            begun = True
        elif text.startswith(PART):
            try:
                part = base64.b64decode(text[len(PART) :], validate=True)
            except binascii.Error as error:
                raise DataError(f"a part of the archive is damaged ({error}); fetch it again") from error
            size += len(part)
            if size > max_mib * 2**20:
                raise DataError(f"the archive is larger than {max_mib:g} MiB; raise --fetch-mib")
            digest.update(part)
            archive.write(part)
        elif text.startswith(SEAL):
            seal: dict[str, Any] = json.loads(text[len(SEAL) :])
            if not begun or seal["sha256"] != digest.hexdigest():
                raise DataError("the archive came with errors (its checksum differs); fetch it again")
            return int(seal["files"])
        elif not begun and text.strip():
            others.append(text)
    if begun:
        raise DataError("the archive broke off before its end; fetch it again")
    raise DataError("\n".join(others[-5:]) or "the cluster sent nothing")


def unpack(archive: IO[bytes], target: Path, *, num_files: int, max_mib: float, mark: dict[str, Any]) -> int:
    """Puts the files of an archive into a run's folder: all of them, or none.

    Into a new folder at once; in one that was fetched before file by file, each whole, and what is there besides stays.

    Args:
        num_files: as many must be in it.
        max_mib: most that the unpacked files may have.
        mark: where it came from; kept in the folder.

    Returns:
        Bytes of the files.

    Raises:
        DataError: if a name would lead out of the folder, if something else than a file is in it, or if it is damaged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        names, size = _extract(archive, fresh, max_bytes=int(max_mib * 2**20))
        if len(names) != num_files:
            raise DataError(f"the archive holds {len(names)} files, {num_files} were announced; fetch it again")
        (fresh / MARK).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")
        if not target.exists():
            fresh.chmod(0o755)
            fresh.replace(target)
            return size
        for name in (*names, PurePosixPath(MARK)):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            write_beside(target / name, (fresh / name).replace)
        return size
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _extract(archive: IO[bytes], folder: Path, *, max_bytes: int) -> tuple[list[PurePosixPath], int]:
    names: list[PurePosixPath] = []
    size = 0
    try:
        with tarfile.open(fileobj=archive, mode="r:gz") as tar:
            for member in tar:
                name = _safe_name(member)
                size += member.size
                if size > max_bytes or len(names) >= _MAX_FILES:
                    raise DataError("the archive is larger than was asked for; raise --fetch-mib")
                content = tar.extractfile(member)
                assert content is not None  # it is a file
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with content, (folder / name).open("xb") as file:
                    shutil.copyfileobj(content, file)
                os.utime(folder / name, (member.mtime, member.mtime))
                names.append(name)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"the archive cannot be unpacked ({error})") from error
    return names, size


def _safe_name(member: tarfile.TarInfo) -> PurePosixPath:
    name = PurePosixPath(member.name)
    plain = member.name == name.as_posix() and bool(name.parts) and not name.is_absolute() and ".." not in name.parts
    if not member.isreg() or not plain or "\\" in member.name or "\0" in member.name:
        raise DataError(
            f"the archive holds {member.name!r}, which is not a file inside the run's folder; it is refused"
        )
    return name
