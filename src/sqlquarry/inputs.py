"""Checks of the arguments that every `TextGenerator` accepts: lists of records or prompts, and numeric options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from numbers import Integral, Real
from typing import TypeGuard

from sqlquarry.errors import ConfigError
from sqlquarry.records import Record


def check_inputs(inputs: Sequence[Record] | Sequence[str], *, method: str = "generate", records: bool = True) -> None:
    """Check that `inputs` is a list of records or a list of prompts.

    A single string is refused, although Python treats it as a sequence of characters.

    Args:
        inputs: the argument to check.
        method: name of the method that got it, for the message.
        records: whether the method accepts records.

    Raises:
        ConfigError: a single input, another type of object, or records and prompts in one list.
    """
    given: object = inputs
    accepted = "records or prompts" if records else "prompts"
    if isinstance(given, str | bytes | Record):
        raise ConfigError(f"{method} needs a list of {accepted}, but got {given!r:.60}. Put it in a list.")
    if isinstance(given, Mapping) or not (isinstance(given, Sized) and isinstance(given, Iterable)):
        raise ConfigError(f"{method} needs a list of {accepted}, but got an object of type {type(given).__name__}.")
    first_index: dict[type, int] = {}  # by type of input
    for index, item in enumerate(given):
        kind = next((known for known in (str, Record) if isinstance(item, known)), None)
        if kind is None or (kind is Record and not records):
            raise ConfigError(
                f"{method} needs a list of {accepted}, but input {index} is {item!r:.60} ({type(item).__name__})."
            )
        first_index.setdefault(kind, index)
    if len(first_index) > 1:
        raise ConfigError(
            f"{method} cannot mix records and prompts in one list: input {first_index[Record]} is a record and input "
            f"{first_index[str]} is a prompt. Use one call for each."
        )


def option_problems(counts: Mapping[str, object], amounts: Mapping[str, object]) -> list[str]:
    """Return one message for each invalid option.

    Args:
        counts: options that must be whole numbers of at least 1.
        amounts: options that must be numbers of at least 0. Infinity is allowed.
    """
    bad = [
        f"{option} is {value!r}, but must be a whole number of at least 1"
        for option, value in counts.items()
        if not is_whole(value) or int(value) < 1
    ]
    return bad + [
        f"{option} is {value!r}, but must be a number of at least 0"
        for option, value in amounts.items()
        if isinstance(value, bool) or not isinstance(value, Real) or not float(value) >= 0  # also rejects NaN
    ]


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether a value is an integer of Python or numpy, but not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def stop_problems(stop: object) -> list[str]:
    """Return a message if `stop` is not a list of non-empty strings, or an empty list if it is."""
    texts = stop if isinstance(stop, Sequence) and not isinstance(stop, str | bytes) else [None]
    if all(isinstance(text, str) and text for text in texts):
        return []
    return [f"stop is {stop!r:.80}, but must be a list of non-empty strings"]
