"""Find the base of an adapter: at the place that was given, or by its model id in the local hub cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sqlquarry.errors import MergeError
from sqlquarry.files.locations import is_hub_id, is_s3


def locate_base(base_model: str | Path | None, trained_on: Mapping[str, str]) -> str | Path:
    """Return the directory or ``s3://`` prefix of the base.

    Args:
        base_model: directory, ``s3://`` prefix or hub id; None takes the one that was trained on.
        trained_on: `path` and `name` of the base as training recorded them. If the path is gone (another machine), a
            hub id is looked up in the hub cache, and an ``s3://`` prefix is read there.

    Raises:
        MergeError: a hub id that is not in the local cache.
    """
    if base_model is not None:
        return _cached(str(base_model)) if is_hub_id(base_model) else base_model
    if not Path(trained_on["path"]).exists():
        if is_s3(trained_on["name"]):
            return trained_on["name"]
        if is_hub_id(trained_on["name"]):
            return _cached(trained_on["name"])
    return trained_on["path"]


def _cached(model_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model_id, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise MergeError(
            f"{model_id} is neither a directory nor in the local hub cache, and merging downloads nothing. Run: "
            f"hf download {model_id}. Or pass the base's place: AdapterMerger(base_model=...)."
        ) from error
