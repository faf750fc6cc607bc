"""Choose the split of a data set: train, dev (or validation) or test."""

from __future__ import annotations

from collections.abc import Sequence

from sqlquarry.errors import ConfigError
from sqlquarry.options import did_you_mean

_SAME = ({"dev", "validation", "valid", "val"}, {"train", "training"}, {"test", "testing"})


def pick_split(split: str | None, names: Sequence[str], what: str) -> str:
    """Return the split that a caller means. Different words for one split are accepted ("dev", "validation").

    Args:
        split: the requested split. None means the only one, or "train".
        names: the existing splits.
        what: what has these splits, for the message.

    Raises:
        ConfigError: there is no such split, or none was requested and there are several without "train".
    """
    wanted = "train" if split is None and len(names) != 1 else split or names[0]
    if wanted in names:
        return wanted
    words = next((words for words in _SAME if str(wanted).lower() in words), set())
    found = [name for name in names if name.lower() in words]
    if len(found) == 1:
        return found[0]
    asked = f"has no split {split!r:.40}" if split is not None else "has several splits, but none is called 'train'"
    raise ConfigError(f"{what} {asked}. Pass split= with one of {', '.join(names)}{did_you_mean(str(wanted), names)}.")
