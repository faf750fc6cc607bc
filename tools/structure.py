"""Measure the structure of the package: file sizes, class names, import cycles and the use of `Any`.

Run ``python -m tools.structure [CHECKOUT]``. `tests/unit/test_structure.py` checks the limits.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

NAME = "sqlquarry"
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Structure:
    """Measurements of the package's source code.

    Args:
        root: directory of the checkout.
    """

    root: Path

    @cached_property
    def files(self) -> dict[str, Path]:
        """Module name -> file."""
        source = self.root / "src"
        paths = sorted((source / NAME).rglob("*.py"))
        return {
            ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): path for path in paths
        }

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        """Module name -> syntax tree."""
        return {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in self.files.items()}

    @cached_property
    def lines(self) -> dict[str, int]:
        """Module name -> number of lines."""
        return {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in self.files.items()}

    @cached_property
    def functions(self) -> dict[str, int]:
        """Function name -> number of lines without decorators."""
        return {
            f"{module}.{node.name}:{node.lineno}": (node.end_lineno or node.lineno) - node.lineno + 1
            for module, tree in self.trees.items()
            for node in ast.walk(tree)
            if isinstance(node, _Function)
        }

    @cached_property
    def repeated_classes(self) -> dict[str, list[str]]:
        """Class names that several modules define -> these modules."""
        homes: dict[str, list[str]] = defaultdict(list)
        for module, tree in self.trees.items():
            # Only top-level classes count: a framework may require the name of a nested class.
            for name in [node.name for node in tree.body if isinstance(node, ast.ClassDef)]:
                homes[name].append(module)
        return {name: modules for name, modules in homes.items() if len(modules) > 1}

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """Module name -> modules of the package that it imports, also inside functions and for type checkers."""
        return {module: set(self._imported(module)) for module in self.files}

    @cached_property
    def cycles(self) -> list[list[str]]:
        """Groups of modules that import each other, directly or through other modules."""
        reached = {module: _reachable(module, self.imports) for module in self.files}
        groups = {
            frozenset(other for other in reached[module] if module in reached[other])
            for module in self.files
            if module in reached[module]
        }
        return sorted(sorted(group) for group in groups)

    @cached_property
    def annotations(self) -> dict[str, list[ast.expr]]:
        """Module name -> annotations of arguments, return values and variables."""
        return {module: list(_annotations(tree)) for module, tree in self.trees.items()}

    @cached_property
    def loose_annotations(self) -> dict[str, int]:
        """Module name -> number of annotations that contain `Any`, directly or through an alias."""
        aliases = {"Any", *_loose_aliases(self.trees.values())}
        return {
            module: sum(not aliases.isdisjoint(_names(annotation)) for annotation in annotations)
            for module, annotations in self.annotations.items()
        }

    @property
    def share_of_any(self) -> float:
        """Share of annotations that contain `Any`."""
        return sum(self.loose_annotations.values()) / sum(map(len, self.annotations.values()))

    def _imported(self, module: str) -> Iterator[str]:
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                parts = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [part if part in self.files else node.module for part in parts]
            else:
                continue
            yield from (name for name in names if name in self.files)


def _reachable(start: str, imports: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = set(imports[waiting.pop()]) - found
        found |= new
        waiting += new
    return found


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, _Function):
            arguments = node.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
            yield from (one.annotation for one in every if one and one.annotation)
            if node.returns:
                yield node.returns
        elif isinstance(node, ast.AnnAssign):
            yield node.annotation


def _loose_aliases(trees: Iterable[ast.Module]) -> Iterator[str]:
    """Yield the names of type aliases that contain `Any`."""
    for node in (node for tree in trees for node in tree.body):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        is_alias = isinstance(node, ast.Assign) or ast.unparse(node.annotation) == "TypeAlias"
        is_type = isinstance(node.value, ast.Subscript | ast.BinOp | ast.Constant)
        if is_alias and is_type and "Any" in _names(node.value):
            yield ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)


def _names(node: ast.expr) -> set[str]:
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value.replace(".", "").isidentifier():
            names.add(one.value)
    return names


def main() -> None:
    """Print all measurements."""
    structure = Structure(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).resolve().parents[1])
    lengths = structure.functions
    longest = max(lengths, key=lambda name: lengths[name])
    lines = structure.lines
    print(f"lines: {sum(lines.values()):,} in {len(lines)} modules, longest module {max(lines.values())}")
    print(f"functions: {len(lengths):,}, mean length {statistics.fmean(lengths.values()):.1f} lines")
    print(f"longest function: {longest}, {lengths[longest]} lines")
    print(f"repeated class names: {len(structure.repeated_classes)} {sorted(structure.repeated_classes)}")
    print(f"import cycles: {len(structure.cycles)}", *structure.cycles, sep="\n  ")
    print(f"annotations with Any: {structure.share_of_any:.1%}, including aliases")


if __name__ == "__main__":
    main()
