"""Prose is recognized by its words, and is left in strings."""

import pytest

from sqlquarry.judging import extract_sql
from sqlquarry.judging.extraction.prose import is_prose, is_sentence


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("the", True),
        ("Cities for", True),
        ("Nice city overview", True),
        ("Nice city", False),
        ("group the cities", False),
        ("rent = city", False),
    ],
)
def test_a_short_line_without_a_full_stop_is_prose_by_its_words(line, expected):
    assert is_prose(line) is expected


def test_a_paragraph_of_prose_in_a_string_is_not_cut_off():
    query = "SELECT city FROM shops WHERE note = 'first\n\nThis is the reason that we moved. It was late'"
    assert extract_sql(query) == query


def test_a_sentence_has_at_least_two_words_of_plain_english():
    assert is_prose("Nice overview for cities")
    assert not is_sentence("Nice overview for cities")
    assert is_sentence("which gives all of the cities")
