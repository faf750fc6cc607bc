"""Refuse downloaded models whose configuration asks for custom code, unchecked files or impossible sizes.

The check runs before any part of the model is loaded. transformers asks on the terminal whether to run a model's code,
unless it gets ``trust_remote_code=False``. This library never runs such code, so a model that requires it cannot be
used. Python files that no configuration refers to are never read.

Sources: transformers 5.24 (dynamic_module_utils.py, models/auto, configuration_utils.py, integrations/hub_kernels.py,
generation/utils.py) and PEFT 0.21 (auto.py, tuners/lora/tp_layer.py).
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlquarry.errors import MetadataError, UnsupportedModelError
from sqlquarry.files.metadata import parse_json, read_bytes

# The architectures that Bedrock Custom Model Import accepts, each with the model_type for which transformers builds it.
MODEL_TYPES = {
    "GPTBigCodeForCausalLM": "gpt_bigcode",
    "GptOssForCausalLM": "gpt_oss",
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
CONFIG_SUFFIX = "config.json"  # config.json, tokenizer_config.json, adapter_config.json, processor_config.json, …
_MAX_ENTRIES = 100_000

_ASKS_FOR_CODE = "it requires code that does not belong to transformers or PEFT"
_ELSEWHERE = "it makes the loader read other files than those that are checked"
_PLAIN = "Use a checkpoint of the plain architecture, or remove the key after you have reviewed what it refers to"
# Keys that are refused at any depth, and why.
_KEYS = {
    "auto_map": _ASKS_FOR_CODE,
    "custom_generate": _ASKS_FOR_CODE,
    "custom_pipelines": _ASKS_FOR_CODE,
    "trust_remote_code": _ASKS_FOR_CODE,
    "attribute_map": "it renames keys, so that the checks do not find them",
    "configuration_files": _ELSEWHERE,
    "fast_tokenizer_files": _ELSEWHERE,
    "gguf_file": _ELSEWHERE,
    "transformers_weights": _ELSEWHERE,  # replaces model.safetensors
}
# Arguments of tokenizers in tokenizer_config.json that are refused if they have this type. A text is a file's path.
_TOKENIZER_ARGUMENTS = {"vocab": str, "merges": str, "init_inputs": list}
# Any other name refers to a repository with compiled code ("kernels-community/flash-attn3").
_IMPLEMENTATIONS = {
    "attn_implementation": ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"),
    "experts_implementation": ("eager", "batched_mm", "grouped_mm"),
}
# transformers looks up an attribute of this name, whatever it is. The Auto classes would load yet another class.
_TOKENIZER_CLASS = re.compile(r"(?!Auto)[A-Z]\w*(Tokenizer|TokenizerFast|Backend)")
# The largest known models: Llama 3.1 405B (126 layers, 16,384 wide, 53,248 in its MLP, 128 heads), Qwen3-Next (512
# experts), Gemma 3 (262,208 tokens). The limits exist because loops and lists get as long as these numbers.
_LIMITS = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "num_decoder_layers", "n_layer"), 256),
    **dict.fromkeys(("num_experts", "num_local_experts", "num_experts_per_tok"), 512),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_heads", "n_head"), 1024),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "head_dim", "d_kv"), 1 << 16),
    **dict.fromkeys(("intermediate_size", "moe_intermediate_size", "d_ff", "n_inner", "vocab_size"), 1 << 20),
}
_MAX_RANK = 4096
_MAX_LAYERS = _LIMITS["num_hidden_layers"]
# PEFT matches these against the name of every module. With a repeated group, every character can double the time.
_PATTERNS = ("target_modules", "exclude_modules", "rank_pattern", "alpha_pattern")
_SLOW_PATTERN = re.compile(r"\)[*+{]")


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason to refuse a model.

    Args:
        code: "custom-code", "model-type" or "model-size".
        file: the file that contains the setting.
        message: the setting with its value.
        why: what the setting would do.
        fix: what the user can do.
    """

    code: Literal["custom-code", "model-type", "model-size"]
    file: str
    message: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}: {self.message}, and {self.why}. {self.fix}."


