"""The identity of a run. Two runs are the same if their base model, prompt, records and configuration are equal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import MetadataError, TrainingError
from sqlquarry.files.locks import LOCK_FILE, only_writer
from sqlquarry.files.metadata import read_object
from sqlquarry.files.writing import write_json
from sqlquarry.manifests import MANIFEST

MARKER = ".training"  # file with the run's identity, in the output directory of an unfinished run
_NOT_THERE = object()


def base_name(base_model: str | Path) -> str:
    """Return the name of a base model to show to users: its hub id or URI, or its absolute path on this machine."""
    return str(Path(base_model).resolve()) if Path(base_model).exists() else str(base_model)


def differences(there: Mapping[str, object], now: Mapping[str, object]) -> str:
    """List the fields in which two identities differ, with both values. Return "" if they are equal.

    Bases are compared only by SHA-256, not by name or path.

    Args:
        there: the identity in a manifest or of an unfinished run.
        now: the identity of this run.
    """
    return ", ".join(_differences(there, now))


def claim_output(output: Path, identity: Mapping[str, object], held: contextlib.ExitStack) -> bool:
    """Return True if the directory contains the finished adapter of this run. Otherwise prepare it for the run.

    If the run is not finished, this process is the only writer while `held` is open.

    Raises:
        OutputInUseError: another process writes into the directory.
        TrainingError: the directory cannot be written, belongs to another run, or contains files that no training run
            wrote.
    """
    if not (output / MANIFEST).is_file():
        try:
            held.enter_context(only_writer(output))
        except OSError as error:
            raise TrainingError(f"{output} cannot be written ({error}). Use another output_dir.") from error
    return _is_finished(output, identity)


def _is_finished(output: Path, identity: Mapping[str, object]) -> bool:
    if (output / MANIFEST).is_file():
        adapter = AdapterCheckpoint.load(output)
        if differing := differences(adapter.manifest.provenance, identity):
            raise TrainingError(
                f"{output} already contains a finished adapter that differs in {differing}. Use another output_dir, or "
                "delete this one."
            )
        return True
    marker = output / MARKER
    if marker.is_file():
        try:
            there = read_object(marker, lenient=True) if marker.stat().st_size else {}
        except (OSError, MetadataError) as error:
            raise TrainingError(f"{marker} cannot be read ({error}). Use another output_dir.") from error
        if differing := differences(there, identity):
            raise TrainingError(
                f"{output} contains an unfinished run that differs in {differing}, so it cannot be resumed. Use "
                "another output_dir, or delete this one."
            )
        return False
    if output.is_dir() and any(path.name != LOCK_FILE for path in output.iterdir()):
        raise TrainingError(f"{output} contains files that no training run wrote. Use an empty output_dir.")
    write_json(marker, identity)
    return False


def _differences(there: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    for key, value in now.items():
        old = there.get(key, _NOT_THERE)
        if key == "base_model":
            pairs = [(key, _digest(old), _digest(value))]
        elif isinstance(old, Mapping) and isinstance(value, Mapping):
            names = [*value, *(name for name in old if name not in value)]
            pairs = [(f"{key}.{name}", old.get(name, _NOT_THERE), value.get(name, _NOT_THERE)) for name in names]
        else:
            pairs = [(key, old, value)]
        yield from (f"{name} (stored: {_shown(a)}, this run: {_shown(b)})" for name, a, b in pairs if a != b)


def _digest(base: object) -> object:
    return base.get("sha256", _NOT_THERE) if isinstance(base, Mapping) else base


def _shown(value: object) -> str:
    if value is _NOT_THERE:
        return "missing"
    text = str(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:12]}…"
