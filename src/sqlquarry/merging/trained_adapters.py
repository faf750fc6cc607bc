"""Read the base, quantization and prompt that adapters were trained with, before any weight is read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import ConfigError, MergeError, PromptMismatchError, UnsupportedAdapterError
from sqlquarry.extras import require
from sqlquarry.files.locations import located
from sqlquarry.manifests import Manifest, read_manifest
from sqlquarry.merging.base_checkpoint import BaseCheckpoint
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
            MergeError: a manifest does not name the base, or two adapters have different bases.
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

    def plan(self, checkpoint: BaseCheckpoint) -> MergePlan:
        """Plan the merge into the base. This reads every adapter tensor once."""
        adapters = [(LoraAdapter.open(adapter.path), weight) for adapter, weight in self.adapters]
        plan = plan_merge(adapters, checkpoint.tensors, tied=checkpoint.tied)
        if "vocab_size" in plan.config and (
            "vocab_size" not in checkpoint.config or "text_config" in checkpoint.config
        ):
            raise UnsupportedAdapterError(
                f"the adapter changes the vocabulary to {plan.config['vocab_size']} tokens, but config.json of "
                f"{checkpoint.storage} has no vocab_size of its own, or describes a multimodal model. Train without "
                "new tokens."
            )
        for lora, _ in adapters:
            lora.require_finite()
        return plan


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
