"""Encode rendered records piece by piece: what many records share is tokenized once, and the ids are joined.

A prompt consists of constant text and the texts of its record. `borders` finds places in the constant text that no
token crosses. So the constant pieces are encoded once, equal schemas are encoded once, and questions without the long
text before them. If there are no such places, or the template changes a record's text, the whole text is encoded.
"""

from __future__ import annotations

import dataclasses
import json
import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlquarry.errors import ConfigError
from sqlquarry.records import Record
from sqlquarry.tokenizing.batches import BatchEncoder
from sqlquarry.tokenizing.borders import Border, Borders, find_borders
from sqlquarry.tokenizing.reading_equality import special_ids
from sqlquarry.tokenizing.tokenizer import Tokenizer

_FIELDS = ("schema", "question", "notes", "sql")
_MARKS = {name: f"\ue000{name}\ue001" for name in _FIELDS}  # private characters, so that no template contains them
_MARK = re.compile(f"\ue000({'|'.join(_FIELDS)})\ue001")
_CHECKED = 64  # records


@dataclass(frozen=True, slots=True)
class Layout:
    """How a prompt consists of constant text and the texts of a record, as formats of `str.format`.

    Args:
        whole: the complete text.
        pieces: its pieces, which are tokenized on their own.
    """

    whole: str
    pieces: tuple[str, ...]


class PieceEncoder:
    """Encode rendered records with the same ids as `tokenizer`.

    Args:
        tokenizer: the tokenizer.
        records: the records. Some are encoded in both ways to check that the ids are equal.
        render: returns the text of a record.
        add_special_tokens: let the tokenizer add its special tokens.

    Attributes:
        batches: encodes whole texts.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        records: Sequence[Record],
        render: Callable[[Record], str],
        *,
        add_special_tokens: bool,
    ) -> None:
        self.batches = BatchEncoder(tokenizer)
        self._special, self._render = add_special_tokens, render
        self._layouts: dict[tuple[str, bool], Layout | None] = {}
        backend = self.batches.backend
        self._borders = find_borders(backend) if backend else None
        self._front: list[int] = []
        self._behind: list[int] = []
        if self._borders and backend and backend.post_processor and add_special_tokens:
            step = json.loads(backend.post_processor.__getstate__())
            self._front, self._behind = special_ids({"post_processor": step})
        if backend:
            self._check(_varied(records), tokenizer)

    def encode(self, records: Sequence[Record], texts: Sequence[str]) -> list[array[int]]:
        """Return the ids of each record, given with its rendered text."""
        cut = [self._pieces(record, text) for record, text in zip(records, texts, strict=True)]
        pieces = iter(self.batches.ids((one for some in cut for one in some), add_special_tokens=False))
        wholes = (text for text, some in zip(texts, cut, strict=True) if not some)
        whole = iter(self.batches.ids(wholes, add_special_tokens=self._special))
        found = []
        for some in cut:
            if not some:
                found.append(next(whole))
                continue
            ids = array("i", self._front)
            for _ in some:
                ids += next(pieces)
            ids.extend(self._behind)
            found.append(ids)
        return found

    def _pieces(self, record: Record, text: str) -> list[str]:
        """Return the pieces of a text, or none if it must be encoded as a whole."""
        if self._borders is None:
            return []
        notes = record.notes.strip()
        kind = record.dialect, bool(notes)
        if kind not in self._layouts:
            self._layouts[kind] = self._layout(record, self._borders)
        layout = self._layouts[kind]
        values = record.schema.strip(), record.question.strip(), notes, (record.sql or "").strip()
        if layout is None or layout.whole.format(*values) != text:
            return []
        return [piece.format(*values) for piece in layout.pieces]

    def _layout(self, record: Record, borders: Borders) -> Layout | None:
        """Render a record with marks instead of texts, and cut the result at the borders."""
        marks = _MARKS if record.notes.strip() else _MARKS | {"notes": ""}
        try:
            text = self._render(dataclasses.replace(record, **marks, alternatives=()))
        except ConfigError:  # the template refuses these texts, but perhaps not those of the record
            return None
        return _cut(_MARK.split(text), borders)

    def _check(self, records: Sequence[Record], tokenizer: Tokenizer) -> None:
        """Let the tokenizer itself encode whole texts from now on if it gives other ids, because of an error here."""
        texts = [self._render(record) for record in records]
        found = [ids.tolist() for ids in self.encode(records, texts)]
        if texts and found != tokenizer(texts, add_special_tokens=self._special)["input_ids"]:
            self._borders = self.batches.backend = None


def _cut(parts: Sequence[str], borders: Borders) -> Layout:
    """Return the layout of a text, given as constant parts with the names of fields between them."""
    whole, pieces = "", [""]
    for index, part in enumerate(parts):
        if index % 2:
            field = f"{{{_FIELDS.index(part)}}}"
            whole, pieces[-1] = whole + field, pieces[-1] + field
            continue
        start = 0
        for border in _useful(borders.within(part), is_first=index == 0, is_last=index == len(parts) - 1):
            pieces[-1] += _escaped(part[start : border.place])
            pieces.append("")
            start = border.place + border.skipped
        pieces[-1] += _escaped(part[start:])
        whole += _escaped(part)
    return Layout(whole, tuple(pieces))


def _useful(borders: Sequence[Border], *, is_first: bool, is_last: bool) -> Sequence[Border]:
    """Return the borders next to the texts of a record. Others would only cut constant text into more pieces."""
    behind = [] if is_first else borders[:1]
    before = [] if is_last else [border for border in borders[-1:] if border.place or not is_first]
    return sorted({*behind, *before})


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _varied(records: Sequence[Record]) -> list[Record]:
    """Return records whose texts begin and end with different characters that are not letters of ASCII."""
    found: dict[str, Record] = {}
    for record in records:
        schema, question = record.schema.strip(), record.question.strip()
        edges = schema[0] + schema[-1] + question[0] + question[-1]
        found.setdefault("".join("a" if "a" <= edge.lower() <= "z" else edge for edge in edges), record)
        if len(found) == _CHECKED:
            break
    return list(found.values())
