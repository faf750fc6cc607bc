"""The HTML page without a browser: its content, escaping and size."""

import base64
import dataclasses
import gzip
import json
import re

import pytest

from judging_reports import EVIL, entry, report, stand_in_for_analysis
from sqlquarry.answers import Judgement
from sqlquarry.errors import JudgingError
from sqlquarry.judging import ReportInfo
from sqlquarry.judging.report import Report, ReportEntry
from sqlquarry.judging.report.html import write_html
from sqlquarry.records import Record


@pytest.fixture(autouse=True)
def _analysis(monkeypatch):
    stand_in_for_analysis(monkeypatch)


def parts_of(page: str) -> list[dict]:
    """Return the index of the records and their portions."""
    packed = re.search(r'<div id="data" hidden>(.+?)</div></div>', page)[1]
    return [
        json.loads(gzip.decompress(base64.b64decode(part))) for part in re.findall(r"<div>([^<]+)", packed + "</div>")
    ]


def records_of(page: str) -> list[dict]:
    index, *portions = parts_of(page)
    records = [
        record | {"schema": part["schemas"][record["schema"]]} for part in portions for record in part["records"]
    ]
    for place, record in enumerate(records):
        record["question"] = index["questions"][place]
        record["slices"] = {name: of[place] for name, of in index["slices"].items() if of[place] is not None}
        for answer, mistakes, verdicts in zip(record["answers"], index["mistakes"], index["verdicts"], strict=True):
            answer["mistake"], answer["verdicts"] = mistakes[place], "".join(column[place] for column in verdicts)
    return records


def visible(page: str) -> str:
    return re.sub(r"<style>.*?</style>|<script>.*?</script>|<div id=\"data\".*?</div></div>", "", page, flags=re.DOTALL)


def test_no_text_of_a_model_can_run(tmp_path):
    record = Record(EVIL, EVIL, EVIL, database=EVIL, id=EVIL)
    details = {"gold": {"columns": [EVIL], "rows": [[EVIL]], "count": 1}, "predicted": {"error": EVIL, "message": EVIL}}
    item = ReportEntry(record, EVIL, EVIL + " ", True, (Judgement(EVIL, "wrong", EVIL, details),))
    systems = {
        name: Report((EVIL,), (item,), ReportInfo(stopped=EVIL, records_left=1)) for name in (EVIL, "middle", "b")
    }
    write_html(systems, tmp_path / "r.html", title=EVIL, group_by=lambda record: record.question)
    page = (tmp_path / "r.html").read_text()
    assert page.count("<script") == 1
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"(?:src|href)=[\"']?(?!data:,)\w+:", page), "the page must not load anything"
    assert "default-src 'none'" in page
    assert "innerHTML" not in page
    assert records_of(page)[0]["question"] == EVIL


def test_the_headline_needs_no_script(tmp_path):
    write_html(report("++-?", exact="+--+"), tmp_path / "r.html", title="T & T")
    page = visible((tmp_path / "r.html").read_text())
    assert re.search(r"<noscript><p[^>]*>[^<]+</p></noscript>", page), "a note about switched off scripts"
    text = re.sub(r"<[^>]+>|\s+", " ", page)
    assert "T &amp; T" in text
    assert re.search(r"66\.7 % execution accuracy, 95 % interval 20\.8–93\.9 %", re.sub(" +", " ", text))
    assert "3 judged, 1 unjudged" in text
    assert "exact" in text


def test_an_uncalibrated_judge_is_flagged_next_to_its_figure(tmp_path):
    write_html(Report(("llm",), tuple(entry(i, {"llm": "correct"}) for i in range(4))), tmp_path / "r.html")
    page = visible((tmp_path / "r.html").read_text())
    assert re.search(r'class="big">100\.0 % <span class="flag">uncalibrated</span>', page)
    pattern, judged = "+" * 30 + "-" * 10, "+" * 28 + "-" * 2 + "+" * 4 + "-" * 6
    write_html(report(pattern, llm=judged), tmp_path / "r.html")
    page = visible((tmp_path / "r.html").read_text())
    assert "flag" not in page
    assert "llm (corrected)" in page


