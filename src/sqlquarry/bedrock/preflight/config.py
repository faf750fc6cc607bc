"""Check architecture, key names, rope, context length and stop tokens in config.json and generation_config.json.

Source: "Use Custom model import to import a customized open-source model into Amazon Bedrock",
docs.aws.amazon.com/bedrock/latest/userguide/model-customization-import-model.html.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlquarry.bedrock.export.dialect import FLAT_IN_4_51, GPT_OSS_EOS, TRANSFORMERS_VERSION, model_config
from sqlquarry.bedrock.export.weights import is_full
from sqlquarry.bedrock.preflight.checkpoint import Checkpoint
from sqlquarry.bedrock.preflight.findings import PreflightFinding, error, note, warning
from sqlquarry.checkpoints.foreign_model import MODEL_TYPES, refusals
from sqlquarry.checkpoints.safetensors_header import INDEX
from sqlquarry.files.metadata import JsonObject

MULTIMODAL_ARCHITECTURES = (
    "MllamaForConditionalGeneration",
    "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
)
_TEXT_ARCHITECTURES = tuple(name for name in MODEL_TYPES if name not in MULTIMODAL_ARCHITECTURES)
GPT_OSS = "GptOssForCausalLM"
GPT_OSS_REGION = "us-east-1"
MAX_POSITIONS = 131_072  # the page says "less than 128K", but Llama 3.1 with exactly 131072 is imported routinely
# The service overrides these values of a llama3 rope_scaling.
LLAMA3_ROPE = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

QUANTIZATION_KEYS = ("quantization_config", "compression_config")
_DECODER_KEYS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
_KEYS = {
    **dict.fromkeys(_TEXT_ARCHITECTURES, _DECODER_KEYS),
    "GPTBigCodeForCausalLM": ("n_embd", "n_head", "n_layer", "vocab_size"),
    "MixtralForCausalLM": (*_DECODER_KEYS, "num_local_experts", "num_experts_per_tok"),
    "Qwen3MoeForCausalLM": (*_DECODER_KEYS, "moe_intermediate_size", "num_experts", "num_experts_per_tok"),
    "T5ForConditionalGeneration": ("d_ff", "d_kv", "d_model", "num_heads", "num_layers", "vocab_size"),
}


def architecture(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that the service supports the first architecture, and that it has no custom code or impossible sizes."""
    name = checkpoint.architecture
    if name not in MODEL_TYPES:
        why = "The job ends Failed for an architecture outside its list"
        yield error(
            "architecture",
            "config.json",
            f"architecture {name!r} is not importable",
            why,
            f"Start from one of: {', '.join(MODEL_TYPES)}",
        )
    elif checkpoint.config.get("model_type") is None:
        message = "model_type is missing"
        why = f"transformers {TRANSFORMERS_VERSION} chooses the model class by it, and fails"
        yield error("model-type", "config.json", message, why, f"Set it to {MODEL_TYPES[name]!r}", repairable=True)
    for refusal in refusals(checkpoint.files):
        why = f"{refusal.why[0].upper()}{refusal.why[1:]}"
        yield error(refusal.code, refusal.file, refusal.message, why, refusal.fix)
    if name == GPT_OSS and checkpoint.region not in (None, GPT_OSS_REGION):
        message = f"GPT-OSS cannot be imported in {checkpoint.region}"
        yield error("region", "region", message, "The service supports it in us-east-1 only", "Import it in us-east-1")


