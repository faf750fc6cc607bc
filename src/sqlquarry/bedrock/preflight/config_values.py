"""Find values in config.json with which transformers 4.51.3 cannot build the model, or builds another one.

Source: transformers 4.51.3, configuration_utils.py, modeling_utils.py (`_get_torch_dtype`), modeling_rope_utils.py
(`ROPE_INIT_FUNCTIONS` and the functions in it), activations.py (`ACT2FN`) and the constructors in
models/{llama,mistral,mixtral,qwen2,qwen3,qwen3_moe}/modeling_*.py. Tested with that version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeGuard

from sqlquarry.bedrock.export.dialect import TRANSFORMERS_VERSION
from sqlquarry.bedrock.preflight.checkpoint import Checkpoint
from sqlquarry.bedrock.preflight.findings import PreflightFinding, error
from sqlquarry.checkpoints.tensor_shapes import DECODERS
from sqlquarry.files.metadata import JsonObject, is_number

_RESTORE = "Restore the base model's config.json"
_ACTIVATIONS = {
    *("silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python", "gelu_10", "gelu_accurate"),
    *("gelu_python_tanh", "laplace", "leaky_relu", "linear", "mish", "prelu", "quick_gelu", "relu", "relu2", "relu6"),
    *("sigmoid", "tanh"),
}
_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention")
_PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")
_NULL_HEAD_DIM = ("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM")  # others use null as the size
_DTYPES = ("auto", "bfloat16", "float16", "float32", "float64", "half", "float", "double")
# rope_type -> keys that its function reads without a default.
_ROPES: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
_ORIGINAL_POSITIONS = "original_max_position_embeddings"
_ROPE_LISTS = ("short_factor", "long_factor")
_ROPE_OPTIONS = ("attention_factor", "beta_fast", "beta_slow")  # numbers, or null for the default


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_not_zero(value: object) -> bool:
    return not isinstance(value, int) or value > 0


# Key -> (what its value must be, the test). An absent key has a default. `config.keys` checks the sizes.
_RULES: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "max_position_embeddings": ("a whole number above 0", _is_count),
    "num_key_value_heads": ("a whole number above 0, or null", lambda value: value is None or _is_count(value)),
    "head_dim": (
        "an even number above 0, or null",
        lambda value: value is None or (_is_count(value) and value % 2 == 0),
    ),
    "rms_norm_eps": ("a number, not below 0", lambda value: is_number(value) and value >= 0),
    "rope_theta": ("a number above 0", lambda value: is_number(value) and value > 0),
    "attention_dropout": (
        "a number from 0 to 1, or null",
        lambda value: value is None or (is_number(value) and 0 <= value <= 1),
    ),
    # It changes the tables of the rope, and no layer of these architectures.
    "partial_rotary_factor": ("1, or absent", lambda value: value == 1),
    "num_attention_heads": ("a whole number above 0", _is_not_zero),
    "num_hidden_layers": ("a whole number above 0", _is_not_zero),
    "use_sliding_window": ("true or false", lambda value: isinstance(value, bool) or value is None),
    "pruned_heads": ("an empty object", lambda value: value == {}),
    "num_labels": ("a whole number", lambda value: isinstance(value, int)),
    "problem_type": ("one of the problems", lambda value: value is None or value in _PROBLEMS),
    "id2label": ("an object, or null", lambda value: value is None or isinstance(value, dict)),
    "_attn_implementation": ("one of the implementations", lambda value: value is None or value in _ATTENTION),
    "sliding_window": ("a whole number above 0, or null", lambda value: value is None or _is_count(value)),
    "tie_word_embeddings": ("true or false", lambda value: isinstance(value, bool) or value is None),
    "attention_bias": ("true or false", lambda value: isinstance(value, bool) or value is None),
    "mlp_bias": ("true or false", lambda value: isinstance(value, bool) or value is None),
    "hidden_act": ("the name of an activation", lambda value: value in _ACTIVATIONS),
    "torch_dtype": ("the name of a dtype of torch", lambda value: value is None or value in _DTYPES),
}
_EXPERTS = {"MixtralForCausalLM": "num_local_experts", "Qwen3MoeForCausalLM": "num_experts"}


def values(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that the model can be built with every value."""
    if checkpoint.architecture not in DECODERS:
        return
    config = checkpoint.text_config
    for key, (rule, fits) in _RULES.items():
        if key in config and not _holds(fits, config[key]):
            yield _bad_value(key, config[key], rule)
    heads, kv_heads = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if _is_count(heads) and _is_count(kv_heads) and heads % kv_heads:
        yield _bad_value("num_key_value_heads", kv_heads, f"a divisor of num_attention_heads {heads}")
    if config.get("head_dim", 0) is None and checkpoint.architecture not in _NULL_HEAD_DIM:
        yield _bad_value("head_dim", None, "a number, or absent")
    if config.get("use_sliding_window") and not isinstance(config.get("max_window_layers", 0), int):
        yield _bad_value("max_window_layers", config["max_window_layers"], "a whole number")
    yield from _mixture(str(checkpoint.architecture), config)
    size, padding = config.get("vocab_size"), config.get("pad_token_id")
    if padding is not None and _is_count(size) and not (type(padding) is int and -size <= padding < size):
        yield _bad_value("pad_token_id", padding, f"a token below vocab_size {size}, or null")


