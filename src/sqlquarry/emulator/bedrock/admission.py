"""Check the files of a model as Custom Model Import does, and rewrite them for its version of transformers.

Rules: "Use Custom model import to import a customized open-source model into Amazon Bedrock" (Bedrock user guide).
AWS publishes no list of failure messages, so the texts are this emulator's own, except for "could not find the expected
file", which users report.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from sqlquarry.checkpoints.foreign_model import MODEL_TYPES, refuse_foreign_code
from sqlquarry.checkpoints.safetensors_header import INDEX, parse_index, read_header
from sqlquarry.errors import ConfigError, MetadataError, UnsupportedModelError
from sqlquarry.files.metadata import read_bytes, read_object
from sqlquarry.tokenizing.added_tokens import token_text
from sqlquarry.tokenizing.readings import served_reading
from sqlquarry.tokenizing.rendering import require_bounded
from sqlquarry.tokenizing.tokenizer_files import SERVED_TOKENIZERS, TokenizerFiles

# `architectures[0]` -> value of modelArchitecture. The service also accepts GPT-OSS, which needs MXFP4 kernels that
# this emulator does not have.
ARCHITECTURES = {name: kind for name, kind in MODEL_TYPES.items() if name != "GptOssForCausalLM"}
# "Invoke your imported model" lists Qwen2.5, Qwen2-VL, Qwen2.5-VL, Qwen3 and GPT-OSS. Qwen2 is treated like Qwen2.5.
_WITHOUT_CONVERSE = {"qwen2", "qwen2_vl", "qwen2_5_vl", "qwen3", "qwen3_moe"}
WEIGHT_DTYPES = {"F32", "F16", "BF16"}

# "Amazon Bedrock overrides llama3 rope_scaling" with these values (same page).
_LLAMA3_SCALING = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


class ImportFailedError(Exception):
    """The import job ends Failed. The message is its failureMessage."""


class AdmittedModel(NamedTuple):
    """Properties of an accepted model.

    Args:
        converses: whether the model supports Converse. Its family must support it, and it must have a chat template.
    """

    architecture: str
    weight_bytes: int
    context_tokens: int | None
    converses: bool = False


def admit(directory: Path) -> AdmittedModel:
    """Check the files of a model as an import job does, then rewrite them to what transformers 4.51.3 would read.

    Raises:
        ImportFailedError: a file is missing or invalid. The message names it.
    """
    config = _read_json(directory, "config.json")
    tokenizer_config = _read_json(directory, "tokenizer_config.json")
    if adapter := sorted(path.name for path in directory.glob("adapter_*")):
        raise ImportFailedError(
            f"{adapter[0]} belongs to an adapter. Merge the adapter into its base model, then import the merged model"
        )
    _read_json(directory, "tokenizer.json")
    names = config.get("architectures")
    architecture = str(names[0]) if isinstance(names, list) and names else "none"
    if architecture not in ARCHITECTURES:
        raise ImportFailedError(
            f"unsupported model architecture {architecture} (supported: {', '.join(sorted(ARCHITECTURES))})"
        )
    if "quantization_config" in config:
        raise ImportFailedError("config.json contains quantization_config, but quantized weights cannot be imported")
    _check_tokenizer(tokenizer_config)
    try:
        refuse_foreign_code(directory)
        for template in _templates(tokenizer_config):
            require_bounded(template, _special_tokens(tokenizer_config), date="26 Jul 2024")
    except (UnsupportedModelError, ConfigError) as error:
        raise ImportFailedError(str(error)) from error
    _check_reading(directory)
    weight_bytes = _check_weights(directory)
    (directory / "config.json").write_text(json.dumps(as_transformers_4_51(config)))
    # The service renders `messages` with the template inside tokenizer_config.json ("Invoke your imported model").
    for separate in directory.glob("chat_template.*"):
        separate.unlink()
    context = config.get("max_position_embeddings")
    name = ARCHITECTURES[architecture]
    converses = name not in _WITHOUT_CONVERSE and bool(_templates(tokenizer_config))
    return AdmittedModel(name, weight_bytes, context if type(context) is int else None, converses)


def as_transformers_4_51(config: dict[str, object]) -> dict[str, object]:
    """Return the settings that transformers 4.51.3 would use for a config.json, with keys that all versions support.

    Version 4.51.3 silently ignores `rope_parameters` and `dtype`, so theta falls back to its default.
    """
    seen = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype")}
    if "rope_parameters" in config:
        seen.setdefault("rope_theta", 1e6 if config.get("model_type") == "mixtral" else 10_000.0)
    scaling = seen.get("rope_scaling")
    if isinstance(scaling, dict) and scaling.get("rope_type", scaling.get("type")) == "llama3":
        seen["rope_scaling"] = _LLAMA3_SCALING
    return seen


def _check_tokenizer(config: dict[str, object]) -> None:
    name = config.get("tokenizer_class")
    if not isinstance(name, str) or name.removesuffix("Fast") not in SERVED_TOKENIZERS:
        raise ImportFailedError(f"unsupported tokenizer class {name}, which transformers 4.51.3 does not have")
    if isinstance(config.get("extra_special_tokens"), list):
        raise ImportFailedError(
            "tokenizer_config.json contains extra_special_tokens as a list, which transformers 4.51.3 cannot read "
            "('list' object has no attribute 'keys')"
        )


def _check_reading(directory: Path) -> None:
    try:
        served_reading(TokenizerFiles.in_directory(directory))
    except UnsupportedModelError as error:
        raise ImportFailedError(f"the tokenizer cannot be loaded: {error}") from error
    except (OSError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ImportFailedError(f"the tokenizer files are malformed ({error})") from error


def _templates(config: dict[str, object]) -> list[str]:
    """Return the chat templates in tokenizer_config.json, which may contain one template or several named ones."""
    found = config.get("chat_template")
    named = [one.get("template") if isinstance(one, dict) else None for one in found] if isinstance(found, list) else []
    return [template for template in (found, *named) if isinstance(template, str)]


def _special_tokens(config: dict[str, object]) -> dict[str, str]:
    """Return bos_token, eos_token, … as text."""
    return {key: text for key in config if key.endswith("_token") and (text := token_text(config[key]))}


def _check_weights(directory: Path) -> int:
    shards = sorted(path.name for path in directory.glob("*.safetensors"))
    if not shards:
        raise ImportFailedError("could not find the expected file model.safetensors")
    found: dict[str, str] = {}
    for shard in shards:
        for tensor in _check_safetensors(directory / shard):
            if found.setdefault(tensor, shard) != shard:
                raise ImportFailedError(f"size mismatch for {tensor}: {found[tensor]} and {shard} both contain it")
    if len(shards) > 1 or (directory / INDEX).exists():
        try:
            weight_map = parse_index(read_bytes(directory / INDEX))
        except FileNotFoundError as error:
            raise ImportFailedError(f"could not find the expected file {INDEX}") from error
        except (OSError, MetadataError) as error:
            raise ImportFailedError(str(error)) from error
        if absent := sorted(set(weight_map.values()) - set(shards)):
            raise ImportFailedError(f"could not find the expected file {absent[0]}, which {INDEX} names")
        if lost := sorted(set(weight_map) - found.keys()):
            raise ImportFailedError(f"{INDEX} names the tensor {lost[0]}, but no file contains it")
    return sum((directory / shard).stat().st_size for shard in shards)


def _check_safetensors(path: Path) -> list[str]:
    """Return the tensor names of a file, and check that its size matches its header."""
    try:
        tensors = read_header(path).tensors
    except (OSError, MetadataError) as error:
        raise ImportFailedError(str(error)) from error
    if odd := sorted({tensor.dtype for tensor in tensors.values()} - WEIGHT_DTYPES):
        raise ImportFailedError(
            f"{path.name} contains {odd[0]} tensors, but only {', '.join(sorted(WEIGHT_DTYPES))} can be imported"
        )
    return list(tensors)


def _read_json(directory: Path, name: str) -> dict[str, object]:
    try:
        return read_object(directory / name)
    except FileNotFoundError as error:
        raise ImportFailedError(f"could not find the expected file {name}") from error
    except (OSError, MetadataError) as error:
        raise ImportFailedError(str(error)) from error
