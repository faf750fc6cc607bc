"""Recognize values that look like personal data, and columns whose names announce them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

# The patterns are bounded and cannot begin within a word or number, so a search takes linear time.
_EMAIL = re.compile(
    r"(?<![\w.+%-])[A-Za-z0-9][\w.+-]{0,63}@(?P<domain>(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24})(?![\w@-])"
)
# Domains that nobody can own: https://www.rfc-editor.org/rfc/rfc2606
_RESERVED_DOMAIN = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|example|test|invalid)$", re.IGNORECASE)
_LONG_NUMBER = re.compile(r"\d[\d .()-]{5,}\d")
_IBAN = re.compile(r"(?<![\w-])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![\w-])")
# Lengths by country: https://www.swift.com/standards/data-standards/iban-international-bank-account-number
_IBAN_LENGTHS = {
    entry[:2]: int(entry[2:])
    for entry in """AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20
    EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30
    KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28
    PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24
    XK20""".split()  # noqa: SIM905 - a text of codes is easier to read and to change
}
_CARD = re.compile(
    r"(?<![\w.,$€£/+-])(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{2,4}|3\d{3}([ -]?)\d{6}\2\d{4,5})(?![\w/-]|[.,]\d)"
)
# American Express, Visa, Mastercard, Discover, JCB and Diners Club: https://en.wikipedia.org/wiki/Payment_card_number
_ISSUED_CARD = re.compile(
    r"3[47]\d{13}|4\d{15}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|6(?:011|5\d\d|4[4-9]\d)\d{12}"
    r"|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}"
)
# Invalid areas, groups and serial numbers: https://www.ssa.gov/employer/randomization.html
_SSN = re.compile(r"(?<![\w.-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-]|\.\d)")
_IP = re.compile(r"(?<![\w.-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)")
_VERSION = re.compile(r"(?:\bv|\bver|version|release|build|firmware|section|§)\W{0,4}$", re.IGNORECASE)
# ITU-T E.164: a country code, and at most 15 digits.
_INTERNATIONAL = re.compile(r"(?<![\w.+-])\+[1-9][\d ().-]{6,20}\d(?![\w-]|\.\d)")
_ODD_SEPARATORS = re.compile(r"[ .-]{2}|^[^ ().-]*\.[^ ().-]*$")  # two in a row, or a decimal point
# North America: area code and exchange begin with 2 to 9 (https://www.nanpa.com).
_AMERICAN = re.compile(
    r"(?<![\w.+-])(?:(?:1[ .-])?\([2-9]\d{2}\) ?[2-9]\d{2}[ .-]\d{4}|(?:1-)?[2-9]\d{2}-[2-9]\d{2}-\d{4}"
    r"|[2-9]\d{2}\.[2-9]\d{2}\.\d{4})(?![\w-]|\.\d)"
)
_FICTIONAL = re.compile(r"555\W?01\d\d$")  # reserved for fiction by the same plan
# After such a word, any spelling of a number is a phone number, as in: phone_number = '0171 123456'
_CALLED = re.compile(
    r"(?:phone|mobile|fax|(?<![a-z])tel|(?<![a-z])cell)(?:[ _]?(?:number|no|nr))?\.?[\"`\]]?"
    r" {0,3}(?:=|:|is|LIKE)? {0,3}['\"]?(?P<value>[+(]?\d[\d ().-]{5,18}\d)(?![\w-]|\.\d)",
    re.IGNORECASE,
)
_YEARS_OR_DATE = re.compile(r"(?:19|20)\d\d\W+(?:19|20)\d\d|\d{4}-\d\d?-\d\d?|\d\d?[.-]\d\d?[.-]\d{4}")
_COLUMNS = {
    "e-mail address": "e ?mail|mail|email address",
    "phone number": "phone|telephone|mobile|fax|cellphone",
    "name": "(?:first|last|full|middle|maiden|given|family|f|l) ?name|surname",
    "IP address": "ip|ip ?address",
    "street address": "street|address",
    "date of birth": "birth ?date|birthday|dob|date of birth",
    "IBAN": "iban",
    "card number": "credit ?card|card ?number",
    "US social security number": "ssn|social security",
    "passport number": "passport",
    "password": "password|passwd|pwd",
}
_COLUMN_PATTERNS = {kind: re.compile(rf"\b(?:{words})\b") for kind, words in _COLUMNS.items()}
_WORD_BREAK = re.compile(r"[\W_]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class PersonalValue(NamedTuple):
    """A value that looks like personal data.

    Args:
        kind: what it looks like, such as "e-mail address".
        value: the value.
        start: its offset in the text.
    """

    kind: str
    value: str
    start: int

    @property
    def masked(self) -> str:
        """The first character and the shape of the value, such as "j***.***@*******.***"."""
        return self.value[0] + re.sub(r"\w", "*", self.value[1:])


def personal_values(text: str) -> list[PersonalValue]:
    """Return the values in a text that look like personal data, in order and without overlap.

    IBANs and card numbers have the right checksum and length. Reserved domains, private networks and numbers that are
    not given to anybody by the rules of their kind do not count.
    """
    found: list[PersonalValue] = []
    for value in sorted(_candidates(text), key=lambda value: value.start):
        if not found or value.start >= found[-1].start + len(found[-1].value):
            found.append(value)
    return found


def personal_kind(value: str) -> str | None:
    """Return what the first personal value in a text looks like, such as "e-mail address", or None."""
    return next((found.kind for found in personal_values(value)), None)


def personal_column(name: str) -> str | None:
    """Return which personal data the name of a column announces, such as "phone number", or None.

    `first_name`, `firstName` and "First Name" are the same.
    """
    words = name_words(name)
    return next((kind for kind, pattern in _COLUMN_PATTERNS.items() if pattern.search(words)), None)


def name_words(name: str) -> str:
    """Return the words of a name in lower case, such as "first name" for ``firstName``."""
    return _WORD_BREAK.sub(" ", name).lower()


def _candidates(text: str) -> Iterator[PersonalValue]:
    rules = _RULES if _LONG_NUMBER.search(text) else _RULES[:1] if "@" in text else ()
    for kind, pattern, accept in rules:
        for found in pattern.finditer(text):
            if value := accept(found):
                yield PersonalValue(kind, value, found.start() + found[0].index(value))


def _email(found: re.Match[str]) -> str:
    return "" if _RESERVED_DOMAIN.search(found["domain"]) else found[0]


def _iban(found: re.Match[str]) -> str:
    """Return the IBAN without words that follow it, or "" if country, length or checksum (ISO 7064) are wrong."""
    groups = found[0].split(" ")
    for end in range(len(groups), 0, -1):
        text = "".join(groups[:end])
        if len(text) == _IBAN_LENGTHS.get(text[:2]):
            number = "".join(str(int(character, 36)) for character in text[4:] + text[:4])
            return " ".join(groups[:end]) if int(number) % 97 == 1 else ""
    return ""


def _card(found: re.Match[str]) -> str:
    """Return the number if its issuer and its check digit (ISO/IEC 7812, the Luhn algorithm) are right."""
    number = re.sub(r"\D", "", found[0])
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in number[-2::-2])
    is_right = (sum(map(int, number[-1::-2])) + sum(doubled)) % 10 == 0
    return found[0] if is_right and _ISSUED_CARD.fullmatch(number) else ""


def _public_address(found: re.Match[str]) -> str:
    """Return an address of the public internet. Version numbers rarely have two parts of two digits."""
    try:
        is_public = ipaddress.IPv4Address(found[0]).is_global
    except ValueError:
        return ""
    is_version = _VERSION.search(found.string, max(0, found.start() - 20), found.start())
    return found[0] if is_public and not is_version and sum(int(part) > 9 for part in found[0].split(".")) > 1 else ""


def _international(found: re.Match[str]) -> str:
    digits = sum(character.isdigit() for character in found[0])
    is_spaced = digits + 1 < len(found[0])
    is_odd = _ODD_SEPARATORS.search(found[0]) or found[0].count("(") != found[0].count(")")
    return found[0] if (8 if is_spaced else 10) <= digits <= 15 and not is_odd else ""


def _american(found: re.Match[str]) -> str:
    return "" if _FICTIONAL.search(found[0]) else found[0]


def _called(found: re.Match[str]) -> str:
    digits = sum(character.isdigit() for character in found["value"])
    return found["value"] if 7 <= digits <= 15 and not _YEARS_OR_DATE.fullmatch(found["value"]) else ""


# The first rule needs no long number.
_RULES: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    ("e-mail address", _EMAIL, _email),
    ("IBAN", _IBAN, _iban),
    ("card number", _CARD, _card),
    ("US social security number", _SSN, lambda found: found[0]),
    ("IP address", _IP, _public_address),
    ("phone number", _INTERNATIONAL, _international),
    ("phone number", _AMERICAN, _american),
    ("phone number", _CALLED, _called),
)
