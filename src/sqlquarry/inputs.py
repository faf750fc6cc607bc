"""Check what every `TextGenerator` is given: a list of records or of prompts, and numbers in range."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from numbers import Integral, Real
from typing import TypeGuard

from sqlquarry.errors import ConfigError
from sqlquarry.records import Record


def check_inputs(inputs: Sequence[Record] | Sequence[str], *, method: str = "generate", records: bool = True) -> None:
    """Refuse what is not a list of records or a list of texts; a text alone is a sequence of letters, too.

    Args:
        inputs: what a method was given.
        method: its name, for the message.
        records: whether it takes records at all.

    Raises:
        ConfigError: a single input, another kind of object, or records and texts in one list.
    """
    given: object = inputs
    wanted = "records or prompts" if records else "prompts"
    if isinstance(given, str | bytes | Record):
        raise ConfigError(f"{method} takes a list of {wanted}, but got {given!r:.60}. Put it in a list.")
    if isinstance(given, Mapping) or not (isinstance(given, Sized) and isinstance(given, Iterable)):
        raise ConfigError(f"{method} takes a list of {wanted}, but got a {type(given).__name__}.")
    kinds: dict[type, int] = {}  # kind -> place of the first of it
    for place, item in enumerate(given):
        kind = next((known for known in (str, Record) if isinstance(item, known)), None)
        if kind is None or (kind is Record and not records):
            raise ConfigError(f"{method} takes {wanted}, but input {place} is {item!r:.60} ({type(item).__name__}).")
        kinds.setdefault(kind, place)
    if len(kinds) > 1:
        raise ConfigError(
            f"{method} takes records or texts, not both in one list, but input {kinds[Record]} is a record and input "
            f"{kinds[str]} a text. Ask twice."
        )


def option_problems(counts: Mapping[str, object], amounts: Mapping[str, object]) -> list[str]:
    """Return what is wrong with options, one text per bad field.

    Args:
        counts: must be whole numbers of at least 1.
        amounts: must be numbers of at least 0; infinity is one of them.
    """
    bad = [
        f"{option} is {value!r}, but must be a whole number of at least 1"
        for option, value in counts.items()
        if not is_whole(value) or int(value) < 1
    ]
    return bad + [
        f"{option} is {value!r}, but must be a number of at least 0"
        for option, value in amounts.items()
        if isinstance(value, bool) or not isinstance(value, Real) or not float(value) >= 0  # NaN is not
    ]


def is_whole(value: object) -> TypeGuard[int]:
    """Tell whether a value is a whole number, of Python or numpy; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def stop_problems(stop: object) -> list[str]:
    """Return what is wrong with stop texts; none if it is a list of texts that are not empty."""
    texts = stop if isinstance(stop, Sequence) and not isinstance(stop, str | bytes) else [None]
    if all(isinstance(text, str) and text for text in texts):
        return []
    return [f"stop is {stop!r:.80}, but must be a list of texts that are not empty"]
