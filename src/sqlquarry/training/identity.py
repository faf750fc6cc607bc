"""What a run is of: two runs are the same if base, prompt, records and configuration have the same content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_NOT_THERE = object()


def base_name(base_model: str | Path) -> str:
    """Return a base model's name for people: its hub id or URI, or the absolute path of what is on this machine."""
    return str(Path(base_model).resolve()) if Path(base_model).exists() else str(base_model)


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in which fields two identities differ, with both values; "" if they are of the same run.

    Bases are compared by SHA-256, whatever their names and paths are.

    Args:
        there: what a manifest or an unfinished run holds.
        now: what would be trained.
    """
    return ", ".join(_differences(there, now))


def _differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key, value in now.items():
        old = there.get(key, _NOT_THERE)
        if key == "base_model":
            old, value = _digest(old), _digest(value)  # noqa: PLW2901 - only the content counts
        if key == "config" and isinstance(old, Mapping):
            names = [*value, *(name for name in old if name not in value)]
            pairs = [(f"config.{name}", old.get(name, _NOT_THERE), value.get(name, _NOT_THERE)) for name in names]
        else:
            pairs = [(key, old, value)]
        yield from (f"{name} ({_shown(a)} there, {_shown(b)} now)" for name, a, b in pairs if a != b)


def _digest(base: Any) -> Any:
    return base.get("sha256", _NOT_THERE) if isinstance(base, Mapping) else base


def _shown(value: Any) -> str:
    if value is _NOT_THERE:
        return "nothing"
    text = str(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:12]}…"