def keys(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that config.json has the model's sizes under the keys that 4.51.3 reads."""
    name, config = checkpoint.architecture, checkpoint.config
    missing = [key for key in _KEYS.get(str(name), ()) if not isinstance(config.get(key), int)]
    if missing:
        rewritten = model_config(config)
        yield error(
            "config-keys",
            "config.json",
            f"{', '.join(missing)}: missing or not a whole number",
            "The server builds the model from config.json, and its defaults have other sizes",
            "Restore the base model's config.json",
            repairable=all(isinstance(rewritten.get(key), int) for key in missing),
        )
    if config.get("model_type") in FLAT_IN_4_51 and isinstance(config.get("text_config"), dict):
        yield error(
            "nested-config",
            "config.json",
            "the language model's settings are in text_config",
            f"transformers {TRANSFORMERS_VERSION} reads them at the top level for this architecture, and fails",
            "Write them at the top level",
            repairable=True,
        )


def dialect(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that settings have the names that transformers 4.51.3 reads."""
    old = model_config(checkpoint.config)
    for where, (level, read) in {
        "config.json": (checkpoint.config, old),
        "config.json, text_config": (checkpoint.config.get("text_config"), old.get("text_config")),
    }.items():
        if not isinstance(level, dict) or not isinstance(read, dict):
            continue
        if "rope_parameters" in level and not _same_rope(level, read):
            yield error(
                "rope-parameters",
                where,
                f"the rope {level['rope_parameters']} has the key of transformers 5, rope_parameters",
                f"transformers {TRANSFORMERS_VERSION} ignores it and uses rope_theta "
                f"{level.get('rope_theta', 10000.0)} and rope_scaling {level.get('rope_scaling')} without an error, so "
                "another model is served",
                "Write rope_theta and rope_scaling instead",
                repairable=True,
            )
        if "dtype" in level and "torch_dtype" not in level:
            yield error(
                "dtype-key",
                where,
                f"dtype {level['dtype']!r} has the key of transformers 5",
                f"transformers {TRANSFORMERS_VERSION} reads torch_dtype, and without it uses float32",
                "Write torch_dtype instead",
                repairable=True,
            )


def _same_rope(level: JsonObject, read: JsonObject) -> bool:
    return all(level.get(key, default) == read.get(key, default) for key, default in _ROPE_DEFAULTS.items())


_ROPE_DEFAULTS = {"rope_theta": 10000.0, "rope_scaling": None}


def positions(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that the context is at most 128K, and that the service does not override the llama3 rope scaling."""
    config = checkpoint.text_config
    value = config.get("max_position_embeddings")
    if isinstance(value, int) and value > MAX_POSITIONS:
        yield error(
            "max-positions",
            "config.json",
            f"max_position_embeddings is {value}, above {MAX_POSITIONS}",
            "The service documents contexts below 128K",
            f"Set it to {MAX_POSITIONS}, or to the length that the prompts need",
        )
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        return
    other = {key: rope.get(key) for key, used in LLAMA3_ROPE.items() if rope.get(key, used) != used}
    if rope.get("rope_type", rope.get("type")) == "llama3" and other:
        yield warning(
            "rope-scaling",
            "config.json",
            f"llama3 rope_scaling has {other}",
            f"The service overrides these with {LLAMA3_ROPE}",
            "Expect answers that differ from local ones, or start from a base model with these values",
        )


def quantization(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that config.json does not mark the weights as quantized."""
    levels = {"": checkpoint.config, "text_config.": checkpoint.text_config}
    marked = {f"{at}{key}": level[key] for at, level in levels.items() for key in QUANTIZATION_KEYS if key in level}
    if checkpoint.text_config is checkpoint.config:
        marked = {key: value for key, value in marked.items() if "." not in key}
    for key, settings in marked.items():
        if settings is None:
            if key.endswith("quantization_config"):  # 4.51.3 reads no other
                message = f"{key} is null"
                why = f"transformers {TRANSFORMERS_VERSION} fails at it: 'NoneType' object has no attribute 'to_dict'"
                yield error("quantized", "config.json", message, why, "Remove the key", repairable=True)
        elif checkpoint.architecture == GPT_OSS and settings.get("quant_method") == "mxfp4":
            why = "GPT-OSS is published in this form, and the service accepts it. Other forms are not documented"
            yield note("quantized", "config.json", "the experts' weights are MXFP4", why, "Nothing to do")
        elif checkpoint.weights is not None and is_full(checkpoint.weights):
            message = f"{key} is left over, because the weights themselves are not quantized"
            why = "The job assumes quantized weights, and fails"
            yield error("quantized", "config.json", message, why, "Remove the key", repairable=True)
        else:
            why = "Quantized weights fail as a size mismatch"
            fix = "Save the model in bfloat16, and remove the key"
            yield error("quantized", "config.json", f"{key} marks quantized weights", why, fix)


def stop_ids(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that the server knows which tokens end an answer."""
    file, generation = "generation_config.json", checkpoint.file("generation_config.json")
    value = generation.get("eos_token_id", checkpoint.text_config.get("eos_token_id"))
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not ids:
        why = "The server stops at eos_token_id only, so every answer runs to its limit"
        yield warning(
            "eos", file, "eos_token_id is missing here and in config.json", why, "Set it to the tokens that end answers"
        )
    size = checkpoint.text_config.get("vocab_size")
    if isinstance(size, int) and (beyond := [token for token in ids if not isinstance(token, int) or token >= size]):
        message, why = (
            f"eos_token_id {beyond} is beyond vocab_size {size}",
            "A token that does not exist is never generated",
        )
        yield error("eos", file, message, why, "Restore the base model's file")
    if checkpoint.architecture == GPT_OSS and not set(GPT_OSS_EOS) <= set(ids):
        yield error(
            "gpt-oss-eos",
            file,
            f"eos_token_id is {value}, not {GPT_OSS_EOS}",
            "The service documents that GPT-OSS fails with the generation_config.json of older releases",
            f"Set eos_token_id to {GPT_OSS_EOS}",
            repairable=True,
        )


def index(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that the index of shards has the metadata that transformers reads."""
    if checkpoint.weights is not None and not checkpoint.weights.has_metadata:
        why = f"transformers {TRANSFORMERS_VERSION} cannot read the index without it"
        fix = 'Add "metadata": {}'
        yield error("index-metadata", INDEX, 'the object "metadata" is missing', why, fix, repairable=True)


CHECKS = (architecture, keys, dialect, positions, quantization, stop_ids, index)
