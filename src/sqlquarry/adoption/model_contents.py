"""Recognize by the names of files what a directory contains that is not a model in transformers' format."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from sqlquarry.bedrock.stored_merge import STATE as EXPORT_STATE
from sqlquarry.errors import AdoptionError
from sqlquarry.manifests import MANIFEST, MERGE_STATE
from sqlquarry.text import first_of

_ADAPTER = re.compile(r"adapter_(config\.json|model\.(safetensors|bin))")
_NOT_WEIGHTS = ("adapter_model", "consolidated", "model-rank-", "optimizer")  # safetensors files of other formats
_SAVE = "Load it with transformers and call save_pretrained(NEW_DIRECTORY), which writes safetensors"
# The formats of vLLM's save_sharded_state, of PyTorch's distributed checkpoints (which FSDP writes) and of DeepSpeed.
_PARTS = {
    r"model-rank-\d+-part-\d+\.safetensors": "shards of vLLM (save_sharded_state). Use the model that vLLM has loaded",
    r"(.*/)?(__\d+_\d+\.distcp|\.metadata)": "an FSDP checkpoint. Convert it: accelerate merge-weights DIRECTORY NEW",
    r"(global_step\d+/.*|.*_(model|optim)_states\.pt)": (
        "a DeepSpeed checkpoint. Convert it: python zero_to_fp32.py DIRECTORY NEW --safe_serialization"
    ),
}
_OTHER_FORMATS = {
    r".*\.gguf": (
        "GGUF, which Bedrock does not import and whose weights are usually rounded. Use the 16-bit safetensors of the "
        "same model (Unsloth: save_pretrained_merged(NEW_DIRECTORY, tokenizer, save_method='merged_16bit'))"
    ),
    r"(original/)?(consolidated\..*|params\.json)": (
        "the publisher's own format (consolidated.*). Use the model in transformers' format, with config.json and "
        "model*.safetensors"
    ),
    r".*\.(bin|pt|pth|ckpt)": f"pickles, which can execute code and are never loaded. {_SAVE}",
    r".*\.(h5|msgpack|onnx|npz)": f"weights of another framework. {_SAVE}",
    r".*\.(tar|tar\.gz|tgz|zip)": "an archive. Unpack it first",
}


def require_model(names: Collection[str], location: object) -> None:
    """Check that a directory contains one full model, by the names of its files.

    Args:
        names: the files of the directory and of its folders.
        location: the directory or prefix, for messages.

    Raises:
        AdoptionError: it contains an adapter, no model, an unfinished one, or a model in another format.
    """
    for find in (_adapter, _unfinished, _no_weights, _no_config):
        for problem in find(names):
            raise AdoptionError(f"{location} {problem}.")


def _adapter(names: Collection[str]) -> Iterator[str]:
    adapters = [name for name in names if _ADAPTER.fullmatch(name)]
    if adapters and _weights(names):
        yield (
            f"contains both a model and an adapter ({adapters[0]}), and transformers would silently apply that adapter "
            "to the model. If the adapter is already merged, move its files away. Otherwise adopt it in a directory "
            "of its own with sq.adopt_adapter"
        )
    elif adapters:
        # `axolotl merge-lora` writes the model into a folder of the adapter's directory.
        models = _folders(names, "config.json")
        hint = f". There is a model in its folder {first_of(models, 1)}, which you can pass" if models else ""
        yield (
            f"contains an adapter ({adapters[0]}), not a full model. Call sq.adopt_adapter(…, base_model=…), or merge "
            f"the adapter first{hint}"
        )


def _unfinished(names: Collection[str]) -> Iterator[str]:
    if MANIFEST in names:
        return
    if MERGE_STATE in names:
        yield f"contains an unfinished merge of AdapterMerger ({MERGE_STATE}). Run the same merge again"
    if EXPORT_STATE in names:
        yield f"contains an unfinished import ({EXPORT_STATE}). Run import_model again"


def _no_weights(names: Collection[str]) -> Iterator[str]:
    if _weights(names):
        return
    yield from _matching(names, _PARTS, lambda _: True)
    yield from _nested(names)
    yield from _matching(names, _OTHER_FORMATS, lambda name: "/" not in name or name.startswith("original/"))
    found = f"only {first_of(sorted(names))}" if names else "no files"
    yield (
        f"contains neither a model nor an adapter, but {found}. Pass the directory with config.json, the tokenizer and "
        "model*.safetensors"
    )


def _no_config(names: Collection[str]) -> Iterator[str]:
    if "config.json" not in names:
        yield (
            f"contains {first_of(_weights(names), 1)}, but no config.json, which describes the weights. Copy "
            "config.json and the tokenizer from the model that was trained"
        )


def _nested(names: Collection[str]) -> Iterator[str]:
    """Yield the problem of a directory whose folders contain models or adapters."""
    adapters, models = _folders(names, "adapter_config.json"), _folders(names, "config.json")
    if models:
        yield f"has no model of its own, but there are some in its folders: {first_of(models)}. Pass one of them"
    elif adapters:
        yield (
            f"has no model, but there are adapters in its folders: {first_of(adapters)}. Call sq.adopt_adapter with one"
        )


def _folders(names: Collection[str], file: str) -> list[str]:
    """Return the folders that contain a file, newest checkpoint first."""
    return sorted({name.rpartition("/")[0] for name in names if name.endswith(f"/{file}")}, key=_number)


def _number(folder: str) -> tuple[int, str]:
    """Return a key that sorts checkpoint-1000 before checkpoint-500, and folders without a number first."""
    digits = re.search(r"\d+$", folder)
    return (-int(digits[0]) if digits else -(1 << 62), folder)


def _matching(names: Collection[str], patterns: dict[str, str], use: Callable[[str], bool]) -> Iterator[str]:
    for pattern, described in patterns.items():
        for name in sorted(names):
            if use(name) and re.fullmatch(pattern, name):
                yield f"contains {name}, which is {described}"


def _weights(names: Collection[str]) -> list[str]:
    """Return the safetensors files that may contain a model in transformers' format."""
    return sorted(
        name
        for name in names
        if name.endswith(".safetensors") and "/" not in name and not name.startswith(_NOT_WEIGHTS)
    )
