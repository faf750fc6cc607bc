"""Open the 16-bit base model of an adapter, and check whether the adapter fits it. Only headers and tables are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.adoption.adapter_files import adopting
from sqlquarry.adoption.tensors import AdapterTensor, AdapterTensors
from sqlquarry.errors import AdoptionError, MergeError, MetadataError, UnsupportedModelError
from sqlquarry.files.locations import S3Location, is_hub_id, located
from sqlquarry.files.metadata import JsonObject, parse_object
from sqlquarry.merging.base_checkpoint import BaseCheckpoint, locate_base
from sqlquarry.merging.lora_adapter import LoraAdapter
from sqlquarry.merging.plan import plan_merge
from sqlquarry.merging.storage.opening import open_storage
from sqlquarry.merging.storage.protocols import Storage
from sqlquarry.merging.tensor_file import StoredTensor

if TYPE_CHECKING:
    import boto3

_PREFIX = "base_model.model."
_TABLE = re.compile(r"(.+\.)?(embed_tokens|lm_head)")
_COPIED = re.compile(r"(.+?)(?:\.original_module|\.token_adapter\.base_layer|\.base_layer)?\.weight")
_FOUR_BIT_NAME = re.compile(r"(?:-unsloth)?-bnb-4bit$")
# Rounding to bfloat16, and the smallest magnitudes of float16.
_RELATIVE, _ABSOLUTE = 2**-7, 1e-6
_ROWS_AT_ONCE = 4096
# Axolotl's fix_untrained_tokens changes some rows of the base's embedding before training.
_CHANGED_ROWS = 0.1


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
            AdoptionError: there is no base at this location.
            UnsupportedModelError: it is quantized, has no tokenizer, or its files are damaged.
        """
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

    def require_fit(self, directory: Path, tensors: AdapterTensors) -> None:
        """Check that an adapter was trained on this base, as far as names, shapes and copies of tables show.

        Args:
            directory: the adapter in normal form.
            tensors: its tensors.

        Raises:
            UnsupportedAdapterError: an update cannot be expressed as a weight.
            AdoptionError: the adapter does not fit. The message says why.
        """
        with adopting(f"the adapter does not fit the base at {self.path}"):
            adapter = LoraAdapter.open(directory)
        self._require_name(adapter.config.get("base_model_name_or_path"))
        self._require_saved_modules(adapter.config, tensors)
        with adopting(f"the adapter does not fit the base at {self.path}"):
            plan_merge([(adapter, 1.0)], self.tensors, tied=self.checkpoint.tied)
        self._require_same_tables(adapter.config, tensors)

    def rows(self, tensors: AdapterTensors | None = None) -> int:
        """Return the number of rows of the embedding and head, with the tables of an adapter if one is given.

        Raises:
            AdoptionError: the two have different numbers of rows.
        """
        found: dict[str, int] = {}
        shapes = {_PREFIX + name: tensor.shape for name, tensor in self.tensors.items()}
        shapes |= {name: tensor.shape for name, tensor in tensors.used.items()} if tensors else {}
        for name, shape in shapes.items():
            module = _module(name)
            if module and len(shape) == 2 and _TABLE.fullmatch(module):
                found[module] = shape[0]
        if len(set(found.values())) != 1:
            raise AdoptionError(
                f"with the adapter, the embedding and the head have different numbers of rows: {found}. The adapter's "
                "vocabulary was resized, and only one of the two was saved. Save the adapter again with "
                "save_embedding_layers=True."
            )
        return found.popitem()[1]

    def _require_name(self, trained_on: object) -> None:
        if not (isinstance(trained_on, str) and is_hub_id(trained_on) and is_hub_id(self.name)):
            return
        if model_name(trained_on) != model_name(self.name):
            raise AdoptionError(
                f"the adapter was trained on {trained_on}, but base_model is {self.name}. Pass the 16-bit original of "
                f"{trained_on}. If it is the same model under another name, pass its directory."
            )

    def _require_saved_modules(self, config: JsonObject, tensors: AdapterTensors) -> None:
        """Check that every trained module was saved. Axolotl's FSDP2 saves only the factors of LoRA."""
        for entry in config.get("modules_to_save") or ():
            part = f".{entry}."
            in_base = any(part in f".{name}" for name in (*self.tensors, "lm_head.weight"))
            tied = entry == "lm_head" and self.checkpoint.tied and config.get("ensure_weight_tying")
            if in_base and not tied and not any(part in f".{name.removeprefix(_PREFIX)}" for name in tensors.used):
                raise AdoptionError(
                    f"modules_to_save of the adapter contains {entry!r:.80}, but the file has no tensor of it. Save "
                    "the adapter again with model.save_pretrained of PEFT, from the gathered model."
                )

    def _require_same_tables(self, config: JsonObject, tensors: AdapterTensors) -> None:
        """Compare the copies of the base's tables in the adapter with the base, row by row."""
        trained = {str(entry) for entry in config.get("modules_to_save") or ()}
        if self.checkpoint.tied and config.get("ensure_weight_tying"):  # the head is the trained embedding
            trained |= {"lm_head"} if "embed_tokens" in trained else set()
        for name, tensor in {**tensors.used, **tensors.frozen}.items():
            module = _module(name)
            plain = name == f"{_PREFIX}{module}.weight"
            if module is None or len(tensor.shape) != 2 or (plain and module.rpartition(".")[2] in trained):
                continue
            stored = self.tensors.get(f"{module}.weight") or self._tied_table(module)
            if stored is None or stored.shape[1:] != tensor.shape[1:]:
                continue
            if (share := _different_rows(tensor, stored)) > _CHANGED_ROWS:
                raise AdoptionError(
                    f"the adapter was trained on another base than {self.path}: its copy {name} differs from the "
                    f"base's {stored.name} in {share:.0%} of the rows. Pass the base of the training."
                )

    def _tied_table(self, module: str) -> StoredTensor | None:
        return self.tensors.get("model.embed_tokens.weight") if module == "lm_head" else None


def model_name(hub_id: str) -> str:
    """Return the part of a hub id that copies of a model by other owners share, in lower case."""
    name = hub_id.rpartition("/")[2].lower()
    return _FOUR_BIT_NAME.sub("", name).removeprefix("meta-")


def _module(name: str) -> str | None:
    """Return the module in the base whose weight a tensor of the adapter replaces or copies, or None."""
    match = _COPIED.fullmatch(name.removeprefix(_PREFIX))
    return match[1] if match and not re.search(r"\.lora_[AB]$", match[1]) else None


def _different_rows(copy: AdapterTensor, stored: StoredTensor) -> float:
    """Return the share of the common rows that differ by more than rounding."""
    import torch

    values = copy.load()
    rows = min(len(values), stored.shape[0])
    different = 0
    for start in range(0, rows, _ROWS_AT_ONCE):
        stop = min(rows, start + _ROWS_AT_ONCE)
        of_base = stored.load(slice(start, stop)).float()
        same = torch.isclose(values[start:stop].float(), of_base, rtol=_RELATIVE, atol=_ABSOLUTE)
        different += int((~same.all(dim=1)).sum())
    return different / max(rows, 1)


def _checkpoint(storage: Storage, place: str) -> BaseCheckpoint:
    names = storage.sizes()
    if not names:
        raise AdoptionError(f"there is no base model at {place}: {storage.why_empty()} Pass the 16-bit base.")
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
