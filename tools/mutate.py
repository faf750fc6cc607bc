"""Change the code at random and count how many of the changes the tests notice.

First record which test runs which line, then give modules:

    pytest --cov --cov-context=test
    python -m tools.mutate src/sqlquarry/results/pairing.py --count 20

Each mutant is one small change. The tests that run its line are run against a copy of `src`, so the checkout never
changes. Mutants that no test notices are printed. Read each: it is either equivalent to the code or a missing test.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coverage import CoverageData

ROOT = Path(__file__).resolve().parents[1]
# A mutant that runs forever counts as noticed, in a test or while the tests are imported.
TEST_TIMEOUT_S = 60
TIMEOUT_S = 1800

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.Pow: ast.Mult,
}  # fmt: skip
# Arguments that change no result of correct code.
_HARMLESS = {"encoding", "slots", "strict"}


@dataclass(frozen=True)
class Mutant:
    """One change of a module.

    Args:
        line: the first line of the changed code, from 1.
        before: the code as it is in the checkout.
        after: the code that replaces it.
        source: the text of the changed module.
    """

    line: int
    before: str
    after: str
    source: str


def mutants(source: str) -> list[Mutant]:
    """Return every change that this script can make to the text of a module, in the order of its lines."""
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    whole, found, unchanged = source.encode(), {}, _tree(source)
    for node, replacement in _changes(ast.parse(source)):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        changed = (whole[:begin] + replacement.encode() + whole[end:]).decode()
        if _tree(changed) not in (None, unchanged):
            found[changed] = Mutant(node.lineno, whole[begin:end].decode(), replacement, changed)
    return sorted(found.values(), key=lambda mutant: mutant.line)


def _tree(source: str) -> str | None:
    """Return the syntax tree as text, or None if the text does not compile."""
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return None
    return ast.dump(ast.parse(source))


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Yield pairs of a node and the code that replaces it. Prose and types stay unchanged."""
    for child in _children(node):
        if isinstance(child, ast.expr):
            for changed in _expression_changes(child):
                yield child, f"({ast.unparse(changed)})"
        if isinstance(child, ast.stmt):
            yield from _statement_changes(child)
        yield from _changes(child)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the children whose change could matter: no docstrings, annotations, messages of errors or f-strings."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params") or isinstance(node, ast.Raise | ast.JoinedStr):
            continue
        if isinstance(node, ast.keyword) and node.arg in _HARMLESS:
            continue
        for child in value if isinstance(value, list) else [value]:
            is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and not is_docstring:
                yield child


def _expression_changes(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Constant():
            yield from _other_values(node)
        case ast.BoolOp():
            yield from _other_operands(node)
        case ast.Compare(left, [operator], right) if type(operator) in _COMPARISONS:
            yield ast.Compare(left, [_COMPARISONS[type(operator)]()], right)
        case ast.BinOp(left, operator, right) if type(operator) in _OPERATORS:
            yield ast.BinOp(left, _OPERATORS[type(operator)](), right)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.IfExp(test, body, otherwise):
            yield ast.IfExp(test, otherwise, body)
        case ast.Call(function, arguments, keywords):
            for keyword in keywords:
                if keyword.arg not in _HARMLESS:
                    yield ast.Call(function, arguments, [kept for kept in keywords if kept is not keyword])


def _other_operands(node: ast.BoolOp) -> Iterator[ast.expr]:
    yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    for dropped in node.values:
        kept = [value for value in node.values if value is not dropped]
        yield kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept)


def _other_values(node: ast.Constant) -> Iterator[ast.expr]:
    match node.value:
        case bool() as value:
            yield ast.Constant(not value)
        case int() | float() as value:
            yield ast.Constant(value + 1)
        case str() as value if value and " " not in value:
            yield ast.Constant(value + "_")


def _statement_changes(node: ast.stmt) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    match node:
        case ast.If(test) | ast.While(test) | ast.Assert(test):
            yield test, f"(not ({ast.unparse(test)}))"
        case ast.Return(ast.expr() as value) if not (isinstance(value, ast.Constant) and not value.value):
            yield value, "(None)"
        case ast.Expr(ast.Call() | ast.Yield()) | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield node, "pass"
        case ast.Break():
            yield node, "continue"
        case ast.Continue():
            yield node, "break"


def noticed(mutant: Mutant, module: Path, tests: Sequence[str], root: Path = ROOT) -> bool:
    """Return whether any of `tests` fails with the mutant in the place of `module`, a path below `root`/src."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copied = Path(folder)
        shutil.copytree(root / "src", copied / "src", ignore=shutil.ignore_patterns("__pycache__"))
        (copied / module).write_text(mutant.source, encoding="utf-8")
        (copied / "tests.txt").write_text("\n".join(tests), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "-o", f"timeout={TEST_TIMEOUT_S}"]
        try:
            ended = subprocess.run(  # noqa: S603 - our own tests
                [*command, f"@{copied / 'tests.txt'}"],
                check=False,
                cwd=root,
                env=os.environ | {"PYTHONPATH": str(copied / "src")},
                capture_output=True,
                timeout=TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            return True
    return ended.returncode != 0


def covering(data: CoverageData, module: Path, root: Path = ROOT) -> dict[int, list[str]]:
    """Return the tests that run each line of `module`. Those that run most of the module come first.

    These are the most likely to notice a change. Integration tests come last, because they are slow.
    """
    tests = {
        line: {name.rpartition("|")[0] for name in names if "::" in name}
        for line, names in data.contexts_by_lineno(str(root / module)).items()
    }
    lines = Counter(test for names in tests.values() for test in names)
    return {
        line: sorted(names, key=lambda name: ("integration" in name, -lines[name], name))
        for line, names in tests.items()
    }


def report(module: Path, data: CoverageData, *, count: int, seed: int, root: Path = ROOT) -> tuple[int, int]:
    """Try `count` random mutants of `module`, print those that no test notices, and return (noticed, tried)."""
    choice = random.Random(seed)  # noqa: S311 - a sample, not a secret
    every = mutants((root / module).read_text(encoding="utf-8"))
    chosen = sorted(choice.sample(every, min(count, len(every))), key=lambda mutant: mutant.line)
    lines = covering(data, module, root)
    everything = list(dict.fromkeys(test for tests in lines.values() for test in tests))
    caught = 0
    for mutant in chosen:
        # A line that runs on import, or only in another process, is left to all tests of the module.
        tests = lines.get(mutant.line) or everything
        if tests and noticed(mutant, module, tests, root):
            caught += 1
        else:
            print(f"  {module}:{mutant.line}: {mutant.before!r} -> {mutant.after!r} ({len(tests)} tests)", flush=True)
    print(f"{caught:4} of {len(chosen):4} noticed: {module}", flush=True)
    return caught, len(chosen)


def main(arguments: Iterable[str] | None = None) -> None:
    """Read the command line, try the modules one after the other and print a total."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="+", type=Path, help="paths of modules, relative to the checkout")
    parser.add_argument("--count", type=int, default=20, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(None if arguments is None else list(arguments))
    data = CoverageData(str(ROOT / ".coverage"))
    data.read()
    if not data.measured_contexts() - {""}:
        parser.error("there is no .coverage with test names. Run: pytest --cov --cov-context=test")
    totals = [report(module, data, count=options.count, seed=options.seed) for module in options.modules]
    print(f"{sum(t[0] for t in totals):4} of {sum(t[1] for t in totals):4} noticed")


if __name__ == "__main__":
    main()
