"""Generate docs/api.md from the code. It lists all public names with their signatures, and the purpose of each module.

Run ``python -m tools.api_reference`` after you change a public name or the docstring of a module. A test compares the
page with the code. The package is parsed but not imported, so the page is the same on every machine.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "sqlquarry"
PAGE = ROOT / "docs" / "api.md"
_HEAD = """# API reference

Generated from the code by `python -m tools.api_reference`. To change this page, change the docstrings.

## Public names

`import sqlquarry as sq` provides these names. More names are in the subpackages: `sqlquarry.judging`,
`sqlquarry.models`, …
"""
_LIST_HEAD = """
## Modules

All modules with the first line of their docstrings.
"""
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def page() -> str:
    """Return the text of the page."""
    return _HEAD + "".join(map(_described, _public_names())) + _LIST_HEAD + "".join(_module_lists())


def _public_names() -> list[str]:
    for node in _tree(PACKAGE / "__init__.py").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise ValueError("sqlquarry/__init__.py has no __all__")


def _described(name: str) -> str:
    home, node = _definition(PACKAGE / "__init__.py", name)
    where = ".".join(home.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    text = f"\n### {name}\n\n`{where}`\n\n"
    if isinstance(node, _Function):
        return text + _code(_signature(node)) + _docstring(node)
    if not isinstance(node, ast.ClassDef):
        return text + _code(ast.unparse(node))
    members = _members(node, _tree(home))
    methods = [one for one in members if isinstance(one, _Function) and not one.name.startswith("_")]
    text += _code(_constructor(node.name, members)) + _docstring(node)
    return text + "".join(f"- `{_signature(one)}`: {_first_line(one)}\n" for one in methods)


def _definition(path: Path, name: str) -> tuple[Path, ast.stmt]:
    """Return the file and the statement that define a name, following re-exports through packages."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ClassDef | _Function) and node.name == name:
            return path, node
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id == name:
                return path, node
        if isinstance(node, ast.ImportFrom) and node.module and name in {alias.name for alias in node.names}:
            module = PACKAGE.parent.joinpath(*node.module.split("."))
            return _definition(module / "__init__.py" if module.is_dir() else module.with_suffix(".py"), name)
    raise ValueError(f"{path} does not define {name}")


def _members(node: ast.ClassDef, tree: ast.Module) -> list[ast.stmt]:
    """Return the members of a class, after those that it inherits from classes in the same module."""
    bases = {ast.unparse(base) for base in node.bases}
    parents = [one for one in tree.body if isinstance(one, ast.ClassDef) and one.name in bases]
    return [one for parent in parents for one in _members(parent, tree)] + node.body


def _constructor(name: str, members: list[ast.stmt]) -> str:
    for one in members:
        if isinstance(one, ast.FunctionDef) and one.name == "__init__":
            return _signature(one).replace("__init__", name, 1).removesuffix(" -> None")
    fields = [
        ast.unparse(one)
        for one in members
        if isinstance(one, ast.AnnAssign) and not ast.unparse(one.annotation).startswith("ClassVar")
    ]
    return f"{name}({', '.join(fields)})".replace("_: KW_ONLY", "*")


def _signature(node: _Function) -> str:
    arguments = ast.unparse(node.args)
    for first in ("self", "cls"):
        arguments = "" if arguments == first else arguments.removeprefix(f"{first}, ")
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if any(ast.unparse(one).endswith("property") for one in node.decorator_list):
        return f"{node.name}{returned}"
    return f"{node.name}({arguments}){returned}"


def _code(text: str) -> str:
    """Return a signature as a code block, with one argument per line if it is long."""
    head, _, tail = text.partition("(")
    inside, _, returned = tail.rpartition(")")
    if len(text) > 100 and inside:
        text = f"{head}(\n    " + ",\n    ".join(_arguments(inside)) + f",\n){returned}"
    return f"```text\n{text}\n```\n\n"


def _arguments(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for index, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            yield text[start:index].strip()
            start = index + 1
    yield text[start:].strip()


def _docstring(node: ast.ClassDef | _Function) -> str:
    text = ast.get_docstring(node) or ""
    first, _, rest = text.partition("\n")
    return f"{first}\n\n" + (f"```text\n{rest.strip()}\n```\n\n" if rest.strip() else "")


def _first_line(node: ast.AsyncFunctionDef | ast.ClassDef | ast.FunctionDef | ast.Module) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]


def _module_lists() -> Iterator[str]:
    folders = sorted({path.parent for path in PACKAGE.rglob("*.py")})
    for folder in folders:
        yield f"\n### {folder.relative_to(PACKAGE.parent).as_posix()}/\n\n"
        if folder != PACKAGE:
            yield f"{_first_line(_tree(folder / '__init__.py'))}\n\n"
        modules = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
        yield "| module | purpose |\n|---|---|\n" if modules else ""
        for path in modules:
            purpose = _first_line(_tree(path)).replace("|", "\\|")
            yield f"| `{path.name}` | {purpose} |\n"


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
