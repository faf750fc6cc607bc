"""Plan which adapter tensors change which tensors of the base, before any weight is read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlquarry.checkpoints.adapter_tables import EMBEDDING
from sqlquarry.errors import ConfigError, MergeError, UnsupportedAdapterError
from sqlquarry.files.metadata import JsonObject
from sqlquarry.merging.lora_adapter import LoraAdapter
from sqlquarry.merging.tensor_file import StoredTensor, row_blocks
from sqlquarry.merging.update import Update

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class MergePlan:
    """The differences between the output and the base.

    Args:
        updates: output tensor -> its update. The other tensors keep their bytes.
        extra: output tensors that do not start from the base's tensor of that name, each with the tensor that it starts
            from: a head that the base lacks, and embeddings and heads with another number of rows.
        dtypes: the dtypes of resized tensors, which are those of the base's tensors.
        config: fields of config.json that change.
    """

    updates: Mapping[str, Update]
    extra: Mapping[str, StoredTensor] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    config: JsonObject = field(default_factory=dict)


def plan_merge(
    adapters: Sequence[tuple[LoraAdapter, float]], base: Mapping[str, StoredTensor], *, tied: bool
) -> MergePlan:
    """Match the tensors of adapters to those of a base, and return the update W + Σ w s B A of every tensor.

    This is PEFT's add_weighted_adapter(combination_type="cat"). PEFT's "linear" mixes A of one adapter with B of
    another. If an adapter changes only one of a tied embedding and output head, the two are untied, as in PEFT's
    forward pass. If an adapter contains an embedding and a head with another number of rows, the output has these rows.

    Args:
        adapters: each adapter with its weight. One adapter of weight 1 is the plain merge.
        base: all tensors of the base checkpoint by name.
        tied: whether the embedding and the output head share one tensor.

    Raises:
        ConfigError: there is no adapter, or a weight is not a finite number.
        UnsupportedAdapterError: these adapters cannot be added up, or a resized tensor is not the text vocabulary.
        UnusedTensorsError: some adapter tensors do not match any tensor of the base.
        MergeError: shapes do not fit, or half of a pair is missing.
    """
    if not adapters or not all(math.isfinite(weight) for _, weight in adapters):
        weights = [weight for _, weight in adapters]
        raise ConfigError(f"the weights of the adapters are {weights}. Give at least one adapter, and finite weights.")
    embedding = next((name for name in (_EMBEDDING, *base) if name in base and EMBEDDING.fullmatch(name)), None)
    if embedding is None or not tied:
        updates = _sum([(adapter.changes(base), weight) for adapter, weight in adapters])
        return _resized(MergePlan(updates), base, embedding)
    head = dataclasses.replace(base[embedding], name=_HEAD)
    updates = _sum([(_tied_changes(adapter, base, embedding, head), weight) for adapter, weight in adapters])
    of_embedding, of_head = updates.get(embedding, Update()), updates.pop(_HEAD, Update())
    if _same_update(of_head, of_embedding):
        of_head = of_embedding
        extra, config = {}, {}
    else:
        extra, config = {_HEAD: head}, {"tie_word_embeddings": False}
        updates[_HEAD] = of_head
    if _HEAD in base and (extra or of_head != Update()):
        # A head that is stored although it is tied to the embedding was never used, so its values may differ.
        updates[_HEAD] = of_head if of_head.saved else dataclasses.replace(of_head, saved=base[embedding])
        extra = {}
    changed = {name: update for name, update in updates.items() if update != Update()}
    return _resized(MergePlan(changed, extra, config=config), base, embedding)


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
    # The frozen table of a resized vocabulary is shared, so it may be saved under one name only.
    for name, other in ((embedding, _HEAD), (_HEAD, embedding)):
        saved, follower = changes.get(name, Update()).saved, changes.get(other, Update())
        if saved and saved.shape != head.shape and follower.saved is None and not adapter.trains(name):
            changes[other] = dataclasses.replace(follower, saved=saved)
    return changes


def _resized(plan: MergePlan, base: Mapping[str, StoredTensor], embedding: str | None) -> MergePlan:
    """Return the plan with the number of rows that the saved embedding and head have.

    Raises:
        UnsupportedAdapterError: another tensor has other rows, such as the embedding of a multimodal model's text.
        MergeError: the embedding and the head would have different numbers of rows.
    """
    starts = {**base, **plan.extra}
    saved = {name: update.saved for name, update in plan.updates.items() if update.saved}
    resized = {name: tensor for name, tensor in saved.items() if tensor.shape != starts[name].shape}
    if not resized:
        return plan
    if others := sorted(resized.keys() - {embedding, _HEAD}):
        raise UnsupportedAdapterError(
            f"the adapter has {resized[others[0]].shape[0]} rows for {others[0]}, but the base has "
            f"{starts[others[0]].shape[0]}. Only {embedding} and {_HEAD} can be resized. Train without new tokens."
        )
    rows = {name: saved.get(name, starts[name]).shape[0] for name in (embedding, _HEAD) if name in starts}
    if len(set(rows.values())) > 1:
        found = " and ".join(f"{count} rows for {name}" for name, count in rows.items())
        raise MergeError(
            f"with this adapter the model would have {found}, but both need the same number. PEFT saves only one of a "
            "resized embedding and head if LoRA targets only that one. Let LoRA target both, or train both "
            '(modules_to_save=["embed_tokens", "lm_head"]).'
        )
    extra = {name: dataclasses.replace(tensor, name=name) for name, tensor in resized.items()}
    return MergePlan(
        {
            name: dataclasses.replace(update, saved=extra.get(name, update.saved))
            for name, update in plan.updates.items()
        },
        {**plan.extra, **extra},
        {name: starts[name].dtype for name in extra},
        {**plan.config, "vocab_size": max(rows.values())},
    )


def _same_update(one: Update, other: Update) -> bool:
    """Return whether two updates give the same tensor. Saved tensors and trained rows are compared by their values."""
    if one == other:
        return True
    if one.factors or other.factors or not _same(one.saved, other.saved):
        return False
    if one.tokens is None or other.tokens is None:
        return one.tokens == other.tokens
    return one.tokens.indices == other.tokens.indices and _same(one.tokens.values, other.tokens.values)


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
    """Return whether two stored tensors have the same values.

    PEFT saves a copy of a frozen base tensor if LoRA is applied to the output head or if the vocabulary was resized.
    """
    import torch

    if one is None or other is None or one == other:
        return one == other
    return one.shape == other.shape and all(
        torch.equal(one.load(rows), other.load(rows)) for rows in row_blocks(one, _BLOCK_BYTES, 1)
    )
