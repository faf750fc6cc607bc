"""Check that an adapter was trained on a base, from names and shapes and from the copies of tables that it contains."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sqlquarry.adoption.adapter_files import adopting
from sqlquarry.adoption.base import AdapterBase
from sqlquarry.adoption.tensors import AdapterTensor, AdapterTensors
from sqlquarry.checkpoints.adapter_tables import EMBEDDING, PEFT_PREFIX
from sqlquarry.errors import AdoptionError
from sqlquarry.files.locations import is_hub_id
from sqlquarry.files.metadata import JsonObject
from sqlquarry.merging.lora_adapter import LoraAdapter
from sqlquarry.merging.plan import MergePlan, plan_merge
from sqlquarry.merging.tensor_file import StoredTensor

_HEAD = "lm_head"
_COPIED = re.compile(r"(.+?)(?:\.original_module|\.token_adapter\.base_layer|\.base_layer)?\.weight")
_FACTOR = re.compile(r".+\.lora_[AB]")
_FOUR_BIT_NAME = re.compile(r"(?:-unsloth)?-bnb-4bit$")
# Fields of adapter_config.json with which only some of the target modules are trained.
_SELECTIONS = ("layers_to_transform", "exclude_modules")
# Rounding to bfloat16, and the smallest magnitudes of float16.
_RELATIVE, _ABSOLUTE = 2**-7, 1e-6
_ROWS_AT_ONCE = 4096
_CHANGED_ROWS = 0.1  # Axolotl's fix_untrained_tokens changes some rows of the base's embedding before training


def require_fit(directory: Path, tensors: AdapterTensors, base: AdapterBase) -> MergePlan:
    """Check by headers that an adapter was trained on a base, and that all of it was saved. Return the merge's plan.

    Args:
        directory: the adapter in normal form.
        tensors: its tensors.
        base: the base.

    Raises:
        UnsupportedAdapterError: an update cannot be expressed as a weight.
        AdoptionError: the adapter does not fit. The message says why.
    """
    with adopting(f"the adapter does not fit the base at {base.path}"):
        adapter = LoraAdapter.open(directory)
    _require_name(adapter.config.get("base_model_name_or_path"), base)
    with adopting(f"the adapter does not fit the base at {base.path}"):
        plan = plan_merge([(adapter, 1.0)], base.tensors, tied=base.checkpoint.tied)
    _require_saved_modules(adapter.config, tensors, base)
    _require_target_modules(adapter.config, tensors, base)
    return plan


def require_one_head(base: AdapterBase) -> None:
    """Refuse a base whose config.json ties the head to the embedding although it has another head.

    transformers 4 ties the two, and transformers 5 does not (modeling_utils.py, `tie_weights`). So it is unknown with
    which head the adapter was trained.

    Raises:
        AdoptionError: the two differ.
    """
    head, embedding = base.tensors.get(f"{_HEAD}.weight"), base.tensors.get(f"{_embedding(base)}.weight")
    if not base.checkpoint.tied or head is None or embedding is None:
        return
    if share := _different_rows(AdapterTensor(head.dtype, head.shape, head.load), embedding):
        raise AdoptionError(
            f"tie_word_embeddings is true in config.json of the base at {base.path}, but {head.name} differs from "
            f"{embedding.name} in {share:.0%} of the rows, and versions of transformers disagree which is used. Set "
            f"tie_word_embeddings to false if the training used {head.name}. Otherwise remove that tensor."
        )


def require_same_tables(config: JsonObject, tensors: AdapterTensors, base: AdapterBase) -> None:
    """Compare the copies of the base's embedding and head in an adapter with the base, row by row.

    Args:
        config: content of adapter_config.json.
        tensors: the adapter's tensors.
        base: the base. If the vocabulary was resized, only the common rows are compared.

    Raises:
        AdoptionError: more than a tenth of the rows differ by more than rounding.
    """
    embedding = _embedding(base)
    tied = base.checkpoint.tied and config.get("ensure_weight_tying")
    for name, tensor in {**tensors.used, **tensors.frozen}.items():
        module = _module(name)
        if module is None:
            continue
        source = embedding if module == _HEAD else module
        trained = _is_trained(module, config) or (tied and _is_trained(source, config))
        if name == f"{PEFT_PREFIX}{module}.weight" and trained:
            continue
        stored = base.tensors.get(f"{module}.weight") or base.tensors.get(f"{source}.weight")
        if stored is None or len(stored.shape) != 2 or stored.shape[1:] != tensor.shape[1:]:
            continue
        if (share := _different_rows(tensor, stored)) > _CHANGED_ROWS:
            raise AdoptionError(
                f"the adapter was trained on another base than {base.path}: its copy {name} differs from the base's "
                f"{stored.name} in {share:.0%} of the rows. Pass the base of the training."
            )


def model_name(hub_id: str) -> str:
    """Return the part of a hub id that copies of a model by other owners share, in lower case."""
    name = hub_id.rpartition("/")[2].lower()
    return _FOUR_BIT_NAME.sub("", name).removeprefix("meta-")


def _require_name(trained_on: object, base: AdapterBase) -> None:
    if not (isinstance(trained_on, str) and is_hub_id(trained_on) and is_hub_id(base.name)):
        return
    if model_name(trained_on) != model_name(base.name):
        raise AdoptionError(
            f"the adapter was trained on {trained_on}, but base_model is {base.name}. Pass the 16-bit original of "
            f"{trained_on}. If it is the same model under another name, pass its directory."
        )


def _require_saved_modules(config: JsonObject, tensors: AdapterTensors, base: AdapterBase) -> None:
    """Check that every trained module was saved. Axolotl's FSDP2 saves only the factors of LoRA."""
    for entry in _names(config, "modules_to_save"):
        part = f".{entry}."
        in_base = any(part in f".{name}" for name in (*base.tensors, f"{_HEAD}.weight"))
        tied = entry == _HEAD and base.checkpoint.tied and config.get("ensure_weight_tying")
        if in_base and not tied and not any(part in f".{name.removeprefix(PEFT_PREFIX)}" for name in tensors.used):
            raise AdoptionError(
                f"modules_to_save of the adapter contains {entry!r:.80}, but the file has no tensor of it. Save the "
                "adapter again with model.save_pretrained of PEFT, from the gathered model."
            )


