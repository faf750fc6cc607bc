"""Find schema and question again in messages that a `PromptFormatter` wrote."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from sqlquarry.data.ddl import part_schema
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record

# Private-use characters, which prompts do not contain.
_BETWEEN = "\ue000"
_ANY_TEXT = (f"[^{_BETWEEN}]+", f"[^{_BETWEEN}]+?")
_MARKS = {"question": "\ue001", "schema": "\ue002"}


class Wording:
    """The words around schema and question in the two messages of a formatter.

    Args:
        formatter: writes the messages.
        dialect: the dialect that `{dialect}` stands for.
        notes: the notes that are in the messages.
    """

    def __init__(self, formatter: PromptFormatter, dialect: str, notes: str) -> None:
        record = Record(_MARKS["question"], _MARKS["schema"], dialect=dialect, notes=notes)
        messages = {message["role"]: message["content"] for message in formatter.messages(record)}
        text = f"{messages.get('system', '').strip()}{_BETWEEN}{messages['user'].strip()}"
        self._exact, self._loose = re.escape(text), _loose(text)

    def find(self, system: str, user: str) -> tuple[str, str] | Literal["ambiguous"] | None:
        """Return schema and question, or "ambiguous" if there are several possibilities, or None if there is none.

        White space in the wording may differ from the formatter's.
        """
        text = f"{system.strip()}{_BETWEEN}{user.strip()}"
        is_ambiguous = False
        for words in (self._exact, self._loose):
            # The longest and the shortest match differ if the text can be divided in two ways.
            longest, shortest = (_pattern(words, any_text, any_text).fullmatch(text) for any_text in _ANY_TEXT)
            if longest and shortest:
                if (found := _texts(longest)) == _texts(shortest):
                    return found
                is_ambiguous = True
        return (self._beside_statements(text) or "ambiguous") if is_ambiguous else None

    def _beside_statements(self, text: str) -> tuple[str, str] | None:
        """Return schema and question if the schema consists of CREATE TABLE statements and the question is one line."""
        parted = part_schema(text)
        if parted is None:
            return None
        marked = f"{parted.before}{_MARKS['schema']}{parted.after}"
        patterns = (_pattern(self._loose, any_text, _MARKS["schema"]) for any_text in _ANY_TEXT)
        longest, shortest = (pattern.fullmatch(marked) for pattern in patterns)
        if not longest or not shortest or _texts(longest) != _texts(shortest) or "\n" in _texts(longest)[1]:
            return None
        return parted.schema, _texts(longest)[1]


@lru_cache(maxsize=256)
def _pattern(wording: str, question: str, schema: str) -> re.Pattern[str]:
    """Return a pattern with the groups question and schema. If one of them is repeated, its texts must be equal."""
    for name, text in (("question", question), ("schema", schema)):
        mark = re.escape(_MARKS[name])
        first, *others = wording.split(mark)
        wording = first + "".join(
            (f"(?P={name})" if number else f"(?P<{name}>{text})") + words for number, words in enumerate(others)
        )
    return re.compile(rf"\s*{wording}\s*")


def _loose(text: str) -> str:
    """Return an expression for a text in which white space may be missing or different."""
    for mark in (_BETWEEN, *_MARKS.values()):
        text = text.replace(mark, f" {mark} ")
    return r"\s*".join(map(re.escape, text.split()))


def _texts(found: re.Match[str]) -> tuple[str, str]:
    return found["schema"].strip(), found["question"].strip()
