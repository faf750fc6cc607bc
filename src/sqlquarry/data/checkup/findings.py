"""Define what a check can find in records, and how it names texts and records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sqlquarry.records import Record

if TYPE_CHECKING:
    from sqlquarry.data.checkup.checked import Checked

# "error": the record teaches something wrong. "warning": it probably does. "note": worth knowing.
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
# The argument of `Records.check` without which a kind is not looked for, or "" if it always is.
Need = Literal["", "databases", "others", "tokenizer", "max_length", "plan"]
_LARGEST_GROUP = 1_000  # records of one finding
_LONGEST = 160  # characters of a text that a finding shows


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding.

    Args:
        name: the name in reports and options, such as "gold-fails".
        severity: "error", "warning" or "note".
        title: what was found, as a short sentence without a period.
        advice: what to do about it, as one or two full sentences.
        needs: the argument of `Records.check` without which it is not looked for, or "".
    """

    name: str
    severity: Severity
    title: str
    advice: str
    needs: Need = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Args:
        kind: the name of its kind.
        records: positions of the records concerned. A group, such as duplicates of each other, has several.
        detail: the offending value, such as the engine's error, a column or a literal.
    """

    kind: str
    records: tuple[int, ...]
    detail: str = ""


Check = Callable[["Checked"], Iterator[Finding]]


def kinds_by_name(*groups: tuple[Kind, ...]) -> Mapping[str, Kind]:
    """Return kinds by name, from the tuples `KINDS` of the modules with checks."""
    return {kind.name: kind for group in groups for kind in group}


def findings_about(kind: str, positions: Sequence[int], detail: str, *, first: bool = False) -> Iterator[Finding]:
    """Yield one finding about a group of records, or several with the same detail if the group is large.

    Args:
        kind: the name of the kind.
        positions: the records, in order.
        detail: the offending value.
        first: every part begins with the first record, which is the one to keep.
    """
    head = tuple(positions[:1]) if first else ()
    rest = positions[len(head) :]
    for start in range(0, len(rest), _LARGEST_GROUP):
        yield Finding(kind, (*head, *rest[start : start + _LARGEST_GROUP]), detail)


def short(text: str) -> str:
    """Return a text as one line that is short enough for a finding."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def name_of(record: Record, position: int) -> str:
    """Return how a finding names a record of another set."""
    return f"record {record.id!r}" if record.id else f"record {position}"
