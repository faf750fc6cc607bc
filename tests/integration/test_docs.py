"""The code in the documentation runs, and the files and tests that it refers to exist."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sqlquarry as sq
from sqlquarry.emulator import LocalAWS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```python(?P<mark>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
# Names that a page may use without defining them. Each is a fixture below.
GIVEN = {"adapter", "aws", "base_model", "databases", "merged", "records"}


def blocks(page: Path) -> list[tuple[int, str, str]]:
    """Return line, mark ("" or "no-run") and code of every Python block of a page."""
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start("code")].count("\n"), m["mark"].strip(), m["code"]) for m in BLOCK.finditer(text)]


def free_names(code: str) -> set[str]:
    """Return the names that the code uses but does not define."""
    read, defined = set(), set(dir(builtins))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            defined.add(node.name)
    return read - defined


@pytest.fixture
def base_model(tiny_llama: Path) -> str:
    return str(tiny_llama)


@pytest.fixture(scope="module")
def records() -> sq.Records:
    """Return twelve sample questions about one database."""
    return sq.Records(record for record in sq.sample_records("train") if record.database == "hotel_chain")[:12]


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return sq.sample_databases(tmp_path_factory.mktemp("databases"))


@pytest.fixture(scope="module")
def adapter(tiny_llama: Path, records: sq.Records, tmp_path_factory: pytest.TempPathFactory) -> sq.AdapterCheckpoint:
    trainer = sq.QLoRAFSDPTrainer(tiny_llama, config=sq.TrainingConfig(num_train_epochs=1, device="cpu"))
    return trainer.train(records, output_dir=tmp_path_factory.mktemp("docs") / "adapter")


@pytest.fixture(scope="module")
def merged(adapter: sq.AdapterCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> sq.MergedModel:
    return sq.AdapterMerger().merge(adapter, tmp_path_factory.mktemp("docs") / "merged")


@pytest.fixture
def aws() -> Iterator[LocalAWS]:
    with LocalAWS(import_polls=0, cold_start_calls=0) as running:
        yield running


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_every_block_of_the_page_runs(
    page: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runnable = [(line, code) for line, mark, code in blocks(page) if not mark]
    missing = free_names("".join(code for _, code in runnable))
    assert missing <= GIVEN, f"{page.name} uses names that neither it nor this test defines: {missing - GIVEN}"
    namespace = {name: request.getfixturevalue(name) for name in sorted(missing)}
    monkeypatch.chdir(tmp_path)
    for line, code in runnable:
        # The empty lines make a traceback show the line number of the page.
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


def test_few_blocks_are_not_run_and_these_are_valid_python() -> None:
    marked = [(page.name, mark, code) for page in PAGES for _, mark, code in blocks(page) if mark]
    assert {mark for _, mark, _ in marked} <= {"no-run"}
    assert len(marked) <= 3
    for name, _, code in marked:
        compile(code, name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_tests_that_a_page_refers_to_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target]
    assert [target for target in links if not (page.parent / target).exists()] == []
    for path, test in re.findall(r"`((?:src|tests|examples|docs)/[\w./-]+\.\w+)(?:::(\w+))?`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"
        if test:
            assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{page.name} names {path}::{test}"


def test_the_architecture_page_describes_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "sqlquarry"
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").is_file()}
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == rooms
    assert len(text.splitlines()) < 160