def refuse_foreign_code(directory: Path) -> None:
    """Check every configuration in the directory of a model or adapter, and in the folders directly below it.

    Raises:
        UnsupportedModelError: a configuration is refused or cannot be read, or other files there would replace the
            model's weights. The message gives all reasons for a refusal.
    """
    paths = [path for pattern in ("*", "*/*") for path in sorted(directory.glob(f"{pattern}{CONFIG_SUFFIX}"))]
    files = {path.relative_to(directory).as_posix(): _read(path) for path in paths if path.is_file()}
    if {"config.json", "adapter_config.json"} <= files.keys():
        raise UnsupportedModelError(
            f"{directory} contains both adapter_config.json and config.json, so transformers would silently apply that "
            "adapter to the model. Move the adapter into its own directory."
        )
    # transformers 5.24, distributed/checkpoint.py: these files take precedence over the weights that others read.
    if shards := sorted(directory.glob("shard-?????-model-?????-of-?????.safetensors")):
        raise UnsupportedModelError(
            f"{directory} contains {shards[0].name}, which transformers would load instead of model.safetensors. Move "
            "the distributed checkpoint away, or save the model again."
        )
    require_no_refusals(files, directory)
    config = files.get("config.json")
    quantization = config.get("quantization_config") if isinstance(config, dict) else None
    method = quantization.get("quant_method", "bitsandbytes") if isinstance(quantization, dict) else quantization
    if method not in (None, "bitsandbytes", "mxfp4"):
        raise UnsupportedModelError(
            f"the model at {directory} is quantized with {_shown(method)}. To read it, transformers would import "
            "packages or download compiled code. Use the 16-bit checkpoint."
        )


def require_no_refusals(files: Mapping[str, object], place: object) -> None:
    """Check configurations that have already been read.

    Args:
        files: file name -> content.
        place: their location, for the message.

    Raises:
        UnsupportedModelError: a configuration is refused. The message gives all reasons.
    """
    if found := list(refusals(files)):
        raise UnsupportedModelError(f"the model at {place} is refused. {' '.join(map(str, found))}")


def refusals(files: Mapping[str, object]) -> Iterator[Refusal]:
    """Yield every reason to refuse the configurations among these files.

    Args:
        files: file name -> content. Names that do not end with "config.json" are skipped.
    """
    for file, content in files.items():
        if not file.endswith(CONFIG_SUFFIX):
            continue
        for key, value in _entries(content):
            yield from _code(file, key, value)
            if file == "config.json":
                yield from _size(key, value)
        if file == "config.json" and isinstance(content, dict):
            yield from _model_type(content)
        if file.endswith("adapter_config.json") and isinstance(content, dict):
            yield from _adapter_size(file, content)


def _code(file: str, key: str, value: object) -> Iterator[Refusal]:
    if reason := _code_reason(file, key, value):
        yield Refusal("custom-code", file, f"{key} is {_shown(value)}", reason, _PLAIN)


def _code_reason(file: str, key: str, value: object) -> str | None:
    """Return why a value would make a library run code or load other files, or None if it would not."""
    if key in _KEYS and value is not False:
        return _KEYS[key]
    if (known := _IMPLEMENTATIONS.get(key.removeprefix("_").removesuffix("_internal"))) is not None:
        names = value.values() if isinstance(value, dict) else [value]
        named = all(name is None or name in known for name in names)
        return None if named else f"any name except {', '.join(known)} refers to a repository with code"
    if key == "tokenizer_class" and value is not None:
        named = isinstance(value, str) and _TOKENIZER_CLASS.fullmatch(value) is not None
        return (
            None if named else "it is not the name of a tokenizer, but transformers would load any class of that name"
        )
    if file.endswith("tokenizer_config.json"):
        return _ELSEWHERE if value and isinstance(value, _TOKENIZER_ARGUMENTS.get(key, ())) else None
    return _adapter_reason(key, value) if file.endswith("adapter_config.json") else None


