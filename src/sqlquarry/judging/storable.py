"""Convert any value to readable JSON, so that a report can always be saved."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

# Browsers and many other JSON parsers lose digits of larger integers (RFC 8259, section 6).
_LARGEST_INTEGER = 2**53 - 1
# An integer of up to 120 digits is written in full. A larger one is written as its first digits and their number.
_FULL_BITS = 400
_SHOWN_DIGITS = 20
_DEPTH = 20


def storable(value: object, *, text: Callable[[str], str] = str, depth: int = _DEPTH) -> JSON:
    """Return `value` as JSON values: None, bool, int, finite float, str, list and dict with text keys.

    Large integers, NaN and infinities become text. Bytes are written as in SQL (``X'00ff'``). Data classes become
    objects. Anything else becomes its `str`. Values nested more than `depth` levels deep become "…".

    Args:
        value: any value.
        text: applied to every text, including keys.
        depth: number of nested levels of lists and objects.
    """
    if isinstance(value, str):
        return text(value)
    if value is None or isinstance(value, bool | int | float | bytes):
        return _scalar(value)
    if depth == 0:
        return "…"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {text(_text(key)): storable(item, text=text, depth=depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [storable(item, text=text, depth=depth - 1) for item in value]
    return text(_text(value))


def _scalar(value: JSON | bytes) -> JSON:
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, int) and not isinstance(value, bool):
        return _integer(value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: object) -> str:
    if isinstance(value, int):
        return str(_integer(value))
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a run must not be lost because one object cannot be shown
        return f"<{type(value).__name__}>"


def _integer(value: int) -> int | str:
    if abs(value) <= _LARGEST_INTEGER:
        return int(value)
    if value.bit_length() <= _FULL_BITS:
        return str(int(value))
    # Python refuses to write more than 4,300 digits, because the time grows with the square of their number.
    dropped = int(value.bit_length() * math.log10(2)) - _SHOWN_DIGITS
    first = str(abs(value) // 10**dropped)
    return f"{'-' if value < 0 else ''}{first[:_SHOWN_DIGITS]}… ({dropped + len(first):,} digits)"
