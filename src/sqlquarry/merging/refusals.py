"""Refuse adapters that cannot be expressed as a sum of weights, and say why."""

from __future__ import annotations

import re

from sqlquarry.errors import MergeError, UnsupportedAdapterError
from sqlquarry.files.metadata import JsonObject, is_number

# Fields of adapter_config.json that change the update, and why the result is then not a sum of weights.
_REFUSED = {
    "alora_invocation_tokens": "aLoRA acts only after its invocation tokens, which a single weight cannot express",
    "arrow_config": "Arrow chooses between adapters for every token",
    "fan_in_fan_out": "its weights are stored transposed (Conv1D, GPT-2), and Bedrock does not import such models",
    "kasa_config": "KaSA removes singular values from the base weights, but the checkpoint still contains them",
    "layer_replication": "the trained model has more layers than the base checkpoint",
    "megatron_config": "Megatron's layers have other names than those of the checkpoint",
    "use_bdlora": "BD-LoRA's factors are block-diagonal",
    "use_qalora": "QA-LoRA pools the input, so its update is not B @ A",
}
# Prefixes of the values of init_lora_weights with which PEFT changes the base weights before training.
_REFUSED_INITS = {
    "corda": "CorDA",
    "loftq": "LoftQ",
    "lora_ga": "LoRA-GA",
    "olora": "OLoRA",
    "pissa": "PiSSA",
}
# Switches that only choose how training starts or runs. The trained update is plain LoRA or DoRA.
_HARMLESS = {
    "corda_config",
    "eva_config",
    "loftq_config",
    "lora_ga_config",
    "monteclora_config",
    "runtime_config",
    "use_dora",
    "use_rslora",
    "velora_config",
}
_SWITCH = re.compile(r"use_.*|.*_config")


# A regular expression can be slow if it repeats a group, or if it has four or more repeats.
_SLOW = re.compile(r"\)[*+{]|(?:[*+{].*){4}")
_LONGEST_PATTERN = 500


def refuse_malformed(config: JsonObject) -> None:
    """Check the types of the values of adapter_config.json that a merge uses.

    Raises:
        MergeError: some values are invalid. The message lists every invalid field.
    """
    patterns, indices = config.get("alpha_pattern") or {}, config.get("trainable_token_indices") or []
    checks = {
        "lora_alpha": is_number(config.get("lora_alpha", 8)),
        "alpha_pattern": isinstance(patterns, dict) and all(map(is_number, patterns.values())),
        "modules_to_save": _is_texts(config.get("modules_to_save") or []),
        "target_parameters": isinstance(config.get("target_parameters") or [], list),
        "trainable_token_indices": all(
            isinstance(rows, list) and all(type(row) is int for row in rows)
            for rows in (indices.values() if isinstance(indices, dict) else [indices])
        ),
    }
    bad = [f"{name} is {config.get(name)!r:.80}" for name, sound in checks.items() if not sound]
    for pattern in patterns if checks["alpha_pattern"] else ():
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            bad.append(f"alpha_pattern {pattern!r:.80} is not a regular expression ({error})")
        if len(pattern) > _LONGEST_PATTERN or _SLOW.search(pattern):
            bad.append(f"alpha_pattern {pattern!r:.80} may take forever to match")
    if bad:
        raise MergeError(f"adapter_config.json has invalid values: {'; '.join(bad)}. Train the adapter again.")


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def refuse_unmergeable(config: JsonObject) -> None:
    """Check adapter_config.json for settings with which the merged model would differ from the adapter.

    Raises:
        UnsupportedAdapterError: there are such settings. The message gives the reason for each.
    """
    reasons = []
    if config.get("peft_type") != "LORA":
        reasons.append(f"peft_type {config.get('peft_type')!r}: only LORA can be merged")
    reasons += [f"{field}: {reason}" for field, reason in _REFUSED.items() if config.get(field)]
    init = config.get("init_lora_weights")
    if isinstance(init, str):
        reasons += [
            f"init_lora_weights {init!r}: {name} changed the base weights, but the checkpoint has the original ones"
            for start, name in _REFUSED_INITS.items()
            if init.lower().startswith(start)
        ]
    # Other methods have different fields, and for these the refused peft_type is enough.
    if config.get("peft_type") == "LORA":
        known = _HARMLESS | _REFUSED.keys()
        reasons += [
            f"{field} {value!r}: this version does not support this variant of LoRA"
            for field, value in sorted(config.items())
            if value and _SWITCH.fullmatch(field) and field not in known
        ]
    if reasons:
        raise UnsupportedAdapterError(f"this adapter cannot be merged. {'; '.join(reasons)}. Train with plain LoRA.")