def _adapter_reason(key: str, value: object) -> str | None:
    if key == "peft_type" and value != "LORA":
        # X-LoRA loads further adapters, Shadow a model and prompt tuning a tokenizer, from any location they specify.
        return "only LoRA is known to load no other files"
    if key == "megatron_config" and value:
        return _ASKS_FOR_CODE  # PEFT imports the module in `megatron_core`
    if key == "auto_mapping" and value and not _of_transformers(value):
        return "PEFT would import the library in it"
    return None


def _model_type(config: Mapping[str, object]) -> Iterator[Refusal]:
    names, found = config.get("architectures"), config.get("model_type")
    name = str(names[0]) if isinstance(names, list) and names else ""
    expected = MODEL_TYPES.get(name)
    if found is None or not name:
        return
    other = found != expected if expected else found in MODEL_TYPES.values() and not _named_after(name, found)
    if other:
        yield Refusal(
            "model-type",
            "config.json",
            f"model_type is {_shown(found)}, but {_shown(name)} is " + (f"{expected!r}" if expected else "not one"),
            "transformers builds the model by model_type",
            "Restore the original config.json",
        )


def _named_after(architecture: str, model_type: object) -> bool:
    return isinstance(model_type, str) and architecture.replace("_", "").lower().startswith(model_type.replace("_", ""))


def _of_transformers(mapping: object) -> bool:
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    return isinstance(library, str) and library.partition(".")[0] == "transformers"


def _size(key: str, value: object) -> Iterator[Refusal]:
    limit = _LIMITS.get(key, 0)
    reason = None
    if limit and isinstance(value, int | float) and not 0 <= value <= limit:
        reason = f"{key} is {_shown(value)}", f"known models have at most {limit:,}"
    elif isinstance(value, list) and len(value) > _MAX_ENTRIES:
        reason = f"{key} has {len(value):,} entries", "known models have a few thousand at most"
    if reason:
        yield Refusal("model-size", "config.json", *reason, "Restore the original config.json")


def _adapter_size(file: str, config: Mapping[str, object]) -> Iterator[Refusal]:
    ranks, layers = config.get("rank_pattern"), config.get("layer_replication")
    checks = {
        "r": _at_most(_MAX_RANK, [config.get("r")]),
        "rank_pattern": _at_most(_MAX_RANK, ranks.values() if isinstance(ranks, dict) else []),
        "layer_replication": _at_most(_MAX_LAYERS, [_replicated(layers)]),
    }
    for key, fits in checks.items():
        if not fits:
            why = f"known adapters have ranks of at most {_MAX_RANK:,} and at most {_MAX_LAYERS} layers"
            yield Refusal("model-size", file, f"{key} is {_shown(config[key])}", why, "Restore the original file")
    for key in _PATTERNS:
        value = config.get(key)
        for pattern in [value] if isinstance(value, str) else value if isinstance(value, dict) else ():
            if _SLOW_PATTERN.search(pattern):
                message = f"{key} has the regular expression {_shown(pattern)}"
                yield Refusal("model-size", file, message, "it may take forever to match", "List the modules' names")


def _at_most(limit: int, values: Iterable[object]) -> bool:
    return all(value <= limit for value in values if isinstance(value, int | float))


def _replicated(ranges: object) -> int:
    """Return the number of layers that layer_replication, a list of (first, last + 1), results in."""
    pairs = [pair for pair in ranges if isinstance(pair, list)] if isinstance(ranges, list) else []
    return sum(max(pair[1] - pair[0], 0) for pair in pairs if [type(end) for end in pair] == [int, int])


def _entries(content: object) -> Iterator[tuple[str, object]]:
    """Yield every key with its value, at any depth."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _shown(value: object) -> str:
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 3, 100, 100
    return short.repr(value)


def _read(path: Path) -> object:
    try:
        return parse_json(read_bytes(path), path.name)
    except (OSError, MetadataError) as error:
        raise UnsupportedModelError(f"{path} cannot be read ({error}). Restore the original file.") from error
