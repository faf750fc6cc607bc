"""What Custom Model Import accepts, and how its transformers version reads it.

Rules: "Use Custom model import to import a customized open-source model into Amazon Bedrock" (Bedrock user guide).
No catalogue of the service's failure messages is public, so the texts here are ours, except "could not find the
expected file", which users report.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

from sqlquarry.errors import ConfigError, UnsupportedModelError
from sqlquarry.foreign_model import refuse_foreign_code
from sqlquarry.rendering import require_bounded

# `architectures[0]` -> the value of modelArchitecture. GPT-OSS, which the service takes too, needs MXFP4 kernels that
# this emulator has not.
ARCHITECTURES = {
    "GPTBigCodeForCausalLM": "gpt_bigcode",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
    "MllamaForConditionalGeneration": "mllama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen2VLForConditionalGeneration": "qwen2_vl",
    "Qwen2_5_VLForConditionalGeneration": "qwen2_5_vl",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "T5ForConditionalGeneration": "t5",
}
TOKENIZERS = {
    f"{family}Tokenizer{speed}"
    for family in ("T5", "Llama", "CodeLlama", "GPT2", "GPTNeoX", "Qwen2")
    for speed in ("", "Fast")
} | {"PreTrainedTokenizer", "PreTrainedTokenizerFast"}
WEIGHT_DTYPES = {"F32", "F16", "BF16"}

INDEX = "model.safetensors.index.json"
_HEADER_LIMIT_BYTES = 100_000_000  # safetensors' own limit (its README, "Format")

# "Amazon Bedrock overrides llama3 rope_scaling" with these (same page).
_LLAMA3_SCALING = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


class ImportFailedError(Exception):
    """The import job ends Failed; the message is its failureMessage."""


class Admitted(NamedTuple):
    """What the emulator needs to know of an accepted model."""

    architecture: str
    weight_bytes: int
    context_tokens: int | None


def admit(directory: Path) -> Admitted:
    """Check the files of a model as an import job does, then leave them as transformers 4.51.3 would read them.

    Raises:
        ImportFailedError: the message says which file is wrong and how.
    """
    config = _read_json(directory, "config.json")
    tokenizer_config = _read_json(directory, "tokenizer_config.json")
    if adapter := sorted(path.name for path in directory.glob("adapter_*")):
        raise ImportFailedError(f"{adapter[0]} belongs to an adapter: merge it into its base model, then import that")
    _read_json(directory, "tokenizer.json")
    architecture = (config.get("architectures") or ["none"])[0]
    if architecture not in ARCHITECTURES:
        raise ImportFailedError(
            f"unsupported model architecture {architecture}: supported are {', '.join(sorted(ARCHITECTURES))}"
        )
    if "quantization_config" in config:
        raise ImportFailedError("config.json holds quantization_config: quantized weights cannot be imported")
    _check_tokenizer(tokenizer_config)
    try:
        refuse_foreign_code(directory)
        for template in _templates(tokenizer_config):
            require_bounded(template, _special_tokens(tokenizer_config), date="26 Jul 2024")
    except (UnsupportedModelError, ConfigError) as error:
        raise ImportFailedError(str(error)) from error
    weight_bytes = _check_weights(directory)
    (directory / "config.json").write_text(json.dumps(as_transformers_4_51(config)))
    # The service renders `messages` with the template inside tokenizer_config.json ("Invoke your imported model").
    for separate in directory.glob("chat_template.*"):
        separate.unlink()
    return Admitted(ARCHITECTURES[architecture], weight_bytes, config.get("max_position_embeddings"))


def as_transformers_4_51(config: dict[str, Any]) -> dict[str, Any]:
    """What transformers 4.51.3 makes of a config.json, in keys that any version reads.

    It knows neither `rope_parameters` nor `dtype` and passes over them silently, so theta falls back to its default.
    """
    seen = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype")}
    if "rope_parameters" in config:
        seen.setdefault("rope_theta", 1e6 if config.get("model_type") == "mixtral" else 10_000.0)
    scaling = seen.get("rope_scaling")
    if scaling and scaling.get("rope_type", scaling.get("type")) == "llama3":
        seen["rope_scaling"] = _LLAMA3_SCALING
    return seen


def _check_tokenizer(config: dict[str, Any]) -> None:
    name = config.get("tokenizer_class")
    if name not in TOKENIZERS:
        raise ImportFailedError(f"unsupported tokenizer class {name}: transformers 4.51.3 does not have it")
    if isinstance(config.get("extra_special_tokens"), list):
        raise ImportFailedError(
            "tokenizer_config.json holds extra_special_tokens as a list, which transformers 4.51.3 cannot read "
            "('list' object has no attribute 'keys')"
        )


def _templates(config: dict[str, Any]) -> list[str]:
    """The chat templates in tokenizer_config.json: one, or several by name."""
    found = config.get("chat_template")
    named = [one.get("template") if isinstance(one, dict) else None for one in found] if isinstance(found, list) else []
    return [template for template in (found, *named) if isinstance(template, str)]


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """bos_token, eos_token, … as text."""
    named = {key: value for key, value in config.items() if key.endswith("_token")}
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in named.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def _check_weights(directory: Path) -> int:
    shards = sorted(path.name for path in directory.glob("*.safetensors"))
    if not shards:
        raise ImportFailedError("could not find the expected file model.safetensors")
    found: dict[str, str] = {}
    for shard in shards:
        for tensor in _check_safetensors(directory / shard):
            if found.setdefault(tensor, shard) != shard:
                raise ImportFailedError(f"size mismatch for {tensor}: {found[tensor]} and {shard} both hold it")
    if len(shards) > 1 or (directory / INDEX).exists():
        weight_map = _read_json(directory, INDEX).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ImportFailedError(f"{INDEX} has no weight_map")
        if absent := sorted(set(weight_map.values()) - set(shards)):
            raise ImportFailedError(f"could not find the expected file {absent[0]}, which {INDEX} names")
        if lost := sorted(set(weight_map) - found.keys()):
            raise ImportFailedError(f"{INDEX} names the tensor {lost[0]}, which no file holds")
    return sum((directory / shard).stat().st_size for shard in shards)


def _check_safetensors(path: Path) -> list[str]:
    """The tensor names of a file, whose size must be exactly what its header says."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, _HEADER_LIMIT_BYTES):
                raise ImportFailedError(f"{path.name} is truncated: its header of {length} bytes is not all there")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        dtypes = {entry["dtype"] for entry in header.values()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImportFailedError(f"{path.name} is not a safetensors file ({error})") from error
    if end != size:
        raise ImportFailedError(f"{path.name} is truncated: it has {size} bytes where its header says {end}")
    if odd := sorted(dtypes - WEIGHT_DTYPES):
        raise ImportFailedError(f"{path.name} holds {odd[0]} tensors: only {', '.join(sorted(WEIGHT_DTYPES))} can be")
    return list(header)


def _read_json(directory: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads((directory / name).read_text())
    except FileNotFoundError as error:
        raise ImportFailedError(f"could not find the expected file {name}") from error
    except ValueError as error:
        raise ImportFailedError(f"{name} is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ImportFailedError(f"{name} holds a {type(content).__name__}, not an object")
    return content
