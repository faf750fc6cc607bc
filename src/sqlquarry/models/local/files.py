"""The files of a local model: a folder, a copy of an S3 prefix, or the base that an adapter was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import AdapterCheckpoint, base_digest
from sqlquarry.aws.artifacts import fetch_model
from sqlquarry.errors import UnsupportedModelError
from sqlquarry.files.locations import S3Location, is_s3, located


def local_copy(location: str | Path | S3Location, session: Any) -> Path:
    """Return the folder of a model; one on S3 is copied to ``~/.cache/sqlquarry`` once.

    Raises:
        UnsupportedModelError: the prefix cannot be read.
    """
    place = located(location)
    return fetch_model(place, UnsupportedModelError, session=session) if isinstance(place, S3Location) else place


def base_of(adapter: AdapterCheckpoint, base_model: str | Path | None, session: Any) -> Path:
    """Return the folder of the base that an adapter was trained on.

    Args:
        adapter: what the trainer wrote.
        base_model: where the base is now; None takes the place where training found it.
        session: the boto3 session for a base on S3; None takes the default credentials.

    Raises:
        UnsupportedModelError: it is not there, or is another base.
    """
    there = adapter.base_model_path if base_model is None else base_model
    if base_model is None and is_s3(adapter.base_model) and not adapter.base_model_path.exists():
        there = adapter.base_model
    base = local_copy(there, session)
    advice = "Give the directory of the base that it was trained on: LocalModel.from_adapter(adapter, base_model=...)."
    if not base.is_dir():
        raise UnsupportedModelError(f"the base model of the adapter in {adapter.path} is not at {base}. {advice}")
    origin = adapter.manifest.provenance.get("base_model")
    trained_on = str(origin.get("sha256")) if isinstance(origin, Mapping) else "unknown"
    if base_model is not None and (found := base_digest(base)) != trained_on:
        raise UnsupportedModelError(
            f"the base model at {base} (SHA-256 {found[:12]}…) is not the one that the adapter in {adapter.path} was "
            f"trained on ({trained_on[:12]}…, {adapter.base_model}). {advice}"
        )
    return base
