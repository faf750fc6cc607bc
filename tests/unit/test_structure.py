"""The package stays readable: unique class names, no import cycles, short files and precise types."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools.api_reference import PAGE, page
from tools.structure import Structure

STRUCTURE = Structure(Path(__file__).resolve().parents[2])


def test_class_names_are_unique() -> None:
    assert STRUCTURE.repeated_classes == {}


def test_there_are_no_import_cycles_even_for_types() -> None:
    assert STRUCTURE.cycles == []


def test_no_module_imports_the_package_root() -> None:
    assert [module for module, imported in STRUCTURE.imports.items() if "sqlquarry" in imported] == []
    names = [
        module
        for module, tree in STRUCTURE.trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "sqlquarry"
    ]
    assert names == []


def test_files_stay_short() -> None:
    assert {module: lines for module, lines in STRUCTURE.lines.items() if lines >= 400} == {}


def test_few_annotations_are_any() -> None:
    assert STRUCTURE.share_of_any < 0.03


def test_options_have_names_and_types() -> None:
    loose = [
        f"{module}.{node.name}"
        for module, tree in STRUCTURE.trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        if node.args.kwarg and node.args.kwarg.annotation and ast.unparse(node.args.kwarg.annotation) == "Any"
    ]
    assert loose == []


def test_the_api_reference_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tools.api_reference"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout whose package has every fault that the measurements must find."""
    package = tmp_path / "src" / "sqlquarry"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text(
        "from typing import TYPE_CHECKING, Any\n"
        "if TYPE_CHECKING:\n    from sqlquarry.two import Thing\n"
        "Loose = dict[str, Any]\n"
        "class Other: ...\n"
        "def read(thing: 'Thing', loose: Loose, *, number: int) -> 'Any': ...\n"
    )
    (package / "two.py").write_text("class Thing: ...\nclass Other: ...\ndef far():\n    from sqlquarry import one\n")
    return tmp_path


def test_the_measurements_find_all_faults(checkout: Path) -> None:
    found = Structure(checkout)
    assert found.repeated_classes == {"Other": ["sqlquarry.one", "sqlquarry.two"]}
    assert found.cycles == [["sqlquarry.one", "sqlquarry.two"]]
    assert found.share_of_any == 2 / 4
    assert found.lines["sqlquarry.two"] == 4
