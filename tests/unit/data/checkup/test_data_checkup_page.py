"""The page of a check-up without a browser: its counts, escaping, size and charts."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
from pathlib import Path

import pytest

from data_reports import EVIL, findings, report
from sqlquarry.data.checkup.findings import Finding
from sqlquarry.data.checkup.page.histogram import histogram
from sqlquarry.data.checkup.report import DataReport


def write(found: DataReport, directory: Path) -> str:
    found.to_html(directory / "page.html", title=EVIL)
    return (directory / "page.html").read_text()


def data_of(page: str) -> dict:
    packed = re.search(r'<div id="data" hidden><div>([^<]+)', page)[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def text_of(page: str) -> str:
    rest = r"<style>.*?</style>|<script>.*?</script>|<div id=\"data\".*?</div></div>"
    shown = re.sub(rest, "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown))


def test_no_text_of_a_record_can_run(tmp_path: Path) -> None:
    page = write(report(findings()), tmp_path)
    assert page.count("<script") == 1
    assert "<img" not in page
    assert "&lt;script&gt;document.title" in page, "the title is shown as text"
    assert not re.search(r"(?:src|href)=[\"']?(?!data:,)\w+:", page), "the page must not load anything"
    assert "default-src 'none'" in page
    assert "innerHTML" not in page
    data = data_of(page)
    first = data["records"][0]
    assert (first["id"], first["question"], first["golds"], first["notes"]) == (EVIL, EVIL, [EVIL], EVIL)
    assert data["schemas"][first["schema"]] == EVIL


def test_verdict_counts_and_advice_need_no_script(tmp_path: Path) -> None:
    text = text_of(write(report(findings()), tmp_path))
    for shown in ("12 errors", "2 warnings", "1 note", "12 findings in 12 records (30.0 %)", "Remove the record."):
        assert shown in text
    assert "Keep the first one, or use alternatives ." in text, "backticks become code"
    assert text.index("The gold query is broken") < text.index("Records are equal")
    assert re.search(r"Nothing found clean Not checked Without databases : fails Without others : leak", text)
    assert "scripts are switched off" in text


def test_a_record_knows_its_other_kinds_and_schemas_are_stored_once(tmp_path: Path) -> None:
    data = data_of(write(report(findings()), tmp_path))
    names = {record["id"]: record["kinds"] for record in data["records"]}
    assert names["r1"] == [0, 1], "broken, and equal to other records"
    assert names["r4"] == [0]
    assert len(data["schemas"]) == 3
    assert data["findings"][1][1] == {
        "detail": "How many loans?",
        "records": [names_of(data).index(name) for name in ("r1", "r2", "r3", "#5", "r7", "r8")],
        "more": 2,
    }
    assert data["findings"][2] == [{"detail": "3 of 40 queries: joins", "records": [], "more": 0}]


def names_of(data: dict) -> list[str]:
    return [record["id"] for record in data["records"]]


def test_a_large_page_has_fewer_examples_but_all_counts(tmp_path: Path) -> None:
    many = [Finding("broken", (i % 40,), f"detail {i}") for i in range(4_000)]
    page = write(report(many), tmp_path)
    assert len(data_of(page)["findings"][0]) == 3_000
    assert "first 3,000" not in text_of(write(report(many[:3_000]), tmp_path))
    assert "first 3,000" in text_of(page)
    assert "4,000 findings in 40 records" in text_of(page)
    draw = random.Random(0)
    page = write(report([Finding("broken", (i % 40,), draw.randbytes(900).hex()) for i in range(4_000)]), tmp_path)
    assert len(data_of(page)["findings"][0]) == 1_000, "3,000 would take more than 2 MB"
    assert len(page) < 2_100_000
    assert "4,000 findings in 40 records" in text_of(page)


def test_long_texts_are_clipped(tmp_path: Path) -> None:
    data = data_of(write(report([Finding("broken", (1,), "x" * 9_000)]), tmp_path))
    assert data["findings"][0][0]["detail"] == "x" * 2_000 + "…"


def test_the_page_is_reproducible(tmp_path: Path) -> None:
    assert write(report(findings()), tmp_path) == write(report(findings()), tmp_path)


def test_the_chart_of_lengths_marks_the_limit(tmp_path: Path) -> None:
    page = write(report([], tokens=[100] * 39 + [900], max_length=512), tmp_path)
    assert re.search(r'class="limit"', page)
    assert "limit 512" in page
    assert '<rect class="over"' in page
    assert "1 record longer than the limit of 512 tokens (2.5 %)" in text_of(page)
    page = write(report([], tokens=[100] * 39 + [900]), tmp_path)
    assert '<rect class="within"' in page
    assert 'class="limit"' not in page
    assert "<rect" not in write(report([]), tmp_path), "without a tokenizer there is no chart"


@pytest.mark.parametrize(
    ("tokens", "limit"),
    [
        ([1], None),
        ([0, 0, 0], 10),
        ([7] * 100, 7),
        (list(range(1, 5_000)), 4_000),
        ([200] * 990 + [100_000] * 5, 300),
        ([10, 20, 30], 100_000),
        ([39, 40, 41, 79, 80], 41),
    ],
)
def test_every_record_is_in_one_bar_of_the_chart(tokens: list[int], limit: int | None) -> None:
    chart = histogram(tokens, limit)
    assert sum(bar.records for bar in chart.bars) == len(tokens)
    assert len(chart.bars) <= 41
    assert max(bar.height for bar in chart.bars) == 1
    for bar in chart.bars:
        assert bar.records == sum(bar.start <= count and (bar.end is None or count < bar.end) for count in tokens)
        assert bar.is_over == (limit is not None and bar.start > limit)
    assert chart.bars[-1].end in (None, chart.end)
    assert (chart.limit is None) == (limit is None or limit > chart.end)


def test_a_few_long_records_do_not_squeeze_the_chart() -> None:
    chart = histogram([200] * 990 + [100_000] * 5, 300)
    assert chart.end < 500
    assert chart.bars[-1].records == 5
    assert chart.bars[-1].end is None
