"""Join adapters, their base and the plan into one merge: its weights, small files and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlquarry.errors import MergeError
from sqlquarry.files.metadata import JsonObject
from sqlquarry.merging.base_checkpoint import BaseCheckpoint
from sqlquarry.merging.carried_files import CarriedFiles
from sqlquarry.merging.merged_tensors import MergedTensors
from sqlquarry.merging.output import dtype_changes
from sqlquarry.merging.plan import MergePlan
from sqlquarry.merging.trained_adapters import TrainedAdapters, vocabulary_rows
from sqlquarry.merging.verification.examples import Examples
from sqlquarry.quantization import QuantizationRecipe
from sqlquarry.records import Record

_PROBE = Record(question="How many singers are there?", schema="CREATE TABLE singer (id INT)", sql="SELECT 1")


@dataclass(frozen=True, slots=True)
class MergeJob:
    """Adapters, their base, and the plan for merging them.

    Args:
        trained: the adapters.
        checkpoint: the base.
        plan: what the adapters change.
        files: the small files of the output.
        tokenizer: contents of the tokenizer's files that differ from those in `files`, by name.
    """

    trained: TrainedAdapters
    checkpoint: BaseCheckpoint
    plan: MergePlan
    files: CarriedFiles
    tokenizer: Mapping[str, bytes]

    def rows(self, recipe: QuantizationRecipe | None, dtype: str | None) -> MergedTensors:
        """Return the merged model's tensors. With a recipe, the update is added to the 4-bit values."""
        return MergedTensors.planned(self.checkpoint.tensors, self.plan, recipe, dtype)

    @property
    def reference(self) -> MergedTensors:
        """The adapter on its training base, in fp32."""
        return self.rows(self.trained.recipe, "F32")

    @property
    def config(self) -> JsonObject:
        """The merged model's config.json."""
        return {**self.checkpoint.config, **self.plan.config}

    def changes(self, dtype: str | None) -> dict[str, JsonObject]:
        """Return JSON file -> its fields that differ from those of the base.

        Args:
            dtype: the output's dtype by safetensors' name. None keeps the base's.
        """
        found: dict[str, JsonObject] = {}
        if self.files.own or "vocab_size" in self.plan.config:
            found = self.files.changes(vocabulary_rows(self.checkpoint, self.plan))
        own = {**self.plan.config, **dtype_changes(self.checkpoint.config, dtype)}
        return {**found, "config.json": {**found.get("config.json", {}), **own}}

    def examples(self, records: Sequence[Record]) -> Examples:
        """Encode records with the merged model's tokenizer."""
        return Examples.encode(records, self.trained.formatter, self.files.tokenizer())

    def require_same_prompt(self) -> None:
        """Check that the base's tokenizer makes the same tokens from the prompt as the adapter's own.

        Raises:
            MergeError: a token of the prompt is not in the base.
        """
        own = self.trained.files(self.checkpoint)
        if not own.own:
            return
        encoded = [self.trained.formatter.encode(_PROBE, files.tokenizer()).input_ids for files in (own, self.files)]
        if encoded[0] != encoded[1]:
            place = next((n for n, pair in enumerate(zip(*encoded, strict=False)) if pair[0] != pair[1]), -1)
            raise MergeError(
                f"the base cannot be packaged with this adapter's prompt: its tokenizer makes {encoded[1][place]} at "
                f"token {place}, and the adapter's makes {encoded[0][place]}, because the adapter's training added "
                "tokens. Compare with the base under a prompt of its own: LocalModel(base, formatter=…)."
            )