def _mixture(architecture: str, config: JsonObject) -> Iterator[PreflightFinding]:
    """Check the keys that only models with experts read."""
    experts, chosen = config.get(_EXPERTS.get(architecture, "")), config.get("num_experts_per_tok")
    if _is_count(experts) and isinstance(chosen, int) and not 0 < chosen <= experts:
        yield _bad_value("num_experts_per_tok", chosen, f"from 1 to {experts}, the number of experts")
    if architecture != "Qwen3MoeForCausalLM":
        return
    if config.get("num_key_value_heads", 4) is None:
        yield _bad_value("num_key_value_heads", None, "a number, or absent")
    if not _is_count(step := config.get("decoder_sparse_step", 1)):
        yield _bad_value("decoder_sparse_step", step, "a whole number above 0, or absent")


def rope(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that the rotary scaling is a mapping with everything that its type needs."""
    config = checkpoint.text_config
    scaling = config.get("rope_scaling")
    if checkpoint.architecture not in DECODERS or scaling is None:
        return
    if not isinstance(scaling, dict):
        yield _bad_value("rope_scaling", scaling, "an object with rope_type, or null")
        return
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind not in _ROPES:
        yield _bad_value("rope_scaling.rope_type", kind, f"one of {', '.join(_ROPES)}")
        return
    yield from _rope_factors(str(kind), scaling, config)
    for key in _ROPE_OPTIONS if kind in ("yarn", "longrope") else ():
        if scaling.get(key) is not None and not is_number(scaling[key]):
            yield _bad_value(f"rope_scaling.{key}", scaling[key], f"a number for {kind}, or null")
    # The attention factor of longrope follows from one of them.
    factors = (scaling.get("factor"), scaling.get("attention_factor"), config.get(_ORIGINAL_POSITIONS))
    if kind == "longrope" and not any(map(is_number, factors)):
        yield _bad_value("rope_scaling.factor", scaling.get("factor"), "a number above 0 for longrope")


def _rope_factors(kind: str, scaling: JsonObject, config: JsonObject) -> Iterator[PreflightFinding]:
    """Check the keys that the function of a rope type reads without a default."""
    for key in _ROPES[kind]:
        value = scaling.get(key)
        if key in _ROPE_LISTS:
            width = _rotary_width(config)
            if not (isinstance(value, list) and len(value) == width and all(map(is_number, value))):
                yield _bad_value(f"rope_scaling.{key}", value, f"a list of {width} numbers for {kind}")
        elif not (is_number(value) and value > 0):
            yield _bad_value(f"rope_scaling.{key}", value, f"a number above 0 for {kind}")


def _rotary_width(config: JsonObject) -> int:
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return int(head * config.get("partial_rotary_factor", 1.0)) // 2


def _holds(fits: Callable[[object], bool], value: object) -> bool:
    try:
        return fits(value)
    except TypeError:  # the value is a list or an object instead of a text or number
        return False


def _bad_value(key: str, value: object, rule: str) -> PreflightFinding:
    why = f"transformers {TRANSFORMERS_VERSION} cannot build the model from it, or builds another one"
    return error("config-value", "config.json", f"{key} is {value!r:.80}, but must be {rule}", why, _RESTORE)


CHECKS = (values, rope)
