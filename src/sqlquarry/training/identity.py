"""What a run is of: two runs are the same if base, prompt, records and configuration have the same content."""

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

MARKER = ".training"  # in a directory that a run has begun to fill; holds what the run is of
_NOT_THERE = object()


def base_name(base_model: str | Path) -> str:
    """Return a base model's name for people: its hub id or URI, or the absolute path of what is on this machine."""
    return str(Path(base_model).resolve()) if Path(base_model).exists() else str(base_model)


def differences(there: Mapping[str, object], now: Mapping[str, object]) -> str:
    """Return in which fields two identities differ, with both values; "" if they are of the same run.

    Bases are compared by SHA-256, whatever their names and paths are.

    Args:
        there: what a manifest or an unfinished run holds.
        now: what would be trained.
    """
    return ", ".join(_differences(there, now))


def claim_output(output: Path, identity: Mapping[str, object], held: contextlib.ExitStack) -> bool:
    """Return whether the finished adapter of the same inputs is there; else prepare the directory for a run.

    If there is work to do, this process is the only writer while `held` is open.

    Raises:
        OutputInUseError: another process writes into the directory.
        TrainingError: the directory cannot be written, or holds another run, or files that no training run wrote.
    """
    if not (output / MANIFEST).is_file():
        try:
            held.enter_context(only_writer(output))
        except OSError as error:
            raise TrainingError(f"{output} cannot be written ({error}). Choose another output_dir.") from error
    return _is_finished(output, identity)


def _is_finished(output: Path, identity: Mapping[str, object]) -> bool:
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


def _differences(there: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    for key, value in now.items():
        old = there.get(key, _NOT_THERE)
        if key == "base_model":
            pairs = [(key, _digest(old), _digest(value))]  # only the content counts
        elif isinstance(old, Mapping) and isinstance(value, Mapping):
            names = [*value, *(name for name in old if name not in value)]
            pairs = [(f"{key}.{name}", old.get(name, _NOT_THERE), value.get(name, _NOT_THERE)) for name in names]
        else:
            pairs = [(key, old, value)]
        yield from (f"{name} ({_shown(a)} there, {_shown(b)} now)" for name, a, b in pairs if a != b)


def _digest(base: object) -> object:
    return base.get("sha256", _NOT_THERE) if isinstance(base, Mapping) else base


def _shown(value: object) -> str:
    if value is _NOT_THERE:
        return "nothing"
    text = str(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:12]}…"
