"""Decide which columns of a database seem to contain personal data."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sqlquarry.data.checkup.personal import name_words, personal_column, personal_kind
from sqlquarry.data.database.tables import Value

# The check-up of records knows names of columns such as first_name and phone. These are more of them. A database has
# many columns with such names, but texts for training rarely name them.
_COLUMNS = {
    "credential": r"secret|(?:api|private|access) ?key|token|salt",
    "account number": r"account ?(?:number|no|nr)|card ?no|cvv|cvc",
    "identity number": r"tax ?id|national ?id|driving ?licen[cs]e",
    "network address": r"mac ?address",
}
_COLUMN_PATTERNS = {kind: re.compile(rf"\b(?:{words})s?\b") for kind, words in _COLUMNS.items()}
# An address_id or phone_type is not an address or phone.
_CONTACTS = {"e-mail address", "phone number", "street address"}
_ABOUT_CONTACT = re.compile(r"\b(?:id|ids|key|code|from|to|count)$|\btypes?\b")
_PERSON = (
    r"(?:person|people|individual|customer|client|employee|staff|student|teacher|tutor|professor|patient|doctor|nurse"
    r"|physician|user|member|contact|guest|candidate|author|tenant|driver|visitor|passenger|subscriber|applicant"
    r"|participant|owner|citizen|resident|voter|player|donor|friend|engineer|manager|buyer|seller)s?"
)
# Most things have a name. It is one of a person in a table of people, such as `name` in `customers`, and if the column
# mentions the person, as in `customer_name`.
_NAME = re.compile(rf"(?:personal |login |legal |full )?(?P<person>{_PERSON} |cust |emp )?names?")
_PEOPLE = re.compile(rf"(?:.* )?{_PERSON}(?: profiles?| list)?")
_LEAST_SHARE = 0.05  # of a column's distinct values, because long numbers can look like a card or phone by chance


def personal_data(table: str, column: str, values: Iterable[Value]) -> str:
    """Return the kind of personal data that a column seems to contain, such as "e-mail address", or "".

    The name of the column decides, or the name of the table if the column is a name, or one in 20 values.
    """
    words = name_words(column)
    more = (kind for kind, pattern in _COLUMN_PATTERNS.items() if pattern.search(words))
    announced = personal_column(column) or next(more, "")
    if announced and not (announced in _CONTACTS and _ABOUT_CONTACT.search(words)):
        return announced
    name = _NAME.fullmatch(words)
    if name and (name["person"] or _PEOPLE.fullmatch(name_words(table))):
        return "name of a person"
    texts = [value for value in values if isinstance(value, str)]
    kinds = [kind for text in texts if (kind := personal_kind(text))]
    return kinds[0] if len(kinds) > _LEAST_SHARE * len(texts) else ""


def is_personal(value: Value) -> bool:
    """Return whether a single value looks personal."""
    return isinstance(value, str) and personal_kind(value) is not None
