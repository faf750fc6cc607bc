"""Which values of gold queries the check-up regards as mentioned."""

import pytest

from sqlquarry.data.checkup import gold
from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.mentions import Mentions
from sqlquarry.records import Record

SCHEMA = "CREATE TABLE t (name VARCHAR(77), n INT, day DATE, kind TEXT /* 'basic' or 'premium' */)"


def missing(question, condition, notes=""):
    """Return the values in a condition that the question does not mention, as in the finding, or ""."""
    record = Record(question, SCHEMA, f"SELECT name FROM t WHERE {condition}", notes=notes)
    details = [one.detail for one in gold.check_texts(Checked(records=[record])) if one.kind == "literal-not-mentioned"]
    return "".join(details)


@pytest.mark.parametrize(
    ("question", "condition"),
    [
        ("Who is from New York?", "name = 'new york'"),
        ("Who is from NEW-YORK?", "name = 'New York'"),
        ("Which dogs are there?", "name = 'Dog'"),
        ("Show the stories", "name = 'story'"),
        ("Show Canadian and Italian names", "name IN ('Canada', 'Italy')"),
        ("Names with the letter 's'", "name LIKE '%s%'"),
        ("Is it John's?", "name = 'john'"),
        ("Who works for the United States of America?", "name = 'USA'"),
        ("Is Müller there?", "name = 'Muller'"),
        ("Show premium ones", "kind = 'Premium'"),
        ("Show the cheap ones", "kind = 'basic'"),
        ("More than two", "n > 2"),
        ("At least three", "n > 2"),
        ("More than 1,000", "n > 1000"),
        ("More than 2.5 million", "n > 2500000"),
        ("More than two hundred thousand", "n > 200000"),
        ("Over twenty-five", "n > 25"),
        ("Over 30k", "n > 30000"),
        ("A share of 45%", "n = 0.45"),
        ("half", "n = 0.5"),
        ("a dozen", "n = 12"),
        ("the 3rd", "n = 3"),
        ("in the 1990s", "n BETWEEN 1990 AND 1999"),
        ("between 5 and 10", "n BETWEEN 5 AND 10"),
        ("below -5", "n < -5"),
        ("any", "n = 0 OR n = 1"),
        ("after January 5, 2010", "day > '2010-01-05'"),
        ("after 5 Jan 2010", "day > '2010-01-05'"),
        ("after 1/5/2010", "day > '2010-01-05'"),
        ("in 2010", "day >= '2010-01-01' AND day < '2011-01-01'"),
        ("in 2010", "day BETWEEN '2010-01-01' AND '2010-12-31'"),
        ("in March 2010", "day >= '2010-03-01' AND day < '2010-04-01'"),
        ("in August", "day LIKE '8/%'"),
        ("in March", "day LIKE '%Mar%'"),
    ],
)
def test_a_mentioned_value_is_found_in_other_forms(question, condition):
    assert missing(question, condition) == ""


@pytest.mark.parametrize(
    ("question", "condition", "values"),
    [
        ("Show all women", "name = 'F'", "'F'"),
        ("Who is from Florida?", "name = 'FL'", "'FL'"),
        ("Show Rylan", "name = 'Ryan'", "'Ryan'"),
        ("Show high mountains", "n > 4000", "4000"),
        ("More than 20 or so", "n > 2", "2"),
        ("More than two", "n = 3", "3"),
        ("Which have length 5?", "n = 77", "77"),
        ("after May 2010", "day > '2011-05-01'", "'2011-05-01'"),
        ("on 5 May 2010", "day = '2010-05-17'", "'2010-05-17'"),
        ("on 5 May 2010", "day = '2010-07-05'", "'2010-07-05'"),
        ("the names", "name IN ('Ada', 'Bo') AND n <> 7", "'Ada', 'Bo', 7"),
        ("the names", "UPPER(name) = UPPER('Ada')", "'Ada'"),
        ("the names", "name LIKE 'Mc%'", "'Mc%'"),
    ],
)
def test_a_value_that_nothing_mentions_is_reported(question, condition, values):
    assert missing(question, condition) == values


def test_the_type_before_a_date_is_not_a_value():
    record = Record("q", SCHEMA, "SELECT name FROM t WHERE day > DATE '2010-05-17'", dialect="postgres")
    found = [(one.kind, one.detail) for one in gold.check_texts(Checked(records=[record]))]
    assert found == [("literal-not-mentioned", "'2010-05-17'")]


def test_notes_can_mention_a_value():
    assert missing("Show all women", "name = 'F'", notes="name = 'F' means a woman") == ""


def test_a_limit_must_be_mentioned_unless_the_question_asks_for_the_first():
    assert missing("Names?", "n = 0 ORDER BY n LIMIT 7") == "7"
    assert missing("Top names?", "n = 0 ORDER BY n LIMIT 7") == ""
    assert missing("The 7 names?", "n = 0 ORDER BY n LIMIT 7") == ""


def test_values_that_compare_nothing_are_ignored():
    record = Record("q", SCHEMA, "SELECT ROUND(n, 2), SUBSTR(name, 3, 4), COALESCE(kind, 'none') FROM t")
    assert list(gold.check_texts(Checked(records=[record]))) == []


@pytest.mark.parametrize("number", [2, 7, 13, 21, 48, 99, 100, 115, 999, 1_000, 12_000, 250_000, 3_000_000])
def test_numbers_are_found_in_words_and_digits(number):
    assert Mentions(f"about {_spelled(number)} of them", "").has_number(number)
    assert Mentions(f"about {number:,} of them", "").has_number(number)
    assert Mentions(f"about {number}.", "").has_number(number)
    assert not Mentions(f"about {_spelled(number)} of them", "").has_number(number * 7 + 1)


def _spelled(number):
    words = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"""
    small, tens = words.split()[:20], words.split()[20:]
    for scale, word in ((1_000_000, "million"), (1_000, "thousand"), (100, "hundred")):
        if number >= scale:
            rest = number % scale
            return f"{_spelled(number // scale)} {word}" + (f" and {_spelled(rest)}" if rest else "")
    return small[number] if number < 20 else tens[number // 10 - 2] + (f"-{small[number % 10]}" if number % 10 else "")
