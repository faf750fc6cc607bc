"""Text is made safe to show: nothing is invisible or interpreted by a terminal, and ordinary text is unchanged."""

import copy
import logging
import pickle
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import errors
from sqlquarry.text import as_markdown, first_of, visible, visible_logger

BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
ANY = st.text(st.characters(codec=None, exclude_categories=()))
SIGNS = "ab1\x1b[]\x9b\x07\x08\r\n\t\u202e\u2066\u200b\u200d\u200c\ufe0f\u0301😀👩🏽क्يع漢\U000e0041\ud83d\ufeff\u3164"
HOSTILE = st.text(st.sampled_from(SIGNS))


def is_safe(text: str) -> bool:
    allowed = {"\n", "\t", "\u200c", "\u200d"}
    return not BIDI & set(text) and all(c in allowed or unicodedata.category(c) not in {"Cc", "Cf", "Cs"} for c in text)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'O''Hara' AS \"größe\" -- 100 %\n\tFROM t",
        "東京都 서울 Ελλάδα Україна Việt Nam e\u0301",
        "👩‍👩‍👧‍👦 👩🏽‍🚀 ❤️‍🔥 🏳️‍🌈 1️⃣ #️⃣ ©️ ☎︎ 🇨🇭 👍🏿 🙂‍↔️",
        "می‌خواهم हिन्दी क्‍ष שָׁלוֹם العربية ภาษาไทย",
        "葛󠄀城市",
        "12\u00a0000\u202f€ – “so” …",
        "\u06dd١٢",
        "\\u{1b} C:\\temp",
    ],
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\u{1b}[31mred"),
        ("\x1b]8;;http://x\x07link\x9b2J\x7f", r"\u{1b}]8;;http://x\u{7}link\u{9b}2J\u{7f}"),
        ("admin\u202e txt.exe", r"admin\u{202e} txt.exe"),
        ("a\u200db e\ufe0f \u200d👩", r"a\u{200d}b e\u{fe0f} \u{200d}👩"),
        ("👩\u200d", r"👩\u{200d}"),
        ("😀\ufe0f\ufe0f\U000e0100", "😀\ufe0f" + r"\u{fe0f}\u{e0100}"),
        ("\u3164\u2800\u034f\u00ad\ufeff", r"\u{3164}\u{2800}\u{34f}\u{ad}\u{feff}"),
        ("\ud83d\ue000\uffff\u2028\u2029\x85", r"\u{d83d}\u{e000}\u{ffff}\u{2028}\u{2029}\u{85}"),
        ("50 %\rdone\r\n", "50 %\\u{d}done\n"),
    ],
)
def test_invisible_and_control_characters_are_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_one_line_has_no_line_ends_or_tabs() -> None:
    assert visible("a\r\nb\tc\nd\re\x1b", one_line=True) == r"a b c d e\u{1b}"


@given(ANY | HOSTILE, st.booleans())
def test_visible_text_is_safe_and_a_second_call_changes_nothing(text: str, one_line: bool) -> None:
    shown = visible(text, one_line=one_line)
    assert is_safe(shown)
    assert visible(shown, one_line=one_line) == shown
    shown.encode()
    assert not one_line or not {"\n", "\t"} & set(shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](https://b.c)", r"\[a\](https&#58;//b.c)"),
        ("![x](y) <img src=x>", r"!\[x\](y) \<img src=x\>"),
        ("see WWW.evil.com or ftp://a", "see WWW&#46;evil.com or ftp&#58;//a"),
        ("a | b\n# c", r"a \| b \# c"),
        ("@all &lt; $x$ ~~y~~", "@\u200ball \\&lt; \\$x\\$ \\~\\~y\\~\\~"),
    ],
)
def test_markdown_shows_only_text(text: str, shown: str) -> None:
    assert as_markdown(text) == shown


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in errors.__all__])
def test_every_error_is_safe_to_print_and_keeps_its_arguments(kind: type) -> None:
    error = kind("bad value '\x1b[2J\u202e'\nnext line")
    assert str(error) == "bad value '\\u{1b}[2J\\u{202e}'\nnext line"
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(same) is kind
        assert same.args == error.args
        assert str(same) == str(error)
    assert str(kind()) in ("", "None")


@given(HOSTILE)
def test_log_lines_cannot_be_forged(text: str) -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = visible_logger("sqlquarry.test_text")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        logger.error("%s failed after %d s (%.1f): %r", text, 3, 2.5, ValueError(text))
    finally:
        logger.removeHandler(handler)
    assert is_safe(lines[0])
    assert "\n" not in lines[0]
    assert "failed after 3 s (2.5)" in lines[0]  # numbers keep their format


def test_a_logger_gets_one_filter() -> None:
    assert visible_logger("sqlquarry.twice") is visible_logger("sqlquarry.twice")
    assert len(visible_logger("sqlquarry.twice").filters) == 1


def test_every_logger_of_the_package_has_the_filter() -> None:
    from pathlib import Path

    root = Path(errors.__file__).parent
    plain = [path.name for path in root.rglob("*.py") if "logger = logging.getLogger" in path.read_text()]
    assert plain == ["text.py"]


@pytest.mark.parametrize(
    ("count", "shown"), [(1, "a"), (2, "a, b"), (4, "a, b and 2 more"), (1502, "a, b and 1,500 more")]
)
def test_a_long_list_is_cut_with_the_number_of_the_others(count: int, shown: str) -> None:
    assert first_of(["a", "b", *["c"] * 2000][:count], 2) == shown
