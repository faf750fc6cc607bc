"""Convert the names of adapter tensors to those that PEFT writes."""

from __future__ import annotations

# Wrappers of torch add their name to the names of all tensors inside: torch.compile, FSDP1, activation checkpointing.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# Names in front of PEFT's own "base_model": DDP and DeepSpeed write "module", FSDP's sharded checkpoints "model".
_LEADING = frozenset({"module", "model"})
_ROOT = "base_model"
# PEFT's parts that have one entry for each adapter. In a state dict, the adapter's name follows.
_NAMED = frozenset(
    {
        "lora_A",
        "lora_B",
        "lora_embedding_A",
        "lora_embedding_B",
        "lora_magnitude_vector",
        "modules_to_save",
        "trainable_tokens_delta",
        "trainable_tokens_original",
    }
)
_LEAVES = frozenset({"weight", "bias"})
# These are saved without ".weight" (PEFT 0.21, tuners/lora/model.py).
_WITHOUT_LEAF = frozenset({"lora_magnitude_vector"})


def normal_name(name: str) -> str:
    """Return the name under which PEFT 0.21 saves a tensor.

    The names of wrappers and of the adapter are removed. A copy in `modules_to_save` gets the name of the module
    itself. Names that PEFT does not write are only freed of wrappers.
    """
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    if _ROOT in parts and set(parts[: parts.index(_ROOT)]) <= _LEADING:
        parts = parts[parts.index(_ROOT) :]
    place = next((place for place, part in enumerate(parts) if part in _NAMED), None)
    if place is None:
        return ".".join(parts)
    part, rest = parts[place], parts[place + 1 :]
    if part != "modules_to_save":
        return ".".join([*parts[: place + 1], *_leaf(part, rest)])
    # X.modules_to_save.weight, or X.modules_to_save.default.weight. X can also be a module with modules inside.
    if rest and rest[0] not in _LEAVES and rest[-1] in _LEAVES:
        rest = rest[1:]
    return ".".join([*parts[:place], *rest])


def _leaf(part: str, rest: list[str]) -> list[str]:
    """Return what follows `part` in PEFT's names: nothing, or ["weight"] or ["bias"]."""
    leaf = rest[-1:] if rest and rest[-1] in _LEAVES else []
    adapter = rest[:-1] if leaf else rest
    if len(adapter) > 1:  # not PEFT's name, so it is left unchanged
        return rest
    return [] if part in _WITHOUT_LEAF else leaf


def is_frozen_copy(name: str) -> bool:
    """Return whether a normal name is that of a copy of the base that PEFT keeps but does not use."""
    return ".original_module." in name or name.endswith(".trainable_tokens_original")
