"""How is YAML text understood? Scalars as in YAML 1.2, and a remedy for each kind of syntax error."""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_DEPTH = 50
# Keys and values that may be written in a file; composing a million would take minutes.
MAX_WRITTEN = 20_000
SCALAR_TAGS = ("str", "null", "bool", "int", "float", "merge")

_TAG = "tag:yaml.org,2002:"
# PyYAML follows YAML 1.1, where 1e-3 is text, `on` is true, 12:30 is 750 and 2024-01-01 is a date.
_SCALARS = (
    (f"{_TAG}null", re.compile(r"^(?:~|null|Null|NULL|)$"), [*"~nN", ""]),
    (f"{_TAG}bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), [*"tTfF"]),
    (f"{_TAG}int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), [*"-+0123456789"]),
    (
        f"{_TAG}float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        [*"-+.0123456789"],
    ),
    (f"{_TAG}merge", re.compile(r"^<<$"), ["<"]),
)


class Loader(yaml.SafeLoader):
    """Composes nodes only; values are built from them by `search.yaml_file`, which knows their lines."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own attribute)
    depth = 0
    num_nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As PyYAML's, with limits where it would meet Python's recursion limit, or work for minutes."""
        self.depth += 1
        self.num_nodes += 1
        if self.num_nodes > MAX_WRITTEN:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="too many values", problem_mark=mark)
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class Dumper(yaml.SafeDumper):
    """Quotes exactly the texts that `Loader` would take for something else."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own attribute)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Write equal objects out in full; anchors made by a program help nobody."""
        return True


for _tag, _pattern, _first in _SCALARS:
    Loader.add_implicit_resolver(_tag, _pattern, _first)
    Dumper.add_implicit_resolver(_tag, _pattern, _first)


def scalar_value(node: yaml.ScalarNode) -> str | int | float | bool | None:
    """The plain Python value of a scalar.

    Raises:
        ValueError: if the text does not fit its tag, one of `SCALAR_TAGS`.
    """
    text = str(node.value)
    match node.tag.removeprefix(_TAG):
        case "str" | "merge":
            return text
        case "null":
            return None
        case "bool":
            if text.lower() not in ("true", "false"):
                raise ValueError(f"{text!r} is not true or false")
            return text.lower() == "true"
        case "int":
            if len(text) > 100:
                raise ValueError("a whole number of more than 100 digits")
            if not re.fullmatch(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", text):
                raise ValueError(f"{text!r} is not a whole number")
            return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
        case "float":
            return float(text.replace(".inf", "inf").replace(".nan", "nan") if "." in text[:2] else text)
    raise AssertionError(f"no scalar tag: {node.tag}")


def dump_yaml(data: Any) -> str:
    """YAML text that reads back as the same plain data; innermost mappings and lists on one line."""
    text: str = yaml.dump(data, Dumper=Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)
    return text


# What PyYAML says, and what a person should do about it; the first match counts.
_REMEDIES = (
    (
        r"found character '\\t'",
        "a tab where YAML allows only spaces; replace it by spaces",
    ),
    (
        r"found character '(.)' that cannot start",
        r"a value that begins with \1; put the value in quotes",
    ),
    (
        r"mapping values are not allowed here",
        "a second colon in one value; put text that holds a colon in quotes, or write a mapping in braces",
    ),
    (
        r"while scanning an? (?:alias|anchor)",
        "text that begins with * or &; put it in quotes",
    ),
    (
        r"unknown escape character '(.)'",
        r"\\\1 in double quotes, where a backslash is special; use single quotes",
    ),
    (
        r"could not find expected ':'",
        "a key without its colon; write `key: value`",
    ),
    (
        r"expected ',' or '(.)'",
        r"a list or mapping that is not closed, or lacks a comma; add the missing `,` or `\1`",
    ),
    (
        r"unexpected end of stream|expected the node content, but found '<stream end>'",
        "text that ends too early; close the quote, bracket or brace opened last",
    ),
    (
        r"expected <block end>, but found '(?:-|<block sequence start>)'",
        "a list item where a key is expected; give items of one list the same indentation",
    ),
    (
        r"expected <block end>",
        "indentation that fits no line above; give the keys of one mapping the same number of spaces",
    ),
    (
        r"found undefined alias '(.*)'",
        r"the alias *\1 before any anchor &\1; define the anchor above, or put the text in quotes",
    ),
    (
        r"found duplicate anchor",
        "an anchor name used twice; rename one of them",
    ),
    (
        r"but found another document|expected a single document",
        "a second document; keep one, and remove the line `---`",
    ),
    (
        r"nested too deeply",
        f"more than {MAX_DEPTH} levels of nesting; a search space needs no more than 10",
    ),
    (
        r"too many values",
        f"more than {MAX_WRITTEN:,} keys and values; a search space needs no more than some hundred",
    ),
    (
        r"expected the node content, but found '(.)'",
        r"a stray `\1`; remove it, or put the text in quotes",
    ),
    (
        r"while scanning a simple key|sequence entries are not allowed|did not find expected",
        "a key or list item in a place where none may stand; begin it on a line of its own",
    ),
)


# Here PyYAML stops far below the mistake: the place where the key or the quoted text begins tells more.
_AT_CONTEXT = re.compile(r"could not find expected ':'|scanning a quoted scalar|unexpected end of stream")


def syntax_problem(error: yaml.YAMLError, *, text: str) -> tuple[int | None, str]:
    """The line (from 1) of a syntax error in a text, and a sentence that says what to do."""
    if isinstance(error, yaml.reader.ReaderError):
        return text.count(
            "\n", 0, int(error.position)
        ) + 1, f"not valid YAML: the control character U+{int(error.character):04X}; remove it"
    assert isinstance(error, yaml.MarkedYAMLError)
    said = "; ".join(filter(None, (error.context, error.problem)))
    mark = error.problem_mark or error.context_mark
    if _AT_CONTEXT.search(said):
        mark = error.context_mark or mark
    line = mark.line + 1 if mark is not None else None
    if line is not None and "mapping values are not allowed here" in said:
        above = _culprit_above(text.splitlines(), line)
        if above is not None:
            return above
    for pattern, remedy in _REMEDIES:
        found = re.search(pattern, said)
        if found:
            return line, f"not valid YAML: {found.expand(remedy)}"
    return line, f"not valid YAML: {said}; correct this line or the one above"


def _culprit_above(lines: list[str], line: int) -> tuple[int, str] | None:
    """The line before a sound `key: value` line that made it unreadable, and the remedy."""
    here = lines[line - 1]
    before = line - 1
    while before > 0 and not lines[before - 1].strip():
        before -= 1
    if before == 0 or not re.fullmatch(r"\s*[\w./-]+\s*:(?:\s.*)?", here) or len(re.findall(r":(?:\s|$)", here)) > 1:
        return None
    above = lines[before - 1].strip()
    if re.search(r":\s", above):
        return line, (
            f"not valid YAML: indented below line {before}, which holds a value already; "
            f"indent both the same, or move the value of line {before}"
        )
    return before, f"not valid YAML: a key without its colon, found {above[:60]!r}; write `key: value`"
