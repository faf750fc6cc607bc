"""Read the base, quantization and prompt that adapters were trained with, before any weight is read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.checkpoints.adapter_tables import EMBEDDING
from sqlquarry.errors import (
    ConfigError,
    MergeError,
    PromptMismatchError,
    UnsupportedAdapterError,
    UnsupportedModelError,
)
from sqlquarry.extras import require
from sqlquarry.files.locations import located
from sqlquarry.manifests import Manifest, read_manifest
from sqlquarry.merging.base_checkpoint import BaseCheckpoint
from sqlquarry.merging.carried_files import CarriedFiles
from sqlquarry.merging.four_bit import differing_offset
from sqlquarry.merging.lora_adapter import LoraAdapter
from sqlquarry.merging.plan import MergePlan, plan_merge
from sqlquarry.prompt import PromptFormatter
from sqlquarry.quantization import QuantizationRecipe

# One adapter, or several adapters with their weights.
Adapters = AdapterCheckpoint | Sequence[tuple[AdapterCheckpoint, float]]


@dataclass(frozen=True, slots=True)
class TrainedAdapters:
    """Adapters with valid manifests and files, and their common base and prompt.

    Args:
        adapters: each adapter with its weight.
        base: name, path and sha256 of the base model.
        recipe: how the base was quantized in training, or None if it was not.
        formatter: the prompt.
    """

    adapters: Sequence[tuple[AdapterCheckpoint, float]]
    base: Mapping[str, str]
    recipe: QuantizationRecipe | None
    formatter: PromptFormatter

    @classmethod
    def open(cls, adapters: Adapters) -> TrainedAdapters:
        """Check the manifests, files and prompts of adapters.

        Raises:
            ConfigError: there is no adapter.
            CorruptArtifactError: a file differs from its manifest.
            PromptMismatchError: a prompt is not the one of the training, or two adapters have different prompts.
            MergeError: a manifest does not name the base, or two adapters have different bases or tokenizers.
        """
        require("merge", "AdapterMerger")
        if adapters is None or isinstance(adapters, str | os.PathLike):
            given = None if adapters is None else str(located(adapters))
            raise ConfigError(
                f"merge() got {given!r:.200}, but it needs an AdapterCheckpoint. Call AdapterCheckpoint.load(…) first."
            )
        adapters = [(adapters, 1.0)] if isinstance(adapters, AdapterCheckpoint) else list(adapters)
        if not adapters:
            raise ConfigError("merge() got no adapter. Pass one adapter, or a list of (adapter, weight).")
        formatter = PromptFormatter.load(adapters[0][0].path)
        origins = []
        for adapter, _ in adapters:
            manifest = read_manifest(adapter.path, AdapterCheckpoint.kind, verify=True)
            manifest.require_prompt(PromptFormatter.load(adapter.path).fingerprint)
            if manifest.provenance.get("prompt_fingerprint") != formatter.fingerprint:
                raise PromptMismatchError(
                    f"{adapter.path} was trained with prompt {manifest.provenance.get('prompt_fingerprint')!r} and "
                    f"{adapters[0][0].path} with {formatter.fingerprint!r}, but a merged model has only one prompt. "
                    "Merge them separately."
                )
            origins.append(_trained_on(manifest))
        base, recipe = origins[0]
        for (adapter, _), (other_base, other_recipe) in zip(adapters, origins, strict=True):
            if other_base["sha256"] != base["sha256"] or other_recipe != recipe:
                raise MergeError(
                    f"{adapter.path} and {adapters[0][0].path} were trained on different bases, or on differently "
                    "quantized weights of the same base. Merge only adapters that have the same base."
                )
            if _tokenizer_digests(adapter) != _tokenizer_digests(adapters[0][0]):
                raise MergeError(
                    f"{adapter.path} and {adapters[0][0].path} have different tokenizers, but a merged model has only "
                    "one. Merge them separately."
                )
        return cls(adapters, base, recipe, formatter)

    @property
    def adapter_digest(self) -> str:
        """The adapter's digest, or for several adapters one digest over their digests and weights."""
        if len(self.adapters) == 1 and self.adapters[0][1] == 1.0:
            return self.adapters[0][0].manifest.digest
        pairs = [[adapter.manifest.digest, weight] for adapter, weight in self.adapters]
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()

    def require_base(self, checkpoint: BaseCheckpoint) -> None:
        """Compare a sample of the base's weights with the 4-bit scales that training recorded, in milliseconds.

        The SHA-256 of the whole base is compared later, when the weights are read for the merge.

        Raises:
            MergeError: the adapter was trained on other weights.
        """
        if self.recipe and (different := differing_offset(checkpoint.tensors, self.recipe)):
            module, found, recorded = different
            raise checkpoint.another(
                f"the mean 4-bit scale of {module} is {found:.6g}, but it was {recorded:.6g} in training"
            )

    def files(self, checkpoint: BaseCheckpoint) -> CarriedFiles:
        """Return the small files of the merged model, with the tokenizer that the adapters were trained with."""
        return CarriedFiles(checkpoint.storage, self.adapters[0][0].tokenizer_files)

    def plan(self, checkpoint: BaseCheckpoint) -> MergePlan:
        """Plan the merge into the base. This reads every adapter tensor once."""
        adapters = [(LoraAdapter.open(adapter.path), weight) for adapter, weight in self.adapters]
        plan = plan_merge(adapters, checkpoint.tensors, tied=checkpoint.tied)
        resized = "vocab_size" in plan.config
        if resized and ("vocab_size" not in checkpoint.config or "text_config" in checkpoint.config):
            raise UnsupportedAdapterError(
                f"the adapter changes the vocabulary to {plan.config['vocab_size']} tokens, but config.json of "
                f"{checkpoint.storage} has no vocab_size of its own, or describes a multimodal model. Train without "
                "new tokens."
            )
        files = self.files(checkpoint)
        if files.own or (resized and "tokenizer.json" in files.names()):
            files.require_rows(vocabulary_rows(checkpoint, plan))
        for lora, _ in adapters:
            lora.require_finite()
        return plan


def vocabulary_rows(checkpoint: BaseCheckpoint, plan: MergePlan) -> int:
    """Return the number of rows of the merged model's embedding.

    Raises:
        UnsupportedModelError: the base has no embedding of a known name.
    """
    rows = next((one.shape[0] for name, one in checkpoint.tensors.items() if EMBEDDING.fullmatch(name)), None)
    if rows is None:
        raise UnsupportedModelError(
            f"{checkpoint.storage} has no embed_tokens.weight, so the adapter's tokenizer cannot be checked. Save the "
            "adapter without a tokenizer."
        )
    return int(plan.config.get("vocab_size", rows))


def _tokenizer_digests(adapter: AdapterCheckpoint) -> dict[str, str | int]:
    return {name: adapter.manifest.files[name]["sha256"] for name in adapter.tokenizer_files}


def _trained_on(manifest: Manifest) -> tuple[dict[str, str], QuantizationRecipe | None]:
    """Return the name, path and sha256 of the base that an adapter was trained on, and how the base was quantized."""
    try:
        base = manifest.provenance["base_model"]
        trained_on = {key: str(base[key]) for key in ("name", "path", "sha256")}
        fields = manifest.provenance["quantization"]
        recipe = None if fields is None else QuantizationRecipe.of(fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MergeError(
            f"the adapter's manifest does not record the base of its training ({type(error).__name__}: {error}). Train "
            "the adapter again with this version."
        ) from error
    return trained_on, recipe
