"""What a run is of: two runs are the same if base, prompt, records and configuration have the same content."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import MANIFEST, AdapterCheckpoint, write_json
from sqlquarry.errors import MetadataError, TrainingError
from sqlquarry.files.locks import LOCK_FILE, only_writer
from sqlquarry.files.metadata import read_object

MARKER = ".training"  # in a directory that a run has begun to fill; holds what the run is of
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


def claimed(output: Path, identity: dict[str, Any], held: contextlib.ExitStack) -> bool:
    """As `_finished`; if there is work to do, this process is the only writer while `held` is open."""
    if not (output / MANIFEST).is_file():
        try:
            held.enter_context(only_writer(output))
        except OSError as error:
            raise TrainingError(f"{output} cannot be written ({error}). Choose another output_dir.") from error
    return _finished(output, identity)


def _finished(output: Path, identity: dict[str, Any]) -> bool:
    """Return whether the finished adapter of the same inputs is there; else prepare the directory for a run.

    Raises:
        TrainingError: the directory holds another run, or files that no training run wrote.
    """
    if (output / MANIFEST).is_file():
        adapter = AdapterCheckpoint.load(output)
        if differing := differences(adapter.manifest.provenance, identity):
            raise TrainingError(
                f"{output} already holds a finished adapter that differs in {differing}. "
                "Choose another output_dir, or delete it."
            )
        return True
    marker = output / MARKER
    if marker.is_file():
        try:
            there = read_object(marker, lenient=True) if marker.stat().st_size else {}
        except (OSError, MetadataError) as error:
            raise TrainingError(f"{marker} cannot be read ({error}). Choose another output_dir.") from error
        if differing := differences(there, identity):
            raise TrainingError(
                f"{output} holds an unfinished run that differs in {differing}, so it cannot be resumed. "
                "Choose another output_dir, or delete it."
            )
        return False
    if output.is_dir() and any(path.name != LOCK_FILE for path in output.iterdir()):
        raise TrainingError(f"{output} holds files that no training run wrote. Choose an empty output_dir.")
    write_json(marker, identity)
    return False


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
