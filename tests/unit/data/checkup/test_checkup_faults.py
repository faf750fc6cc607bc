"""Faults of texts are found where they are, and correct texts in any language have none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import Record
from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.faults import CHECKS, KINDS, answers_in_questions, mixed_styles, text_faults
from sqlquarry.data.checkup.mojibake import mojibake

PUB = "CREATE TABLE pub (name TEXT, beers INT)"


def faults(check=text_faults, question="Which pubs are there?", schema=PUB, sql="SELECT name FROM pub", **fields):
    found = list(check(Checked(records=[Record(question, schema, sql, **fields)])))
    return [(one.kind, one.detail) for one in found]


@pytest.mark.parametrize(
    "text", ["café", "don’t", "10 °C", "Müller", "ação", "5 €", "“x”", "😀", "Škoda žena", "мир", "中文"]
)
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_utf8_read_with_another_encoding_is_found(text, encoding):
    try:
        wrong = text.encode().decode(encoding)
    except UnicodeDecodeError:  # Windows-1252 lacks five bytes.
        return
    assert mojibake(text) == ""
    assert mojibake(wrong)
    assert mojibake(wrong) in wrong
    for fields in ({"question": f"Which {wrong} is it?"}, {"sql": f"SELECT name FROM pub WHERE name = '{wrong}'"}):
        assert "mojibake" in dict(faults(**fields))


@pytest.mark.parametrize(
    "text",
    [
        "l’été… “à la carte” d’un café",
        "CAFÉ’s, NESTLÉ® and CAFÉ™",
        "São Paulo – Ñandú, MAÇÃ” and Âge d’or",
        "Îles «Îlot» à\xa0»",
        "潮爆大狀 Ελλάδα мир שלום العربية",
        "muay bân in Târgu Mureş",
        "naïve… 20\xa0°C, 5 µm, ±3 § 4",
        "Ärzte: Öl, Übung",
        "Úžasný Úžas",
    ],
)
def test_correct_text_is_not_mojibake(text):
    assert mojibake(text) == ""
    assert faults(question=f"Which {text}?") == []


@given(st.text(alphabet=st.characters(max_codepoint=0x24F, categories=["Ll", "Lu", "Zs"], exclude_characters="Ã")))
def test_letters_alone_are_never_mojibake(text):
    assert mojibake(text) == ""


@pytest.mark.parametrize(
    ("kind", "field", "text", "detail"),
    [
        ("replacement-character", "question", "Who is Jos\ufffd?", "Jos\ufffd"),
        ("invisible-character", "question", "\ufeffWhich pubs?", r"\u{feff}"),
        ("invisible-character", "schema", "CREATE TABLE pub (na\u200bme TEXT)", r"\u{200b}"),
        ("invisible-character", "sql", "SELECT name FROM pub\x00", r"\u{0}"),
        ("invisible-character", "notes", "a pub\u202e", r"\u{202e}"),
        ("html", "question", "Which pubs &amp; inns?", "&amp;"),
        ("html", "question", "Which <b>pubs</b>?", "<b>"),
        ("html", "notes", "A pub<br/>has beer", "<br/>"),
        ("wrapped-answer", "sql", "```sql\nSELECT name FROM pub\n```", "```"),
        ("wrapped-answer", "sql", "[SQL] SELECT name FROM pub [/SQL]", "[SQL]"),
        ("wrapped-answer", "sql", "SQL: SELECT name FROM pub", "SQL:"),
        ("single-word-question", "question", "pubs", "pubs"),
        ("schema-without-table", "schema", "pub(name, beers)", "pub(name, beers)"),
    ],
)
def test_each_fault_names_its_text(kind, field, text, detail):
    (found,) = faults(**{field: text})
    assert found[0] == kind
    assert detail in found[1]
    assert faults() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"question": "Which pubs have a < b and b > 3, a&b; c?"},
        {"question": "Which pubs?\r\n\tAll of them."},
        {"question": "哪些酒吧？"},
        {"question": "Which family 👨‍👩‍👧 has ❤️?"},
        {"question": r"What does \u{200b} mean?"},
        {"schema": "create temporary table if not exists pub (a)"},
        {"schema": "/* all */ CREATE OR REPLACE VIEW pub AS SELECT 1"},
        {"sql": "SELECT name FROM pub WHERE name = 'a <br> b &amp; c'"},
        {"sql": "SELECT `name` FROM pub WHERE [name] LIKE '%SQL:%'"},
    ],
)
def test_correct_texts_have_no_fault(fields):
    assert faults(**fields) == []


def test_a_common_schema_is_one_finding_and_alternatives_are_searched():
    some = [Record(f"Which {n}?", "pub(name)", "SELECT 1", alternatives=["```SELECT 2```"]) for n in range(3)]
    found = [(one.kind, one.records) for one in text_faults(Checked(records=some))]
    assert found == [("schema-without-table", (0, 1, 2)), ("wrapped-answer", (0, 1, 2))]


def test_a_question_with_its_own_answer():
    sql = "SELECT name FROM pub;"
    assert faults(answers_in_questions, question="Run select  name\nfrom pub, please", sql=sql)
    assert not faults(answers_in_questions, question="Run SELECT beers FROM pub", sql=sql)
    assert not faults(answers_in_questions, question="What does SELECT 1 return?", sql="SELECT 1")
    assert faults(answers_in_questions, question="Run SELECT name FROM pub", sql="SELECT 1", alternatives=[sql])


def test_mixed_styles_name_the_rarer_one():
    def styles(*golds):
        some = [Record(f"Which {n}?", PUB, sql) for n, sql in enumerate(golds)]
        return [(one.records, one.detail) for one in mixed_styles(Checked(records=some))]

    a, b = "SELECT name FROM pub", "SELECT name FROM pub; "
    assert styles(a, a) == styles(b, b) == []
    ((places, detail),) = styles(a, b, a)
    assert places == (1,)
    assert "1 of 3" in detail
    assert [places for places, _ in styles(b, a, b)] == [(1,)]
    assert [places for places, _ in styles(a, "SELECT name -- all\nFROM pub", a)] == [(1,)]
    assert [places for places, _ in styles(a, "select name from pub", a)] == [(1,)]
    assert not styles(a, "SELECT '--' FROM pub", 'SELECT "/*" FROM pub', "SELECT `it''s --` FROM pub")


def test_every_finding_has_a_kind():
    some = [
        Record("\ufffdpubs\x00 CafÃ© <br> select name from pub;", "x", "```select name from pub;"),
        Record("pubs", PUB, "select name from pub;"),
        Record("Run SELECT name FROM pub", PUB, "SELECT name FROM pub"),
    ]
    found = {one.kind for check in CHECKS for one in check(Checked(records=some))}
    assert found == {kind.name for kind in KINDS}
