"""The arrows between packages, and what may be imported where."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("search", "trainables", "cluster")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(path: Path, *, everywhere: bool = True) -> set[str]:
    """Dotted names that a module imports; with `everywhere=False` only when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree) if everywhere else _at_import_time(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrows"
            names.update({f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)})
    return names


def _at_import_time(tree: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for node in ast.iter_child_nodes(tree):
        is_type_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_type_checking:
            found += [node, *_at_import_time(node)]
    return found


def tops(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_arrows_point_one_way(path: Path) -> None:
    names = imported(path)
    package = path.relative_to(ROOT).parts[0]
    if package == "trainables":
        assert not tops(names) & {"search", "cluster", "optuna"}
    if package == "search":
        assert "cluster" not in tops(names)
    assert "search.run" not in names, "the command line is nobody's library"


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "trainables"], ids=module_name)
def test_one_module_of_trainables_knows_ray(path: Path) -> None:
    assert ("ray" in tops(imported(path))) == (path.name == "ray_runtime.py")


@pytest.mark.parametrize("path", [p for p in MODULES if p.name == "run.py"], ids=module_name)
def test_the_command_line_imports_nothing_slow(path: Path) -> None:
    assert not tops(imported(path, everywhere=False)) & {"ray", "torch", "optuna", "rich", "pydantic"}


def test_only_the_command_lines_print() -> None:
    printing = {
        module_name(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    commands = ("run", "predict", "samples", "list", "compare", "report", "export", "plan", "simulate")
    assert printing <= {*(f"search.{name}" for name in commands), "cluster.submit", "cluster.pack"}


def test_no_drawer_for_everything() -> None:
    assert not [path for path in MODULES if path.stem in ("utils", "helpers", "common", "misc")]


@pytest.mark.parametrize("package", PACKAGES)
def test_init_files_are_empty(package: str) -> None:
    assert (ROOT / package / "__init__.py").read_text() == ""
