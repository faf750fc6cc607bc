"""Records, plans and reports in a notebook: a real browser, light and dark, and hostile text."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from test_judging_browser import browser  # noqa: F401 - the fixture
from transformers import AutoTokenizer

import sqlquarry as sq
from sqlquarry.answers import Judgement
from sqlquarry.judging import Report, ReportEntry, ReportInfo
from sqlquarry.progress.notebook import html_table
from sqlquarry.training.config import TrainingConfig

from conftest import toy_examples

EVIL = (
    "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\"></td></table>'\x1b[2J\u202e"
)
# Styles of cells in JupyterLab and VS Code.
PAGE = """<!doctype html><html data-ready=1><meta charset=utf-8><title>notebook</title><style>
:root {{ color-scheme: light dark }} body {{ font: 13px system-ui; background: Canvas; color: CanvasText }}
td, th {{ text-align: right; white-space: nowrap }} table {{ border: none }}
@media (prefers-color-scheme: dark) {{ tbody tr:nth-child(odd) {{ background: #222 }} }}
</style><body>{}</body></html>"""


def report(text: str) -> Report:
    records = [sq.Record(text, f"CREATE TABLE t (a) -- {text}", f"SELECT {i} -- {text}", id=text) for i in range(30)]
    verdicts = ["correct", "correct", "wrong", "unjudged"]
    entries = tuple(
        ReportEntry(
            record,
            text,
            text,
            i == 3,
            tuple(Judgement(name, verdicts[(i + shift) % 4], text) for shift, name in enumerate(("execution", text))),
        )
        for i, record in enumerate(records)
    )
    return Report(("execution", text), entries, ReportInfo(stopped=text, records_left=7))


def records(text: str) -> sq.Records:
    return sq.Records(
        [sq.Record(**example) for example in toy_examples(8)] + [entry.record for entry in report(text).entries]
    )


@pytest.fixture(scope="module")
def plan(tiny_llama):
    shown = sq.Records(sq.Record(**example) for example in toy_examples(24))
    long = sq.Record("long " * 300, "CREATE TABLE t (a)", "SELECT 1", id=EVIL)
    trainer = sq.QLoRAFSDPTrainer(tiny_llama, config=TrainingConfig(max_length=320))
    return trainer.plan([*shown, long], instance_type="ml.g5.12xlarge", check=False)


@pytest.mark.parametrize("dark", [False, True])
def test_a_notebook_shows_all_but_runs_nothing(browser, plan, dark: bool, tmp_path) -> None:  # noqa: F811 - the fixture
    shown = {"plan": plan, "report": report(EVIL), "records": records(EVIL)}
    page = tmp_path / "notebook.html"
    page.write_text(PAGE.format("<hr>".join(one._repr_html_() for one in shown.values())), encoding="utf-8")
    browser.open(page, dark=dark)
    assert browser.evaluate("document.title") == "notebook"
    assert browser.evaluate("document.querySelectorAll('img, script').length") == 0
    assert browser.evaluate("document.querySelectorAll('body > div > table').length") == 3
    assert browser.requests == [page.as_uri()]
    assert browser.problems == []
    text = browser.evaluate("document.body.innerText")
    assert not {"\x1b", "\u202e"} & set(text)
    steps, value, note = browser.evaluate(
        "[...document.querySelectorAll('table')[0].rows[2].cells].map(c => c.innerText)"
    )
    assert (steps, value, note.split()[1]) == ("steps", f"{plan.steps:,}", "rows")
    execution = browser.evaluate("[...document.querySelectorAll('table')[1].rows[1].cells].map(c => c.innerText)")
    estimate = shown["report"].accuracy()
    assert execution[:2] + execution[3:] == [
        "execution",
        f"{estimate.value:.1%}",
        f"{estimate.n}",
        f"{estimate.unjudged}",
    ]
    assert f"{estimate.low:.1%} – {estimate.high:.1%}" == execution[2].strip()
    assert re.search(r"\b7 records\b", text), "the records that were not judged"
    assert browser.evaluate("document.querySelectorAll('table')[2].rows.length") == 11
    assert "28 more" in text
    # The text is readable on its background, including the headings.
    colors = browser.evaluate("['td', 'th', 'caption'].map(n => getComputedStyle(document.querySelector(n)).color)")
    assert set(colors) == {"rgb(255, 255, 255)" if dark else "rgb(0, 0, 0)"}
    assert browser.evaluate("getComputedStyle(document.querySelector('td')).textAlign") == "left"
    browser.screenshot(tmp_path / "shot.png")


@pytest.mark.parametrize(
    "text", ["\u202e" * 30_000, "<&\"'>" * 20_000, "x" * 10**5, "\U0001f469\u200d\U0001f467" * 9_999]
)
def test_no_text_makes_the_output_of_a_cell_large(text: str) -> None:
    sizes = [len(one._repr_html_().encode()) for one in (records(text), report(text))]
    assert max(sizes) <= 50_000
    assert len(html_table([[text] * 6] * 99, caption=text, notes=[text] * 1000).encode()) <= 90_000


def test_small_and_empty_ones_are_shown_as_well() -> None:
    assert "0 records" in sq.Records()._repr_html_()
    one = sq.Records([sq.Record("q?", "CREATE TABLE t (a)")])._repr_html_()
    assert all(text in one for text in ("1 record<", "q?", "CREATE TABLE t (a)"))
    assert "alternatives" not in one
    assert "–" in Report(("execution",), ())._repr_html_()


@pytest.mark.parametrize("dark", [False, True])
def test_a_notebook_shows_labels_in_color(browser, tiny_llama, dark: bool, tmp_path) -> None:  # noqa: F811 - the fixture
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    record = sq.Record(f"{EVIL}\r\n\tمرحبا 👩\u200d👧 e\u0301", "CREATE TABLE t (\n  a INT)", "SELECT a FROM t")
    view = sq.PromptFormatter(system="", user="{schema} {question}").show(record, tokenizer)
    page = tmp_path / "notebook.html"
    page.write_text(PAGE.format(view._repr_html_()), encoding="utf-8")
    browser.open(page, width=700, dark=dark)
    assert browser.evaluate("document.title") == "notebook"
    assert browser.evaluate("document.querySelectorAll('img, script').length") == 0
    assert browser.requests == [page.as_uri()]
    assert browser.problems == []
    tokens = "[...document.querySelectorAll('bdi')]"
    assert browser.evaluate(f"{tokens}.map(one => one.title)") == [" ".join(map(str, part.ids)) for part in view.parts]
    learned = [part.learned for part in view.parts]
    colors = browser.evaluate(f"{tokens}.map(one => getComputedStyle(one).backgroundColor)")
    assert not set(colors[: learned.index(True)]) & set(colors[learned.index(True) :])
    assert all(one != other for one, other in pairwise(colors)), "neighbors differ"
    framed = browser.evaluate(f"{tokens}.map(one => getComputedStyle(one).outlineStyle === 'solid')")
    assert framed == [part.special for part in view.parts]
    ink = browser.evaluate(f"new Set({tokens}.map(one => getComputedStyle(one).color)).size")
    assert ink == 1
    assert browser.evaluate(f"getComputedStyle({tokens}[0]).color") == f"rgb({', '.join(['255' if dark else '0'] * 3)})"
    assert browser.evaluate("document.documentElement.scrollWidth") <= 700
    browser.screenshot(tmp_path / "labels.png")
