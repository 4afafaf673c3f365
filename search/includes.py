"""What does a YAML file hold together with the files that it includes? Merged data, each part with its own file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.config_errors import Loc, found
from search.yaml_file import YamlFile, read_yaml
from trainables.errors import ConfigError

INCLUDE = "include"
# Files may include files that include others: without a limit twenty small ones could stand for a million.
_MAX_FILES = 100

INCLUDE_SCHEMA: dict[str, Any] = {
    "description": "Other YAML files, relative to this one, on which it builds; what stands here comes on top.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
}


def read_with_includes(path: Path) -> YamlFile:
    """A file on top of those named under its key `include`, in their order; a later value wins.

    Mappings merge key by key, but a domain written anew, with its own `type`, replaces the earlier one whole; lists
    are replaced. The `name` of an included file is not taken over: a run is named after the file that was asked for.

    Raises:
        ConfigError: if a file cannot be read or includes itself; with the line that includes it and the whole chain.
    """
    return _Reader().read(path, chain=())


def included_files(path: Path) -> list[Path]:
    """The files on which a file builds, and those on which these do.

    Raises:
        ConfigError: as from `read_with_includes`.
    """
    reader = _Reader()
    reader.read(path, chain=())
    return reader.files[1:]


class _Reader:
    def __init__(self) -> None:
        self.files: list[Path] = []

    def read(self, path: Path, *, chain: Sequence[Path]) -> YamlFile:
        self.files.append(path)
        if len(self.files) > _MAX_FILES:
            raise ConfigError(f"{path}: more than {_MAX_FILES} files are included; {INCLUDE} fewer")
        own = read_yaml(path)
        if INCLUDE not in own.data:
            return own
        merged = YamlFile(path=path, data={}, lines={})
        for name, line in _named(own):
            base = self.include(path.parent / Path(name).expanduser(), at=f"{path}:{line}", chain=(*chain, path))
            merged = _merge(merged, _without(base, "name"))
        return _merge(merged, _without(own, INCLUDE))

    def include(self, path: Path, *, at: str, chain: Sequence[Path]) -> YamlFile:
        shown = " -> ".join(map(str, [*chain, path]))
        if path.resolve() in [each.resolve() for each in chain]:
            raise ConfigError(f"{at}: {INCLUDE}: the file includes itself, found {shown}; remove one of these lines")
        if not path.is_file():
            raise ConfigError(f"{at}: {INCLUDE}: there is no such file, found {shown}; write a path from here to it")
        return self.read(path, chain=chain)


def _named(file: YamlFile) -> list[tuple[str, int]]:
    """The included paths as written, with their lines."""
    written = file.data[INCLUDE]
    items = written if isinstance(written, list) else [written]
    line = file.line_of((INCLUDE,)) or 1
    if not items or not all(map(_is_path, items)):
        wrong = next((item for item in items if not _is_path(item)), written)
        raise ConfigError(
            f"{file.path}:{line}: {INCLUDE}: must be a path or a list of paths, found {found(wrong)}; "
            f"write {INCLUDE}: base.yaml"
        )
    return [(item, file.line_of((INCLUDE, index)) or line) for index, item in enumerate(items)]


def _is_path(item: Any) -> bool:
    return isinstance(item, str) and item != "" and "\0" not in item


def _without(file: YamlFile, key: str) -> YamlFile:
    kept = {name: value for name, value in file.data.items() if name != key}
    return replace(file, data=kept, lines={loc: line for loc, line in file.lines.items() if loc[0] != key})


def _merge(below: YamlFile, above: YamlFile) -> YamlFile:
    """One file on top of another; every place keeps the file and the line where it was written last."""
    lines, paths = dict(below.lines), {loc: below.path_of(loc) for loc in below.lines}

    def put(loc: Loc, old: Any, new: Any) -> Any:
        if isinstance(old, dict) and isinstance(new, dict) and "type" not in new:
            kept = {key: value for key, value in old.items() if key not in new}
            return kept | {key: put((*loc, key), old.get(key), value) for key, value in new.items()}
        for place in [place for place in lines if place[: len(loc)] == loc and loc]:
            del lines[place]
        return new

    data = put((), below.data, above.data)
    lines |= above.lines
    paths |= {loc: above.path_of(loc) for loc in above.lines}
    return YamlFile(path=above.path, data=data, lines=lines, paths={loc: paths[loc] for loc in lines})
