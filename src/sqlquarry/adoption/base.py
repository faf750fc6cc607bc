"""Open the 16-bit base model of an adapter by its headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.adoption.adapter_files import adopting
from sqlquarry.errors import AdoptionError, MergeError, MetadataError, UnsupportedModelError
from sqlquarry.files.locations import S3Location, is_hub_id, located
from sqlquarry.files.metadata import parse_object
from sqlquarry.merging.base_checkpoint import BaseCheckpoint, locate_base
from sqlquarry.merging.storage.opening import open_storage
from sqlquarry.merging.storage.protocols import Storage
from sqlquarry.merging.tensor_file import StoredTensor

if TYPE_CHECKING:
    import boto3


@dataclass(frozen=True, slots=True)
class AdapterBase:
    """The base model of an adapter.

    Args:
        name: its hub id or URI, or its absolute path.
        path: its absolute path, or its URI on S3.
        checkpoint: its configuration and the headers of its weights.
    """

    name: str
    path: str
    checkpoint: BaseCheckpoint

    @classmethod
    def open(cls, base_model: str | Path, session: boto3.Session | None) -> AdapterBase:
        """Find a base and read its headers.

        Raises:
            ConfigError: `base_model` is not a location.
            AdoptionError: the location has no base model.
            UnsupportedModelError: it is quantized, has no tokenizer, or its files are damaged.
        """
        located(base_model)  # refuses what is not a location
        try:
            location = located(locate_base(base_model, {}))
        except MergeError as error:
            raise AdoptionError(
                f"base_model {str(base_model)!r:.200} is neither a directory nor in the local hub cache, and models "
                f"are not downloaded here. Run `hf download {base_model}`, or pass a directory or an s3:// prefix."
            ) from error
        with adopting(f"the base at {location} cannot be used"):
            checkpoint = _checkpoint(open_storage(str(location), session), str(location))
        path = str(location) if isinstance(location, S3Location) else str(location.resolve())
        return cls(str(base_model) if is_hub_id(base_model) else path, path, checkpoint)

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """All tensors by name."""
        return self.checkpoint.tensors


def _checkpoint(storage: Storage, place: str) -> BaseCheckpoint:
    names = storage.sizes()
    if not names:
        raise AdoptionError(f"{place} has no base model: {storage.why_empty()} Pass the 16-bit base.")
    for name in ("config.json", "tokenizer.json"):
        if name not in names:
            raise UnsupportedModelError(
                f"the base at {place} has no {name}. Save the model and its fast tokenizer there, with save_pretrained "
                "of transformers."
            )
    _refuse_quantized(storage.read("config.json"), place)
    return BaseCheckpoint.open(storage)


def _refuse_quantized(content: bytes, place: str) -> None:
    try:
        settings = parse_object(content, "config.json").get("quantization_config")
    except MetadataError as error:
        raise UnsupportedModelError(f"the base at {place} cannot be read ({error}). Download it again.") from error
    if settings:
        shown: Mapping[str, object] = settings if isinstance(settings, dict) else {}
        kind = "4-bit" if shown.get("load_in_4bit") or shown.get("_load_in_4bit") else "quantized"
        advice = " and its quantization_config as quantization" if kind == "4-bit" else ""
        raise UnsupportedModelError(
            f"the base at {place} is itself {kind} ({shown.get('quant_method', settings)!r:.80}), so a merge would "
            f"round the update away. Pass the 16-bit original as base_model{advice}."
        )
