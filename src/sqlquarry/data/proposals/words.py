"""Turn the names of tables and columns into English words."""

from __future__ import annotations

import re

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d+$)")
_ARTICLE_AN = re.compile(r"(?i:(?!uni|use|usa|one|eu)[aeiou]|hour|honor|heir)|[FLMNRSX][A-Z]")
_LONGEST_COMMENT_WORDS = 4
_PREFIXES = {"tbl", "tb", "dim", "fact", "ref", "vw", "stg"}
_ABBREVIATIONS = {
    "addr": "address", "amt": "amount", "avg": "average", "cat": "category", "cd": "code", "cnt": "count",
    "cust": "customer", "dept": "department", "desc": "description", "descr": "description", "dob": "date of birth",
    "emp": "employee", "fname": "first name", "gpa": "GPA", "id": "ID", "ids": "IDs",
    "lat": "latitude", "hs": "high school", "lname": "last name", "lng": "longitude", "loc": "location",
    "mgr": "manager", "nbr": "number", "num": "number",
    "pct": "percentage", "pop": "population", "prod": "product", "qty": "quantity", "tel": "telephone number",
    "temp": "temperature", "tv": "TV", "url": "URL", "uid": "user ID", "yr": "year",
}  # fmt: skip
_IRREGULAR = {
    "person": "people", "child": "children", "man": "men", "woman": "women", "mouse": "mice", "foot": "feet",
    "staff": "staff members", "leaf": "leaves", "shelf": "shelves", "life": "lives",
    "half": "halves", "movie": "movies", "criterion": "criteria", "medium": "media", "index": "indexes",
    "curriculum": "curricula", "analysis": "analyses", "basis": "bases", "cookie": "cookies", "datum": "data",
}  # fmt: skip
_SINGULAR_GROUPS = {"staff": "staff member", "personnel": "employee", "weather": "weather record"}
_SINGULARS = {many: one for one, many in _IRREGULAR.items()} | {"staff members": "staff member"}
_UNCOUNTED = {
    "news", "series", "species", "data", "equipment", "information", "money", "weather", "sales", "media",
    "music", "furniture", "address", "gas", "bus", "status", "business", "class", "process", "access", "success",
    "basis", "analysis",
}  # fmt: skip
_PHRASES = {"l name": "last name", "f name": "first name", "m name": "middle name", "stu id": "student ID"}
_EXTREMES = {"min": "minimum", "max": "maximum", "tot": "total"}
_ALONE = {"long": "longitude", "no": "number", "min": "minimum", "max": "maximum"}
_FLAGS = {"is", "has", "was", "can"}
_ADJECTIVES = {"highest", "lowest", "average", "minimum", "maximum", "min", "max", "first", "last", "total", "current"}
_SAME = {"series", "species", "news", "data", "equipment", "media"}
_PREPOSITIONS = {"of", "in", "for", "by", "to", "at", "on", "with", "from"}


def split_words(name: str) -> list[str]:
    """Return the words of an identifier, such as ["song", "release", "year"] for ``Song_releaseYear``."""
    words = re.sub(r"[\W_]+", " ", _CAMEL.sub(" ", name)).split()
    if len(words) > 1 and words[0].lower() in _PREFIXES:
        words = words[1:]
    if len(words) > 1 and words[-1].isdigit():
        words = words[:-1]
    if len(words) > 1 and words[0].lower() in _EXTREMES:
        words[0] = _EXTREMES[words[0].lower()]
    elif len(words) == 1:
        words = _ALONE.get(words[0].lower(), words[0]).split()
    plain = [word if word.isupper() and not name.isupper() and len(word) < 5 else word.lower() for word in words]
    text = " ".join(_ABBREVIATIONS.get(word.lower(), word) for word in plain)
    return _PHRASES.get(text.lower(), text).split()


def spoken(name: str, comment: str = "") -> str:
    """Return the English noun of a name. A comment of at most four words is a better noun than the name."""
    comment = " ".join(comment.split())
    if comment and len(comment.split()) <= _LONGEST_COMMENT_WORDS and re.fullmatch(r"[\w '\-]+", comment):
        return comment if comment[:2].isupper() else comment[0].lower() + comment[1:]
    words = split_words(name) or [name]
    if words[0] in _FLAGS and len(words) > 1:
        return f"{' '.join(words[1:])} status"
    return f"{words[0]} value" if len(words) == 1 and words[0] in _ADJECTIVES else " ".join(words)


def without_table(noun: str, table: str) -> str:
    """Return the noun of a column without the noun of its table: "singer name" of a singer is "name"."""
    for prefix in (table, table.rpartition(" ")[2]):
        if (
            noun.lower().startswith(f"{prefix.lower()} ")
            and noun[len(prefix) + 1 :].split(maxsplit=1)[0] not in _PREPOSITIONS
        ):
            return noun[len(prefix) + 1 :]
    return noun


def plural(noun: str) -> str:
    """Return the plural of a noun, which may be followed by a preposition: "dates of birth"."""
    head, rest = _divided(noun)
    first, space, last = head.rpartition(" ")
    return f"{first}{space}{_plural(last)}{rest}"


def singular(noun: str) -> str:
    """Return the singular of a noun, which may be followed by a preposition."""
    head, rest = _divided(noun)
    first, space, last = head.rpartition(" ")
    return f"{first}{space}{_singular(last)}{rest}"


def is_plural(noun: str) -> bool:
    """Return whether the noun is in the plural."""
    head, _ = _divided(noun)
    last = head.rpartition(" ")[2]
    return last in ("sales", "people") or (_singular(last) != last and _plural(_singular(last)) == last)


def with_article(noun: str) -> str:
    """Return the noun with "a" or "an", or unchanged if it is in the plural."""
    return noun if is_plural(noun.partition(" whose ")[0]) else f"{'an' if _ARTICLE_AN.match(noun) else 'a'} {noun}"


def possessive(noun: str) -> str:
    """Return the noun with an apostrophe, such as "owner's"."""
    return f"{noun}'" if noun.endswith("s") and is_plural(noun) else f"{noun}'s"


def _divided(noun: str) -> tuple[str, str]:
    words = noun.split(" ")
    place = next((i for i, word in enumerate(words) if i and word in _PREPOSITIONS), len(words))
    return " ".join(words[:place]), "".join(f" {word}" for word in words[place:])


def _plural(word: str) -> str:
    lowered = word.lower()
    if lowered in _IRREGULAR:
        return _IRREGULAR[lowered]
    if not (word.isascii() and word.isalpha()) or lowered in _SAME or re.search(r"\w{3}ed$", lowered):
        return word
    if _singular(word) != word:
        return word
    if word.isupper():
        return f"{word}s"
    if re.search(r"[^aeiou]y$", lowered):
        return f"{word[:-1]}ies"
    return f"{word}es" if re.search(r"(s|x|z|ch|sh)$", lowered) else f"{word}s"


def _singular(word: str) -> str:
    lowered = word.lower()
    if lowered in _SINGULARS:
        return _SINGULARS[lowered]
    if lowered in _SINGULAR_GROUPS:
        return _SINGULAR_GROUPS[lowered]
    if lowered in _UNCOUNTED or not lowered.isascii() or not lowered.endswith("s") or word.isupper():
        return word
    if lowered.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if re.search(r"(ss|sh|ch|x|zz|us)es$", lowered):
        return word[:-2]
    return word if re.search(r"(ss|us|is)$", lowered) or len(word) < 4 else word[:-1]
