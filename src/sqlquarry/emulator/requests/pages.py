"""Cut lists into pages, as operations that list things do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from sqlquarry.emulator.requests.errors import invalid

_Item = TypeVar("_Item")


def is_between(time: datetime, after: datetime | str | None, before: datetime | str | None) -> bool:
    """Return whether a time is after one bound and before the other; None is no bound."""
    return not (isinstance(after, datetime) and time <= after) and not (isinstance(before, datetime) and time >= before)


def cut_page(found: Sequence[_Item], size: int, token_name: str, token: str) -> tuple[Sequence[_Item], str | None]:
    """Return one page of a list, and the token of the next page; None if it was the last.

    Args:
        found: the whole list.
        size: the number of items on a page.
        token_name: what the operation calls its token.
        token: where the page begins: "0", or the token that came with the page before.

    Raises:
        ApiError: ValidationException if the token is not one that this function gave.
    """
    if not token.isdecimal():
        raise invalid(f"{token_name} {token!r} is not one that this operation gave")
    end = int(token) + size
    return found[int(token) : end], str(end) if end < len(found) else None