def _require_target_modules(config: JsonObject, tensors: AdapterTensors, base: AdapterBase) -> None:
    """Check that no layer was lost, as when each process of a training saves only its part."""
    if any(config.get(field) for field in _SELECTIONS) or isinstance(config.get("target_modules"), str):
        return
    targets = tuple(f".{name}.weight" for name in _names(config, "target_modules"))
    wanted = [
        name.removesuffix(".weight")
        for name, tensor in base.tensors.items()
        if len(tensor.shape) == 2 and ".experts." not in name and f".{name}".endswith(targets)
    ]
    # transformers 5 and Mixtral's checkpoints use different names for the block of experts.
    saved = {name.removeprefix(PEFT_PREFIX).partition(".lora_")[0] for name in tensors.used if ".lora_" in name}
    lost = [name for name in wanted if not {name, name.replace(".block_sparse_moe.", ".mlp.")} & saved]
    if lost:
        raise AdoptionError(
            f"target_modules of the adapter covers {len(wanted)} modules of the base, but the file has no tensors of "
            f"{len(lost)} of them, for example {lost[0]}. Save the adapter again from the gathered model."
        )


def _embedding(base: AdapterBase) -> str:
    """Return the name of the embedding in the base, or "" if it has none of a known name."""
    return next((name.removesuffix(".weight") for name in base.tensors if EMBEDDING.fullmatch(name)), "")


def _is_trained(module: str, config: JsonObject) -> bool:
    """Return whether modules_to_save contains a module or one around it. PEFT compares the ends of their names."""
    return any(f"{entry}." in f"{module}." for entry in _names(config, "modules_to_save"))


def _module(name: str) -> str | None:
    """Return the module in the base whose weight a tensor of the adapter replaces or copies, or None."""
    match = _COPIED.fullmatch(name.removeprefix(PEFT_PREFIX))
    return match[1] if match and not _FACTOR.fullmatch(match[1]) else None


def _names(config: JsonObject, field: str) -> Iterator[str]:
    """Yield the names in a field of adapter_config.json that contains a list, or nothing if it has another type."""
    value = config.get(field)
    yield from (name for name in value if isinstance(name, str)) if isinstance(value, list) else ()


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
