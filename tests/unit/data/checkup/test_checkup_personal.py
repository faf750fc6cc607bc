"""Personal values are recognized by their rules, and ordinary numbers are not. Details never show a value."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import Record
from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.personal import personal_column, personal_kind, personal_values
from sqlquarry.data.checkup.privacy import personal_data

# All numbers are from documentation or invented.
VALUES = {
    "e-mail address": ["j.doe@mailhost.org", "JANE+x@sub.mailhost.co.uk"],
    "phone number": [
        "+49 171 5550199",
        "+442079460958",
        "+1 (415) 555-2671",
        "(415) 555-2671",
        "1-415-555-2671",
        "415.555.2671",
    ],
    "IBAN": ["DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "NO93 8601 1117 947"],
    "card number": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "3782 822463 10005"],
    "US social security number": ["123-45-6789"],
    "IP address": ["81.2.69.142"],
}


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in VALUES.items() for value in values])
@pytest.mark.parametrize("text", ["{}", "Who has {}?", "SELECT a FROM t WHERE b = '{}' AND c = 2", "({}), {}."])
def test_values_are_found_in_texts(kind, value, text):
    found = personal_values(text.format(*[value] * text.count("{}")))
    assert [(one.kind, one.value) for one in found] == [(kind, value)] * text.count("{}")
    assert personal_kind(text.replace("{}", value)) == kind


@pytest.mark.parametrize(
    "text",
    [
        "LIKE '%@mailhost.org'",
        "write to a@example.com or b@host.test",
        "torque of 350@1800-6000 (nm@rpm)",
        "from 2009-2011, 1987-10-07 12:30:45, 07-10-1987 and 1999/2000",
        "the years 2001 2002 2003 2004",
        "ISBN 978-3-16-148410-0, 0-306-40615-2 and 9783161484100",
        "$4,111,111,111,111,111 or 4111111111111111.50",
        "1609459200000 ms, 3809935740 and 0.8270000000000001",
        "table_10015132_11 and table_4111111111111111",
        "4111 1111 1111 1112",  # wrong check digit
        "1111 1111 1111 1117",  # no issuer
        "DE89 3704 0044 0532 0130 01",  # wrong checksum
        "GB29NWBK6016133192681",  # too short
        "000-12-3456, 666-12-3456, 912-12-3456, 123-00-6789 and 123-45-0000",
        "catalog 123-45-6789-1",
        "version 81.22.69.142 and 1.2.3.4",
        "192.168.10.20, 10.11.12.13, 255.255.255.128, 127.0.0.1 and 081.22.69.142",
        "a score of +8 (70-69-70-75=284) or +15000000",
        "+1.234567890",
        "(415) 555-0123",  # reserved for fiction
        "score 115-103-2012",
        "mobile 2010-2011, phone = 42, fax: 2012-11-30",
        "SELECT 1+1234567890 FROM t",
    ],
)
def test_other_values_are_not_found(text):
    assert personal_values(text) == []


def test_a_word_before_a_number_makes_it_a_phone_number():
    for text in (
        "WHERE T1.phone_number = '0171 1234567'",
        "his mobile number is 0171 1234567",
        'fax LIKE "0171 1234567"',
    ):
        (found,) = personal_values(text)
        assert (found.kind, found.value) == ("phone number", "0171 1234567")
        assert text[found.start :].startswith("0171")
    assert personal_kind("0171 1234567") is None


def test_an_iban_ends_before_the_next_word():
    (found,) = personal_values("AT61 1904 3002 3457 3201 WITH 12 EUR")
    assert found.value == "AT61 1904 3002 3457 3201"


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("e-mail address", ["email", "E-Mail", "customerEmail", "email_address"]),
        ("phone number", ["phone_number", "HomePhone", "FAX"]),
        ("name", ["first_name", "lastName", "LName", "Surname"]),
        ("IP address", ["ip_address", "last_ip"]),
        ("street address", ["Home Address", "street"]),
        ("date of birth", ["date_of_birth", "BirthDate", "dob"]),
        ("US social security number", ["SSN"]),
        ("password", ["password_hash"]),
        (None, ["name", "product_name", "title", "ship", "zip", "tip", "headphones", "mailing", "email4"]),
    ],
)
def test_columns(kind, names):
    assert {name: personal_column(name) for name in names} == dict.fromkeys(names, kind)


def test_findings_mask_values_and_name_the_field():
    value = "j.doe@mailhost.org"
    schema = f"CREATE TABLE t (a);\nINSERT INTO t VALUES ('{value}'), ('x@mailhost.org');"
    some = [
        Record("Which?", schema, "SELECT a FROM t"),
        Record(f"Who is {value}?", schema, f"SELECT a FROM t WHERE a = '{value}'", notes="Call 415-555-2671."),
    ]
    found = list(personal_data(Checked(records=some)))
    assert [(one.records, one.detail.split()[-1]) for one in found] == [
        ((1,), "question"),
        ((0, 1), "schema"),
        ((1,), "sql"),
        ((1,), "notes"),
    ]
    assert "e-mail address j.***@********.*** and 1 more" in found[1].detail
    assert "4**-***-****" in found[3].detail


@given(st.sampled_from([value for values in VALUES.values() for value in values]))
def test_a_masked_value_has_only_its_first_character_and_its_shape(value):
    (found,) = personal_values(value)
    assert len(found.masked) == len(value)
    assert not any(character.isalnum() for character in found.masked[1:])


@given(st.text(alphabet="0123456789+-. ()@aAbB:=", max_size=60))
def test_values_are_parts_of_the_text_in_order(text):
    end = 0
    for found in personal_values(text):
        assert found.start >= end
        assert text[found.start :].startswith(found.value)
        end = found.start + len(found.value)


@pytest.mark.parametrize("unit", ["a", "a@", "a@a.", "+1", "1", "12 34 ", "AB12 ", "1234-", "phone 1", "1.1.", "+1("])
def test_searching_takes_linear_time(unit):
    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        start = time.process_time()
        personal_values(text)
        return time.process_time() - start

    assert seconds(160_000) < 24 * max(seconds(20_000), 0.005)  # Linear time gives 8, quadratic time 64.
