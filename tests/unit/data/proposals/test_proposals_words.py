"""Names of tables and columns become English nouns."""

import pytest

from sqlquarry.data.proposals.words import is_plural, plural, possessive, singular, split_words, spoken, with_article
from sqlquarry.data.proposals.words import without_table as shortened


@pytest.mark.parametrize(
    ("name", "noun"),
    [
        ("Song_releaseYear", "song release year"),
        ("TV_Channel", "TV channel"),
        ("tbl_orders", "orders"),
        ("car_1", "car"),
        ("CreditCardNo", "credit card no"),
        ("fname", "first name"),
        ("MAX_SALARY", "maximum salary"),
        ("is_male", "male status"),
        ("highest", "highest value"),
        ("stu_id", "student ID"),
        ("名前", "名前"),
        ("___", "___"),
    ],
)
def test_names_are_split(name: str, noun: str) -> None:
    assert spoken(name) == noun


def test_short_comments_are_preferred() -> None:
    assert spoken("dt_b", "Birth date") == "birth date"
    assert spoken("dt_b", "VAT number") == "VAT number"
    assert spoken("dt_b", "The date on which the person was born, as far as it is known") == "dt b"
    assert split_words("dim_customer") == ["customer"]


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("city", "cities"),
        ("day", "days"),
        ("box", "boxes"),
        ("person", "people"),
        ("date of birth", "dates of birth"),
        ("singer in concert", "singers in concert"),
        ("status", "statuses"),
        ("class", "classes"),
        ("movie", "movies"),
        ("series", "series"),
        ("staff member", "staff members"),
        ("address", "addresses"),
    ],
)
def test_plurals_and_singulars(one: str, many: str) -> None:
    assert plural(one) == many
    assert singular(many) == one
    assert singular(one) == one


def test_articles_and_possessives() -> None:
    assert [with_article(noun) for noun in ("owner", "salary", "hour", "unit", "MBA", "user", "goals")] == [
        "an owner", "a salary", "an hour", "a unit", "an MBA", "a user", "goals",
    ]  # fmt: skip
    assert possessive("owner") == "owner's"
    assert possessive("class") == "class's"
    assert is_plural("goals")
    assert not is_plural("status")


def test_the_noun_of_the_table_is_left_out() -> None:
    assert shortened("singer name", "singer") == "name"
    assert shortened("name", "singer") == "name"
    assert shortened("number of pages", "number") == "number of pages"
