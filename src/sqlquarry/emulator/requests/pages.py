"""Split the answers of list operations into pages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from sqlquarry.emulator.requests.errors import invalid

_Item = TypeVar("_Item")


def is_between(time: datetime, after: datetime | str | None, before: datetime | str | None) -> bool:
    """Return whether a time is after one bound and before the other. None means that there is no bound.

    The types of boto3 allow text, but moto has already parsed the bounds and refused text that is not a time.
    """
    return not (isinstance(after, datetime) and time <= after) and not (isinstance(before, datetime) and time >= before)


def cut_page(found: Sequence[_Item], size: int, token_name: str, token: str) -> tuple[Sequence[_Item], str | None]:
    """Return one page of a list, and the token of the next page or None if this is the last page.

    Args:
        found: complete list.
        size: number of items on a page.
        token_name: the operation's name for its token.
        token: start of the page: "0", or the token that came with the previous page.

    Raises:
        ApiError: ValidationException if this function did not return the token.
    """
    if not token.isdecimal():
        raise invalid(f"{token_name} {token!r} is not valid. Use a token that this operation has returned.")
    end = int(token) + size
    return found[int(token) : end], str(end) if end < len(found) else None
