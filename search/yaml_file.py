"""What does a YAML file hold, and on which line? Plain data with the line of every key and list item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from search.yaml_syntax import MAX_DEPTH, SCALAR_TAGS, Loader, scalar_value, syntax_problem
from trainables.errors import ConfigError

# Aliases multiply: ten lines can stand for a billion values.
MAX_NODES = 10_000
MAX_BYTES = 2_000_000

Loc = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlFile:
    """The data of a file, and where each part of it was written.

    Attributes:
        lines: line (from 1) of every key and list item.
        paths: the file of the places that were written in another, which this one includes.
    """

    path: Path
    data: dict[str, Any]
    lines: dict[Loc, int]
    paths: dict[Loc, Path] = field(default_factory=dict)

    def line_of(self, loc: Sequence[str | int]) -> int | None:
        """The line (from 1) of the key or list item at a place, or of the nearest part that encloses it."""
        return self.lines.get(self._written(loc))

    def path_of(self, loc: Sequence[str | int]) -> Path:
        """The file in which a place, or the nearest part that encloses it, was written."""
        return self.paths.get(self._written(loc), self.path)

    def _written(self, loc: Sequence[str | int]) -> Loc:
        place = tuple(loc)
        while place and place not in self.lines:
            place = place[:-1]
        return place


def read_yaml(path: Path) -> YamlFile:
    """Read a file whose top level is a mapping.

    Raises:
        ConfigError: if the file cannot be read or is not YAML; with file, line and what to do.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES:,} bytes, so no search space; check the path")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file; check the path{_neighbours(path)}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: is a folder; give the path of a YAML file{_neighbours(path / '_')}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    builder = _Builder()
    try:
        data = builder.read(text)
    except _YamlError as problem:
        where = f"{path}:{problem.line}" if problem.line else f"{path}"
        raise ConfigError(f"{where}: {problem.text}") from problem
    if data is None:
        raise ConfigError(f"{path}: is empty; begin with the sections task, space, scheduler and budget")
    if not isinstance(data, dict):
        # Not which text: a path given by mistake may be that of a secret.
        found = "a list" if isinstance(data, list) else "text without a key"
        raise ConfigError(
            f"{path}:1: the top level must be a mapping, found {found}; write lines of `key: value`, with the space"
        )
    return YamlFile(path=path, data=data, lines=builder.lines)


def parse_value(text: str) -> Any:
    """A single value written as YAML, by the same rules as in a file.

    Raises:
        ConfigError: if the text is not YAML.
    """
    try:
        return _Builder().read(text)
    except _YamlError as problem:
        raise ConfigError(problem.text) from problem


def _neighbours(path: Path) -> str:
    files = sorted(path.parent.glob("*.yaml"))[:5] if path.parent.is_dir() else []
    return f"; {path.parent} holds {', '.join(file.name for file in files)}" if files else ""


class _YamlError(Exception):
    def __init__(self, line: int | None, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


@dataclass
class _Builder:
    """Turns composed nodes into fresh data, so that two uses of one anchor never share an object."""

    lines: dict[Loc, int] = field(default_factory=dict)
    num_nodes: int = 0

    def read(self, text: str) -> Any:
        try:
            node = yaml.compose(text, Loader=Loader)
        except yaml.YAMLError as error:
            raise _YamlError(*syntax_problem(error, text=text)) from error
        if node is None:
            return None
        return self.build(node, loc=(), depth=0)

    def build(self, node: yaml.Node, *, loc: Loc, depth: int) -> Any:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise _YamlError(
                _line(node), f"aliases expand to more than {MAX_NODES:,} values; write the values out instead"
            )
        if depth > MAX_DEPTH:  # text this deep was refused before, so it is an alias within its own anchor
            raise _YamlError(_line(node), "an alias stands inside its own anchor; write the values out instead")
        if isinstance(node, yaml.MappingNode):
            _check_tag(node, "map")
            return self.mapping(node, loc=loc, depth=depth)
        if isinstance(node, yaml.SequenceNode):
            _check_tag(node, "seq")
            return self.sequence(node, loc=loc, depth=depth)
        assert isinstance(node, yaml.ScalarNode)
        return self.scalar(node)

    def mapping(self, node: yaml.MappingNode, *, loc: Loc, depth: int) -> dict[str, Any]:
        written: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                for name, value in self.merge(value_node, loc=loc, depth=depth).items():
                    merged.setdefault(name, value)  # of several merged mappings the first wins
                continue
            name = self.key(key_node)
            if name in written:
                raise _YamlError(
                    _line(key_node),
                    f"{_dotted((*loc, name))}: written twice, first in line {_line(written[name][0])}; remove one",
                )
            written[name] = (key_node, value_node)
        data = {name: value for name, value in merged.items() if name not in written}
        for name, (key_node, value_node) in written.items():
            if name in merged:
                self.forget((*loc, name))  # the lines of the merged value that is overridden here
            self.lines[(*loc, name)] = _line(key_node)
            data[name] = self.build(value_node, loc=(*loc, name), depth=depth + 1)
        return data

    def merge(self, node: yaml.Node, *, loc: Loc, depth: int) -> dict[str, Any]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in reversed(sources):
            if not isinstance(source, yaml.MappingNode):
                raise _YamlError(
                    _line(node), "<< takes a mapping or a list of mappings; write <<: *name with a mapping behind &name"
                )
            merged |= self.build(source, loc=loc, depth=depth + 1)
        return merged

    def sequence(self, node: yaml.SequenceNode, *, loc: Loc, depth: int) -> list[Any]:
        items = []
        for index, item in enumerate(node.value):
            self.lines[(*loc, index)] = _line(item)
            items.append(self.build(item, loc=(*loc, index), depth=depth + 1))
        return items

    def key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise _YamlError(
                _line(node), "a list or mapping stands where a key is expected; put text with { or [ in quotes"
            )
        name = self.scalar(node)
        if not isinstance(name, str):
            raise _YamlError(_line(node), f"keys must be text, found {node.value or 'nothing'}; put it in quotes")
        return name

    def scalar(self, node: yaml.ScalarNode) -> str | int | float | bool | None:
        try:
            str(node.value).encode()
            _check_tag(node, *SCALAR_TAGS)
            return scalar_value(node)
        except UnicodeEncodeError as error:
            raise _YamlError(_line(node), "half of a \\u escape pair; write the character itself") from error
        except ValueError as error:
            raise _YamlError(_line(node), f"{error}; put text in quotes") from error

    def forget(self, loc: Loc) -> None:
        for place in [place for place in self.lines if place[: len(loc)] == loc]:
            del self.lines[place]


def _check_tag(node: yaml.Node, *expected: str) -> None:
    if node.tag.removeprefix("tag:yaml.org,2002:") not in expected:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise _YamlError(_line(node), f"the tag {tag} is not supported; remove it")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _dotted(loc: Loc) -> str:
    return ".".join(map(str, loc))
