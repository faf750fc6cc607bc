"""The page of a check-up in headless Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Browser
from data_reports import findings, report
from sqlquarry.data.checkup.findings import Finding

SECTIONS = "[...document.querySelectorAll('.kind')].filter((s) => s.offsetHeight > 0).map((s) => s.id)"
SHOWN = "document.querySelectorAll('.finding').length"
TITLE = "Loans of three libraries"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "checkup.html"
    found = report(findings(), tokens=[100 + i for i in range(40)], max_length=120)
    found.to_html(path, title=TITLE)
    return path


def enter(browser: Browser, control: str, value: str) -> list[str]:
    browser.evaluate(
        f"{{ const c = document.getElementById('{control}'); c.value = {json.dumps(value)}; "
        "c.dispatchEvent(new Event('input')); }"
    )
    return browser.evaluate(SECTIONS)


def click(browser: Browser, selector: str) -> list[str]:
    browser.evaluate(f"document.querySelector({json.dumps(selector)}).click()")
    return browser.evaluate(SECTIONS)


def shown(browser: Browser) -> str:
    return browser.evaluate("document.getElementById('shown').textContent")


def test_the_page_opens_cleanly_and_loads_nothing(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.evaluate("document.title") == TITLE, "a record's script must not run"
    assert browser.evaluate("document.querySelectorAll('main img, main script').length") == 0
    assert "<script>document.title" in browser.evaluate("document.querySelector('.finding').innerText")
    assert browser.problems == []
    assert browser.requests == [page.as_uri()]


def test_a_section_for_each_kind_with_its_first_records(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.evaluate(SECTIONS) == ["broken", "same", "rare"]
    assert browser.evaluate("document.querySelectorAll('#broken .finding').length") == 5
    click(browser, "#broken .end button")
    assert browser.evaluate("document.querySelectorAll('#broken .finding').length") == 12
    assert browser.evaluate("document.querySelector('#broken .end').hidden") is True
    second = "document.querySelectorAll('#broken .finding')[1]"
    text = browser.evaluate(f"{second}.innerText")
    for part in ("r1", "How many loans since 1901?", "no such column: c1", "library1", "also same"):
        assert part in text
    assert browser.evaluate(f"{second}.querySelector('pre').textContent") == (
        "SELECT COUNT(*) FROM loan1 WHERE year > 1901"
    )
    keywords = f"[...{second}.querySelector('pre').querySelectorAll('.k')].map((n) => n.textContent)"
    assert browser.evaluate(keywords) == ["SELECT", "FROM", "WHERE"]
    assert "CREATE TABLE loan1" in browser.evaluate(f"{second}.querySelector('details').textContent")
    assert "false" not in browser.evaluate("document.querySelector('#broken').textContent")
    assert browser.evaluate("document.querySelector('#rare .finding').textContent") == "3 of 40 queries: joins"


def test_filters(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert shown(browser) == "15 of 15 findings"
    assert click(browser, "button[data-severity=warning]") == ["same"]
    assert shown(browser) == "2 of 15 findings"
    assert click(browser, "button[data-severity=all]") == ["broken", "same", "rare"]
    assert enter(browser, "kind", "rare") == ["rare"]
    assert click(browser, "button[data-severity=error]") == []
    assert browser.evaluate("document.getElementById('nothing').hidden") is False
    assert click(browser, "#clear") == ["broken", "same", "rare"]
    assert enter(browser, "search", "since 1907") == ["broken", "same"]
    assert shown(browser) == "2 of 15 findings"
    counts = "[...document.querySelectorAll('[data-severity] small')].map((n) => n.textContent)"
    assert browser.evaluate(counts) == ["2", "1", "1", "0"]
    assert enter(browser, "search", "SINCE 1907 c7") == ["broken"], "all words, in any case, also of the detail"
    assert enter(browser, "search", "no such words") == []
    assert browser.problems == []


def test_links_lead_to_sections_and_to_the_other_findings_of_a_record(browser: Browser, page: Path) -> None:
    browser.open(page)
    enter(browser, "search", "no such words")
    assert click(browser, "a[href='#same']") == ["broken", "same", "rare"], "a hidden section is shown again"
    browser.wait_for("location.hash === '#same'")
    top = browser.evaluate("document.getElementById('same').getBoundingClientRect().top")
    assert 0 <= top < browser.evaluate("innerHeight")
    click(browser, "#same .finding:nth-child(2) .jump")
    assert browser.evaluate("document.getElementById('search').value") == "id:r1"
    assert browser.evaluate(SECTIONS) == ["broken", "same"]
    assert browser.evaluate("document.querySelectorAll('.finding').length") == 2


def test_the_verdict_is_there_without_script(browser: Browser, page: Path) -> None:
    browser.open(page, script=False)
    text = browser.evaluate("document.body.innerText")
    for part in ("12 errors", "Records are equal", "Keep the first one", "limit 120"):
        assert part in text
    assert browser.evaluate("document.querySelector('noscript').offsetHeight") > 0
    assert browser.evaluate("document.getElementById('tools').offsetHeight") == 0


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False), (390, True)])
def test_the_page_fits_the_screen(browser: Browser, page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, height=900, dark=dark)
    overflow = browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, f"the page is {overflow} px wider than a screen of {width} px"
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background.removeprefix("rgb(").rstrip(")").split(","))) < 200) is dark
    over = browser.evaluate("getComputedStyle(document.querySelector('rect.over')).fill")
    assert over != browser.evaluate("getComputedStyle(document.querySelector('rect.within')).fill")
    browser.screenshot(tmp_path / "top.png")
    assert (tmp_path / "top.png").stat().st_size > 10_000, "the picture is not blank"


def test_a_page_with_many_findings_says_that_it_does_not_have_all(browser: Browser, tmp_path: Path) -> None:
    many = [Finding("broken", (i % 40,), f"detail {i}") for i in range(3_500)]
    report(many).to_html(tmp_path / "many.html")
    browser.open(tmp_path / "many.html")
    assert shown(browser) == "3,000 of 3,000 findings on this page"
    assert "3,500 errors" in browser.evaluate("document.querySelector('.verdicts').innerText").replace("\n", " ")
    assert browser.evaluate(SHOWN) == 5
