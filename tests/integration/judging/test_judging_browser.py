"""The HTML report in headless Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Browser
from judging_reports import scored
from sqlquarry.answers import Judgement
from sqlquarry.judging import Report, ReportEntry, compare_reports, count_mistakes, find_disagreements, write_html
from sqlquarry.records import Record

EVIL = "<script>document.title = 'hacked'</script><img src=x onerror=\"document.title='hacked'\">"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def domain(record: Record) -> str:
    return "held-out domains" if record.database in {"bakery", "harbour"} else "trained domains"


def system(skill: int) -> Report:
    """Return a report on a system that answers `skill` of ten records correctly."""
    databases = ["library", "clinic", "bakery", "harbour"]
    entries = []
    for i in range(40):
        sql = f"SELECT name, COUNT(*) FROM loan WHERE year > {1990 + i} GROUP BY name ORDER BY COUNT(*) DESC"
        question = f"Who borrowed the most books since {1990 + i}, and how many?" if i else EVIL
        record = Record(question, "CREATE TABLE loan (name, year)", sql, databases[i % 4], id=f"demo-{i}")
        shown = {"columns": ["name", "COUNT(*)"], "rows": [["Ann", 12], ["Bo", 7.5], [None, 1]], "count": 3}
        verdict = "unjudged" if i % 13 == 12 else "correct" if (i * 7) % 10 < skill else "wrong"
        reason = {"correct": "same 3 rows", "wrong": "1,200 rows instead of 3", "unjudged": "the gold SQL fails"}
        other = shown | {"rows": [["Ann", 12]], "count": 1200}
        details = {"gold": shown, "predicted": shown if verdict == "correct" else other}
        predicted = EVIL if i == 0 else sql if verdict == "correct" else sql.replace(" ORDER BY COUNT(*) DESC", "")
        judgements = (
            Judgement("execution", verdict, reason[verdict], details if verdict != "unjudged" else {}),
            Judgement(
                "exact", "correct" if predicted == sql else "wrong", "same text" if predicted == sql else "another text"
            ),
        )
        answer = f"Here is the query:\n```sql\n{predicted};\n```" if i % 5 == 0 else predicted
        entries.append(ReportEntry(record, answer, predicted, i % 11 == 10, judgements))
    return Report(("execution", "exact"), tuple(entries))


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_html({"base": system(3), "tuned": system(9)}, path, title="Questions on four databases", group_by=domain)
    return path


SHOWN = "document.querySelectorAll('.record:not([hidden])').length"


def test_the_page_opens_cleanly_and_loads_nothing(browser, page):
    browser.open(page)
    assert browser.evaluate("document.title") == "Questions on four databases", "a prediction's script must not run"
    assert browser.evaluate(SHOWN) == 40
    assert browser.evaluate("document.querySelectorAll('.record img, .record script').length") == 0
    assert browser.problems == []
    assert browser.requests == [page.as_uri()]


def test_the_headline_is_there_without_script(browser, page):
    browser.open(page, script=False)
    text = browser.evaluate("document.body.innerText")
    assert f"{100 * system(9).accuracy().value:.1f} %" in text
    assert browser.evaluate("document.querySelector('noscript').innerText.trim()") in text
    assert browser.evaluate("document.querySelector('noscript').offsetHeight") > 0
    assert browser.evaluate("document.getElementById('tools').offsetHeight") == 0


def click(browser: Browser, verdict: str) -> int:
    browser.evaluate(f"document.querySelector('[data-verdict={verdict}]').click()")
    return browser.evaluate(SHOWN)


def enter(browser: Browser, control: str, value: str) -> int:
    browser.evaluate(
        f"{{ const c = document.getElementById('{control}'); c.value = {json.dumps(value)}; "
        "c.dispatchEvent(new Event('input')); }"
    )
    return browser.evaluate(SHOWN)


def test_filters(browser, page):
    browser.open(page)
    base, tuned = system(3), system(9)
    counts = {verdict: click(browser, verdict) for verdict in ("correct", "wrong", "unjudged")}
    assert counts["correct"] + counts["wrong"] == tuned.accuracy().n
    assert counts["unjudged"] == tuned.accuracy().unjudged
    click(browser, "correct")
    assert browser.evaluate("document.getElementById('shown').textContent") == f"{counts['correct']} of 40 records"
    assert enter(browser, "system", "0") == round(base.accuracy().value * base.accuracy().n), "the verdicts of base"
    assert enter(browser, "grader", "1") == sum(entry.judgements[1].verdict == "correct" for entry in base.entries)
    browser.evaluate("document.getElementById('clear').click()")
    enter(browser, "grader", "0")
    enter(browser, "system", "1")
    assert click(browser, "fixed") == compare_reports(base, tuned).fixed
    assert click(browser, "broken") == compare_reports(base, tuned).broken == 0
    assert click(browser, "disagree") == len(find_disagreements(tuned))
    click(browser, "all")
    assert enter(browser, "slice", "group: held-out domains") == 20
    assert enter(browser, "search", "since 1993") == 1, "record 3 is about the harbour"
    assert enter(browser, "search", "no such words") == 0
    assert browser.evaluate("document.getElementById('nothing').hidden") is False
    browser.evaluate("document.getElementById('clear').click()")
    assert browser.evaluate(SHOWN) == 40
    for name, count in count_mistakes(tuned).items():
        assert enter(browser, "mistake", name) == count
    assert browser.problems == []


def test_charts_lead_to_their_records(browser, page):
    browser.open(page)
    browser.evaluate("document.querySelector(\"[data-set='slice=group: held-out domains']\").click()")
    assert browser.evaluate(SHOWN) == 20
    browser.evaluate("document.querySelector('[data-set=\"verdict=fixed\"]').click()")
    assert 0 < browser.evaluate(SHOWN) < 20
    name = next(iter(count_mistakes(system(9))))
    browser.evaluate(f"document.querySelector('[data-set=\"mistake={name}\"]').click()")
    assert browser.evaluate("document.getElementById('mistake').value") == name
    assert browser.problems == []


def test_a_record_shows_both_queries_their_difference_and_both_results(browser, page):
    browser.open(page)
    enter(browser, "search", "since 1997")  # wrong in both systems: without ORDER BY
    browser.evaluate("document.querySelector('.record').open = true")
    browser.wait_for("document.querySelector('.record .body') !== null")
    gold, base, tuned = (f"document.querySelectorAll('.record section')[{i}]" for i in range(3))
    assert "ORDER BY COUNT(*) DESC" in browser.evaluate(f"{gold}.querySelector('pre').textContent")
    marked = browser.evaluate(f"[...{gold}.querySelectorAll('mark')].map(m => m.textContent)")
    assert marked == ["ORDER BY", "COUNT", "(", "*", ")", "DESC"]
    assert browser.evaluate(f"{gold}.querySelectorAll('pre .k, pre .f').length") > 5
    assert browser.evaluate(f"{gold}.querySelectorAll('tbody tr').length") == 3
    assert "first 1 of 1200 rows" in browser.evaluate(f"{tuned}.textContent")
    assert "1,200 rows instead of 3" in browser.evaluate(f"{base}.textContent")
    assert "CREATE TABLE loan" in browser.evaluate(f"{gold}.querySelector('.more pre').textContent")
    assert browser.problems == []


def test_many_records_come_in_portions(browser, tmp_path):
    entries = system(5).entries * 8
    write_html(Report(("execution", "exact"), entries), tmp_path / "many.html")
    browser.open(tmp_path / "many.html")
    assert browser.evaluate(SHOWN) == 100
    browser.evaluate("document.getElementById('more').click()")
    assert browser.evaluate(SHOWN) == 200
    assert enter(browser, "search", "since 1993") == 8, "all records are searched, not those shown"
    assert browser.evaluate("document.getElementById('end').hidden") is True


def test_only_what_is_looked_at_is_unpacked(browser, tmp_path):
    entries = system(5).entries * 70
    write_html(Report(("execution", "exact"), entries), tmp_path / "many.html")
    source = (tmp_path / "many.html").read_text()
    assert source.count("<div>H4sI") == 7, "an index and six portions"
    # A portion that cannot be unpacked is noticed only when it is needed.
    start = source.rindex("<div>H4sI")
    end = source.index("</div>", start)
    (tmp_path / "broken.html").write_text(source[:start] + "<div>broken" + source[end:])
    browser.open(tmp_path / "broken.html")
    assert browser.evaluate(SHOWN) == 100
    browser.evaluate("document.querySelector('.record').open = true")
    browser.wait_for("document.querySelector('.record .body') !== null")
    assert browser.problems == []
    browser.open(tmp_path / "many.html")
    browser.evaluate(
        "{ const c = document.getElementById('search'); c.value = 'since 1993'; c.dispatchEvent(new Event('input')); }"
    )
    browser.wait_for("document.getElementById('shown').textContent === '70 of 2800 records'")
    assert browser.problems == []


DIFFERENCES = [
    # Gold, prediction, and the marked parts of each.
    (
        "SELECT name FROM users WHERE age > 30 ORDER BY name",
        "select NAME, id from users where age >= 30",
        [">", "ORDER BY", "name"],
        [",", "id", ">="],
    ),
    ("SELECT 'a'", "SELECT 'A'", ["'a'"], ["'A'"]),
    ("SELECT a -- why", "SELECT a /* how */", [], []),
    ("SELECT 'open", "SELECT 1", ["'open"], ["1"]),
    ('SELECT "my col", 1.5 FROM t', 'SELECT "my col", 2.5 FROM t', ["1.5"], ["2.5"]),
    ("SELECT 1", "SELECT " + ", ".join(map(str, range(2100))), [], []),
    ("SELECT länge FROM t", "SELECT laenge FROM t", ["länge"], ["laenge"]),
]


def test_marks_are_the_words_that_differ_and_no_character_is_lost(browser, tmp_path):
    wrong = Judgement("execution", "wrong")
    entries = [
        ReportEntry(Record("q", "CREATE TABLE t (a)", gold), predicted, predicted, False, (wrong,))
        for gold, predicted, *_ in DIFFERENCES
    ]
    write_html(Report(("execution",), tuple(entries)), tmp_path / "r.html")
    browser.open(tmp_path / "r.html")
    for i, (*queries, in_gold, in_predicted) in enumerate(DIFFERENCES):
        browser.evaluate(f"document.querySelectorAll('.record')[{i}].open = true")
        browser.wait_for(f"document.querySelectorAll('.record')[{i}].querySelector('.body') !== null")
        for side, sql, marked in zip((0, 1), queries, (in_gold, in_predicted), strict=True):
            pre = f"document.querySelectorAll('.record')[{i}].querySelectorAll('section')[{side}].querySelector('pre')"
            assert browser.evaluate(f"{pre}.textContent") == sql
            assert browser.evaluate(f"[...{pre}.querySelectorAll('mark')].map(m => m.textContent)") == marked
    kinds = "document.querySelectorAll('.record')[4].querySelector('pre').querySelectorAll('.{}')"
    assert browser.evaluate(f"[...{kinds.format('k')}].map(n => n.textContent)") == ["SELECT", "FROM"]


def test_one_system_without_groups(browser, tmp_path):
    write_html(system(5), tmp_path / "one.html")
    browser.open(tmp_path / "one.html")
    assert 0 < click(browser, "wrong") < 40
    assert browser.evaluate("document.getElementById('system').hidden") is True
    assert browser.problems == []


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False), (390, True)])
def test_screenshots_fit_the_screen(browser, page, tmp_path, width, dark):
    browser.open(page, width=width, height=900, dark=dark)
    browser.evaluate("document.querySelectorAll('.record')[1].open = true")
    browser.wait_for("document.querySelector('.record .body') !== null")
    overflow = browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, f"the page is {overflow} px wider than a screen of {width} px"
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background.removeprefix("rgb(").rstrip(")").split(","))) < 200) is dark
    browser.screenshot(tmp_path / "top.png")
    assert (tmp_path / "top.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "top.png").stat().st_size > 10_000, "the picture is not blank"


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False)])
def test_mean_scores_have_room(browser, tmp_path, width, dark):
    systems = {"base": scored(*[100, 40.5, 70, None] * 10), "tuned": scored(*[95, 100, 88.25, 100] * 10)}
    write_html(systems, tmp_path / "scores.html", group_by=lambda _: "a group with a rather long name")
    browser.open(tmp_path / "scores.html", width=width, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    cards = browser.evaluate("[...document.querySelectorAll('.cards .card')].map((card) => card.innerText)")
    for text, figure in zip(cards, ("70.17 of 100", "95.81 of 100", "+24.25"), strict=True):
        assert f"mean score {figure}" in text
    overlaps = """[...document.querySelectorAll('.row .mean')].map((mean) => {
      const [a, b] = [mean, mean.closest('.row').querySelector('.plot')].map((node) => node.getBoundingClientRect());
      return a.right > b.left && a.left < b.right && a.bottom > b.top && a.top < b.bottom; })"""
    assert set(browser.evaluate(overlaps)) == {False}
    assert browser.problems == []
