"""Recognize columns with personal data by their names and values."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sqlquarry.data.database.tables import Value

# Words of column names -> the kind of personal data. A name of one of these words, or with such words at its end or
# start, counts. "name" alone counts only in tables of people, because most things have a name.
_COLUMN_WORDS = {
    "e-mail address": r"e_?mails?(_?addr(ess)?)?",
    "phone number": r"(tele)?phones?|mobiles?|fax|cell_?phones?",
    "name of a person": r"(first|last|middle|given|family|full|maiden|nick|sur|fore)_?names?",
    "postal address": r"(street_?)?address(es)?|street|addr|address_?line_?\d?|house_?(number|no)",
    "account number": r"iban|account_?(number|no)|card_?(number|no)|credit_?card|cvv|cvc",
    "identity number": r"ssn|(social_?security|passport)(_?(number|no))?|tax_?id|national_?id|driving_?licen[cs]e",
    "credential": r"passwords?|passwd|pwd|secrets?|(api|private|access)_?keys?|tokens?|salt|password_?hash",
    "date of birth": r"(date_?of_?)?birth_?(date|day)?|dob",
    "network address": r"ip(_?addr(ess)?)?|mac_?addr(ess)?",
}
_COLUMNS = {kind: re.compile(rf"(?:.*_)?(?:{words})(?:_.*)?") for kind, words in _COLUMN_WORDS.items()}
_NAME = re.compile(r"(?:.*_)?names?")
_PEOPLE = re.compile(
    r"(?:.*_)?(?:people|persons?|customers?|clients?|employees?|staff|students?|teachers?|patients?|doctors?|physicians?"
    r"|nurses?|users?|members?|contacts?|guests?|candidates?|authors?|tenants?|drivers?|visitors?|passengers?"
    r"|subscribers?|applicants?|participants?|owners?|individuals?|citizens?|residents?|voters?|players?|donors?)(?:_.*)?"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def personal_kind(table: str, column: str, values: Iterable[Value]) -> str:  # noqa: ARG001 - patterns of values follow
    """Return the kind of personal data that a column seems to contain, such as "e-mail address", or ""."""
    name = _words(column)
    if found := next((kind for kind, words in _COLUMNS.items() if words.fullmatch(name)), ""):
        return found
    return "name of a person" if _NAME.fullmatch(name) and _PEOPLE.fullmatch(_words(table)) else ""


def _words(name: str) -> str:
    return re.sub(r"\W+", "_", _CAMEL.sub("_", name)).lower()
