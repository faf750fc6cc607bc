"""Read what adapters record about their training before a weight is read: base, quantization and prompt."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import ConfigError, MergeError, PromptMismatchError
from sqlquarry.extras import require
from sqlquarry.files.locations import located
from sqlquarry.manifests import Manifest, read_manifest
from sqlquarry.merging.base_checkpoint import BaseCheckpoint
from sqlquarry.merging.four_bit import differing_offset
from sqlquarry.merging.lora_adapter import LoraAdapter
from sqlquarry.merging.plan import MergePlan, plan_merge
from sqlquarry.prompt import PromptFormatter
from sqlquarry.quantization import QuantizationRecipe

# One adapter, or several with the weight of each.
Adapters = AdapterCheckpoint | Sequence[tuple[AdapterCheckpoint, float]]


@dataclass(frozen=True, slots=True)
class TrainedAdapters:
    """Adapters with valid manifests and files, and what they have in common.

    Args:
        adapters: each with its weight.
        base: name, path and sha256 of the base model.
        recipe: how the base was quantized in training; None if it was not.
        formatter: the prompt.
    """

    adapters: Sequence[tuple[AdapterCheckpoint, float]]
    base: Mapping[str, str]
    recipe: QuantizationRecipe | None
    formatter: PromptFormatter

    @classmethod
    def open(cls, adapters: Adapters) -> TrainedAdapters:
        """Check manifests, files and prompts.

        Raises:
            ConfigError: there is no adapter.
            CorruptArtifactError: a file differs from its manifest.
            PromptMismatchError: a prompt is not the one that was trained with, or two differ.
            MergeError: a manifest does not name the base, or two name different ones.
        """
        require("merge", "AdapterMerger")
        if adapters is None or isinstance(adapters, str | os.PathLike):
            given = None if adapters is None else str(located(adapters))
            raise ConfigError(
                f"merge() got {given!r:.200}, but needs an adapter. Open it first: AdapterCheckpoint.load(…)."
            )
        adapters = [(adapters, 1.0)] if isinstance(adapters, AdapterCheckpoint) else list(adapters)
        if not adapters:
            raise ConfigError("merge() got no adapter. Give one, or a list of (adapter, weight).")
        formatter = PromptFormatter.load(adapters[0][0].path)
        origins = []
        for adapter, _ in adapters:
            manifest = read_manifest(adapter.path, AdapterCheckpoint.kind, verify=True)
            manifest.require_prompt(PromptFormatter.load(adapter.path).fingerprint)
            if manifest.provenance.get("prompt_fingerprint") != formatter.fingerprint:
                raise PromptMismatchError(
                    f"{adapter.path} was trained with prompt {manifest.provenance.get('prompt_fingerprint')!r} and "
                    f"{adapters[0][0].path} with {formatter.fingerprint!r}; a merged model has one. Merge them apart."
                )
            origins.append(_trained_on(manifest))
        base, recipe = origins[0]
        for (adapter, _), (other_base, other_recipe) in zip(adapters, origins, strict=True):
            if other_base["sha256"] != base["sha256"] or other_recipe != recipe:
                raise MergeError(
                    f"{adapter.path} was trained on another base than {adapters[0][0].path}, or on one that was "
                    "quantized in another way. Merge adapters of one base only."
                )
        return cls(adapters, base, recipe, formatter)

    @property
    def adapter_digest(self) -> str:
        """The adapter's digest; of several, one over their digests and weights."""
        if len(self.adapters) == 1 and self.adapters[0][1] == 1.0:
            return self.adapters[0][0].manifest.digest
        pairs = [[adapter.manifest.digest, weight] for adapter, weight in self.adapters]
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()

    def require_base(self, checkpoint: BaseCheckpoint) -> None:
        """Compare a sample of the base's weights with what training recorded of its 4-bit ones, in milliseconds.

        The rest is compared by SHA-256 while it is read for the merge.

        Raises:
            MergeError: other weights than the adapter was trained on.
        """
        if self.recipe and (different := differing_offset(checkpoint.tensors, self.recipe)):
            module, found, recorded = different
            raise checkpoint.another(f"mean 4-bit scale of {module} {found:.6g}, trained on {recorded:.6g}")

    def plan(self, checkpoint: BaseCheckpoint) -> MergePlan:
        """Plan what the adapters make of the base; reads every adapter tensor once."""
        adapters = [(LoraAdapter.open(adapter.path), weight) for adapter, weight in self.adapters]
        plan = plan_merge(adapters, checkpoint.tensors, tied=checkpoint.tied)
        for lora, _ in adapters:
            lora.require_finite()
        return plan


def _trained_on(manifest: Manifest) -> tuple[dict[str, str], QuantizationRecipe | None]:
    """Return what an adapter was trained on: the base's name, path and sha256, and how it was quantized."""
    try:
        base = manifest.provenance["base_model"]
        trained_on = {key: str(base[key]) for key in ("name", "path", "sha256")}
        fields = manifest.provenance["quantization"]
        recipe = None if fields is None else QuantizationRecipe.of(fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MergeError(
            f"the adapter's manifest does not say what it was trained on ({error}). Train it again with this version."
        ) from error
    return trained_on, recipe
