"""Plan which adapter tensors change which tensors of the base, before any weight is read."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlquarry.errors import ConfigError, UnsupportedAdapterError
from sqlquarry.files.metadata import JsonObject
from sqlquarry.merging.lora_adapter import LoraAdapter
from sqlquarry.merging.tensor_file import StoredTensor
from sqlquarry.merging.update import Update

_EMBEDDING = re.compile(r"(?:.*\.)?(?:embed_tokens|wte)\.weight")  # Llama's and GPTBigCode's names
_HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class MergePlan:
    """The differences between the output and the base.

    Args:
        updates: output tensor -> its update. The other tensors keep their bytes.
        extra: tensors that the output has and the base lacks, each with the tensor of the base that it starts from.
        config: fields of config.json that change.
    """

    updates: Mapping[str, Update]
    extra: Mapping[str, StoredTensor] = field(default_factory=dict)
    config: JsonObject = field(default_factory=dict)


def plan_merge(
    adapters: Sequence[tuple[LoraAdapter, float]], base: Mapping[str, StoredTensor], *, tied: bool
) -> MergePlan:
    """Match the tensors of adapters to those of a base, and return the update W + Σ w s B A of every tensor.

    This is PEFT's add_weighted_adapter(combination_type="cat"). PEFT's "linear" mixes A of one adapter with B of
    another. If an adapter changes only one of a tied embedding and output head, the two are untied, as in PEFT's
    forward pass.

    Args:
        adapters: each adapter with its weight. One adapter of weight 1 is the plain merge.
        base: all tensors of the base checkpoint by name.
        tied: whether the embedding and the output head share one tensor.

    Raises:
        ConfigError: there is no adapter, or a weight is not a finite number.
        UnsupportedAdapterError: these adapters cannot be added up.
        UnusedTensorsError: some adapter tensors do not match any tensor of the base.
        MergeError: shapes do not fit, or half of a pair is missing.
    """
    if not adapters or not all(math.isfinite(weight) for _, weight in adapters):
        weights = [weight for _, weight in adapters]
        raise ConfigError(f"the weights of the adapters are {weights}. Give at least one adapter, and finite weights.")
    embedding = next((name for name in base if _EMBEDDING.fullmatch(name)), None) if tied else None
    if embedding is None:
        return MergePlan(_sum([(adapter.changes(base), weight) for adapter, weight in adapters]))
    head = dataclasses.replace(base[embedding], name=_HEAD)
    updates = _sum([(_tied_changes(adapter, base, embedding, head), weight) for adapter, weight in adapters])
    if (of_head := updates.pop(_HEAD, Update())) == updates.get(embedding, Update()):
        extra, config = {}, {}
    else:
        extra, config = {_HEAD: head}, {"tie_word_embeddings": False}
        updates[_HEAD] = of_head
    if _HEAD in base and (extra or of_head != Update()):
        # A head that is stored although it is tied to the embedding was never used, so its values may differ.
        updates[_HEAD] = of_head if of_head.saved else dataclasses.replace(of_head, saved=base[embedding])
        extra = {}
    return MergePlan({name: update for name, update in updates.items() if update != Update()}, extra, config)


def _tied_changes(
    adapter: LoraAdapter, base: Mapping[str, StoredTensor], embedding: str, head: StoredTensor
) -> dict[str, Update]:
    """Return the changes to all tensors. PEFT's rules decide whether the head gets the embedding's changes."""
    changes = adapter.changes({**base, _HEAD: head})
    of_embedding, of_head = changes.get(embedding, Update()), changes.get(_HEAD, Update())
    # peft.utils.other.set_additional_trainable_modules: trained rows are tied unless the head has its own changes.
    tokens_follow = of_embedding.tokens is not None and of_head == Update()
    # peft.tuners.lora.model._add_modules_to_save_to_tie: one trained module is saved under both names.
    saved_follows = bool(adapter.config.get("ensure_weight_tying")) and not of_embedding.factors
    if tokens_follow or (saved_follows and of_embedding.saved):
        changes[_HEAD] = of_embedding
    return changes


def _sum(parts: Sequence[tuple[Mapping[str, Update], float]]) -> dict[str, Update]:
    names = dict.fromkeys(name for changes, _ in parts for name in changes)
    return {
        name: _sum_of_one(name, [(changes[name], weight) for changes, weight in parts if name in changes])
        for name in names
    }


def _sum_of_one(name: str, parts: Sequence[tuple[Update, float]]) -> Update:
    first, weight = parts[0]
    if len(parts) == 1 and weight == 1.0:
        return first
    for update, weight in parts:
        if reason := _not_additive(update, first):
            raise UnsupportedAdapterError(
                f"the adapter of weight {weight:g} {reason} ({name}), which cannot be combined with other adapters or "
                "with a weight other than 1. Merge it alone with weight 1."
            )
    factors = tuple(
        dataclasses.replace(factor, weight=factor.weight * weight)
        for update, weight in parts
        for factor in update.factors
    )
    return Update(first.saved, factors)


def _not_additive(update: Update, first: Update) -> str | None:
    if update.tokens:
        return "replaces rows"
    if update.magnitude:
        return "uses DoRA"
    if not update.factors:
        return "replaces the tensor"
    return None if _same(update.saved, first.saved) else "was saved with another base"


def _same(one: StoredTensor | None, other: StoredTensor | None) -> bool:
    """Return whether two adapters contain the same copy of a frozen base tensor.

    PEFT saves such a copy if LoRA is applied to the output head.
    """
    import torch

    if one is None or other is None or one == other:
        return one == other
    return one.shape == other.shape and torch.equal(one.load(), other.load())