def test_systems_are_compared_only_on_the_same_records(tmp_path):
    path = tmp_path / "r.html"
    worse, better = report("+-----"), report("-+++-?")
    write_html({"base": worse, "tuned": better}, path)
    page = path.read_text()
    assert page.index(">base<") < page.index(">tuned<")
    assert "+3</span> fixed" in page
    assert "−1</span> broken" in page
    assert re.findall(r"<tr><td>(\w+)</td>", visible(page)) == [], "there are no stages"
    with pytest.raises(JudgingError, match=r"'base'.*'fewer'"):
        write_html({"base": worse, "fewer": report("+----")}, path)
    with pytest.raises(JudgingError, match=r"'other'.*'exact'"):
        write_html({"base": worse, "other": report("+-----", exact="++++++")}, path)
    with pytest.raises(JudgingError, match=r"^reports\b"):
        write_html({}, path)


def test_three_systems_are_shown_stage_by_stage(tmp_path):
    write_html({"adapter": report("++++"), "merged": report("+++-"), "imported": report("++--")}, tmp_path / "r.html")
    page = visible((tmp_path / "r.html").read_text())
    assert re.findall(r"<tr><td>(\w+)</td>", page)[:3] == ["adapter", "merged", "imported"]


def test_the_data_contains_everything_that_the_script_shows(tmp_path):
    changed = entry(
        1, {"execution": "wrong"}, sql="SELECT a FROM t WHERE c = 1", answer="Here:\nSELECT a", truncated=True
    )
    twice = dataclasses.replace(changed.record, alternatives=("SELECT 7",))
    unknown = ReportEntry(
        Record("q", "CREATE TABLE t (a, b)"), "", "", False, (Judgement("execution", "unjudged", "no"),)
    )
    entries = (entry(0, {"execution": "correct"}), dataclasses.replace(changed, record=twice), unknown)
    write_html(Report(("execution",), entries), tmp_path / "r.html", group_by=lambda record: str(len(record.question)))
    page = (tmp_path / "r.html").read_text()
    first, second, third = records_of(page)
    assert len(parts_of(page)[1]["schemas"]) == 1, "equal schemas are stored once"
    assert second["answers"][0]["sql"] == "SELECT a FROM t WHERE c = 1"
    assert second["alternatives"] == ["SELECT 7"]
    assert [record["answers"][0]["verdicts"] for record in (first, second, third)] == ["c", "w", "u"]
    assert second["answers"][0]["whole"] == "Here:\nSELECT a"
    assert (second["answers"][0]["cut"], second["answers"][0]["mistake"]) == (True, "truncated")
    assert first["slices"] == {"group": "10", "joins": "1", "database": "db0"}
    assert first["answers"][0]["whole"] == "", "an answer that is only the query is not shown twice"
    assert first["result"] == {"columns": ["a", "b"], "rows": [[0, None], [2, "x"]], "count": 2}
    assert (third["gold"], third["answers"][0]["sql"]) == ("", "")


def test_without_judged_records_no_accuracy_is_shown(tmp_path):
    write_html({"before": report("?"), "after": report("?")}, tmp_path / "r.html")
    page = visible((tmp_path / "r.html").read_text())
    assert "1 unjudged" in page
    assert "nan" not in page


def test_a_thousand_records_with_large_results_take_less_than_a_megabyte(tmp_path):
    import random

    draw = random.Random(0)
    entries = []
    for i in range(1000):
        item = entry(i, {"execution": "wrong"}, sql=f"SELECT {draw.random()} FROM t WHERE {draw.random()} < a")
        rows = [["".join(draw.choices("abcdefghij", k=60)) for _ in range(6)] for _ in range(10)]
        details = {side: {"columns": list("abcdef"), "rows": rows, "count": 10} for side in ("gold", "predicted")}
        entries.append(dataclasses.replace(item, judgements=(Judgement("execution", "wrong", "other", details),)))
    write_html(Report(("execution",), tuple(entries)), tmp_path / "r.html")
    assert (tmp_path / "r.html").stat().st_size < 1_000_000
    shown = records_of((tmp_path / "r.html").read_text())[999]["result"]
    assert len(shown["rows"]) < 10, "rows were left out"
    assert shown["count"] == 10, "and the page shows the number of all rows"


def test_records_are_packed_in_portions_after_an_index(tmp_path):
    write_html(
        Report(("execution",), tuple(entry(i, {"execution": "correct"}) for i in range(1201))), tmp_path / "r.html"
    )
    index, *portions = parts_of((tmp_path / "r.html").read_text())
    assert [len(portion["records"]) for portion in portions] == [500, 500, 201]
    assert index["portion"] == 500
    assert len(index["questions"]) == 1201
    assert index["verdicts"] == [["c" * 1201]]
