"""Merge finished adapters into a full model in safetensors."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlquarry.artifacts import AdapterCheckpoint, MergedModel
from sqlquarry.errors import ConfigError, MergeError
from sqlquarry.files.locations import S3Location, located
from sqlquarry.files.metadata import JsonObject
from sqlquarry.manifests import MANIFEST
from sqlquarry.merging.base_checkpoint import BaseCheckpoint, locate_base
from sqlquarry.merging.carried_files import CarriedFiles
from sqlquarry.merging.merge_job import MergeJob
from sqlquarry.merging.merged_tensors import MergedTensors
from sqlquarry.merging.output import MergeOutput, OutputShard, plan_shards
from sqlquarry.merging.output_tokenizer import changed_tokenizer
from sqlquarry.merging.plan import MergePlan
from sqlquarry.merging.shard_writing import write_shards
from sqlquarry.merging.storage.opening import open_storage
from sqlquarry.merging.tensor_file import FLOATS
from sqlquarry.merging.trained_adapters import Adapters, TrainedAdapters
from sqlquarry.merging.verification.comparison import compare
from sqlquarry.merging.verification.results import Thresholds, require_thresholds
from sqlquarry.options import check_options, check_rules
from sqlquarry.prompt import PROMPT_FILE
from sqlquarry.provenance import Verification
from sqlquarry.quantization import QuantizationRecipe
from sqlquarry.records import Record, record_fields

if TYPE_CHECKING:
    import boto3

_STORED_AS = {torch_name: name for name, (torch_name, _) in FLOATS.items()}


@check_options()
@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterMerger:
    """Merge LoRA adapters into their base model, a few rows at a time, in fp32 with one rounding at the end.

    Args:
        base: the weights that the update is added to. "original" means the weights of the checkpoint. "dequantized"
            means the 4-bit values that the adapter was trained on. "auto" means "dequantized" if the adapter was
            trained on 4-bit weights, and "original" otherwise. With evaluation records, "auto" measures both and takes
            the one that is closer to the adapter on its training base.
        base_model: directory, ``s3://`` prefix or hub id of the base. A hub id is looked up in the local hub cache, and
            nothing is downloaded. None means the location that the adapter's manifest records.
        dtype: dtype of the merged weights: "bfloat16", "float16" or "float32". "auto" keeps the dtype of the base.
        max_shard_bytes: shards of the base that are larger are split.
        thresholds: limits that a merge with evaluation records must meet to be finished. None checks nothing.
        session: the boto3 session for ``s3://``. None uses the default credentials.

    Raises:
        ConfigError: an option is invalid.
    """

    base: Literal["auto", "original", "dequantized"] = "auto"
    base_model: str | Path | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_shard_bytes: int = 5_000_000_000
    thresholds: Thresholds | None = None
    session: boto3.Session | None = None

    def __post_init__(self) -> None:
        check_rules(self, {"max_shard_bytes": (self.max_shard_bytes >= 1, "at least 1")})

    @classmethod
    def published(
        cls,
        *,
        base_model: str | Path | None = None,
        thresholds: Thresholds | None = None,
        session: boto3.Session | None = None,
    ) -> AdapterMerger:
        """Return the merger of the published recipe: original weights, float16, and shards of 2 GB.

        Source: aws-samples/amazon-bedrock-samples, custom-models/import_models/llama-3/
        customized-text-to-sql-model.ipynb, which loads the base in float16, calls PEFT's merge_and_unload, and saves
        with max_shard_size="2GB".

        Args:
            base_model: as for `AdapterMerger`.
            thresholds: as for `AdapterMerger`.
            session: as for `AdapterMerger`.
        """
        return cls(
            base="original",
            base_model=base_model,
            dtype="float16",
            max_shard_bytes=2_000_000_000,
            thresholds=thresholds,
            session=session,
        )

    def merge(
        self, adapter: Adapters, output_dir: str | Path, *, evaluation: Sequence[Record] | None = None
    ) -> MergedModel:
        """Write the full model to `output_dir`, or return the finished merge of the same inputs if it is there.

        An interrupted merge resumes where it stopped. Peak memory does not grow with the size of the model.

        Args:
            adapter: an adapter from the trainer, or several as [(adapter, weight), …] with the same base and prompt.
            output_dir: a new or empty directory or ``s3://bucket/prefix``, or that of an interrupted merge.
            evaluation: held-out records with SQL, for base="auto" and `thresholds`.

        Raises:
            ConfigError: `output_dir`, `base` or `thresholds` is invalid for this adapter.
            CorruptArtifactError: a file of the adapter differs from its manifest.
            PromptMismatchError: the prompt is not the one of the training, or the adapters have different prompts.
            OutputInUseError: another process is merging into the same output.
            UnsupportedAdapterError: the adapter would be merged wrongly. The message gives the reason.
            UnsupportedModelError: the base is already quantized, or not safetensors, or its tokenizer cannot be changed
                for a prompt with ``add_special_tokens=False``.
            UnusedTensorsError: some adapter tensors do not match any tensor of the base.
            MergeError: the base, the adapter, the output or the disk is unsuitable, or the merged model is not close
                enough to the adapter. The message gives the values.
        """
        if self.thresholds and not evaluation:
            raise ConfigError(
                "AdapterMerger(thresholds=...) needs evaluation records to verify the merge. Call merge(..., "
                "evaluation=records)."
            )
        trained = TrainedAdapters.open(adapter)
        with self._output(output_dir) as target:
            return self._merged(trained, target, evaluation)

    def _merged(
        self, trained: TrainedAdapters, target: MergeOutput, evaluation: Sequence[Record] | None
    ) -> MergedModel:
        measuring = self.base == "auto" and bool(evaluation) and trained.recipe is not None
        records = _records_digest(evaluation) if evaluation and (measuring or self.thresholds) else None
        inputs = self._inputs(trained) | {
            "base": self._base_kind(trained.recipe),
            "adapter_digest": trained.adapter_digest,
            "evaluation_sha256": records,
        }
        if measuring and target.found("evaluation_sha256") == records:
            inputs |= {key: target.found(key) for key in ("base", "candidates")}  # measured by an earlier run
            measuring = False
        if not measuring and (finished := target.finished(inputs)) is not None:
            return finished
        checkpoint = self._checkpoint(trained)
        job = self._job(trained, checkpoint, trained.plan(checkpoint), trained.files(checkpoint))
        if measuring and evaluation:
            inputs |= self._measured(job, evaluation)
            if (finished := target.finished(inputs)) is not None:
                return finished
        rows = job.rows(trained.recipe if inputs["base"] == "dequantized" else None, self._stored_dtype)
        return self._assemble(target, job, rows, evaluation)

    def package_base(self, adapter: AdapterCheckpoint, output_dir: str | Path) -> MergedModel:
        """Write the adapter's base model with the adapter's prompt, to compare it with the merged model.

        The weights are unchanged. The base keeps its own tokenizer, because it has no embeddings for tokens that an
        adapter adds. If the prompt leaves out special tokens, the tokenizer changes as in `merge`.

        Args:
            adapter: the adapter whose base model and prompt are used.
            output_dir: as for `merge`.

        Raises:
            MergeError: as for `merge`, or the base's tokenizer makes other tokens from the prompt than the adapter's.
        """
        trained = TrainedAdapters.open(adapter)
        inputs = self._inputs(trained) | {"base": "original", "adapter_digest": None, "evaluation_sha256": None}
        with self._output(output_dir) as target:
            if (finished := target.finished(inputs)) is not None:
                return finished
            checkpoint = self._checkpoint(trained)
            job = self._job(trained, checkpoint, MergePlan({}), CarriedFiles(checkpoint.storage, {}))
            job.require_same_prompt()
            return self._assemble(target, job, job.rows(None, self._stored_dtype), None)

    def verify(self, records: Sequence[Record], adapter: Adapters, merged: MergedModel | str | Path) -> Verification:
        """Compare the merged model with the adapter on the weights that the adapter was trained on.

        Both run in fp32 on the CPU, one layer at a time. To reject a merge by the result, call `require_thresholds`.

        Args:
            records: held-out records with SQL. 16 records already tell a lot, and the time grows with their number.
            adapter: as for `merge`.
            merged: the result of `merge`, or its directory or ``s3://`` prefix.

        Raises:
            UnsupportedModelError: verification is not available for this architecture.
            MergeError: the base, the adapter and the merged model do not belong together.
        """
        trained = TrainedAdapters.open(adapter)
        location = merged.uri if isinstance(merged, MergedModel) else merged
        target = MergeOutput(open_storage(location, self.session), location)
        checkpoint = self._checkpoint(trained)
        return _verification(
            target, self._job(trained, checkpoint, trained.plan(checkpoint), trained.files(checkpoint)), records
        )

    @contextlib.contextmanager
    def _output(self, location: str | Path) -> Iterator[MergeOutput]:
        """Open the output. Reserve it for this process unless it contains a finished merge."""
        if isinstance(place := located(location), S3Location):
            place.require_prefix("the output of a merge")
        storage = open_storage(location, self.session)
        with contextlib.nullcontext() if MANIFEST in storage.sizes() else storage.reserve():
            yield MergeOutput(storage, location)

    def _inputs(self, trained: TrainedAdapters) -> JsonObject:
        return {
            "base_sha256": trained.base["sha256"],
            "dtype": None if self.dtype == "auto" else self.dtype,  # as in manifests
            "max_shard_bytes": self.max_shard_bytes,
        }

    @property
    def _stored_dtype(self) -> str | None:
        return None if self.dtype == "auto" else _STORED_AS[self.dtype]

    def _checkpoint(self, trained: TrainedAdapters) -> BaseCheckpoint:
        location = locate_base(self.base_model, trained.base)
        checkpoint = BaseCheckpoint.open(open_storage(location, self.session))
        trained.require_base(checkpoint)
        return checkpoint

    @staticmethod
    def _job(trained: TrainedAdapters, checkpoint: BaseCheckpoint, plan: MergePlan, files: CarriedFiles) -> MergeJob:
        return MergeJob(trained, checkpoint, plan, files, changed_tokenizer(files, trained.formatter))

    def _base_kind(self, recipe: QuantizationRecipe | None) -> str:
        kind = ("original" if recipe is None else "dequantized") if self.base == "auto" else self.base
        if kind == "dequantized" and recipe is None:
            raise ConfigError(
                "base is 'dequantized', but this adapter was trained on full-precision weights and has no 4-bit "
                "recipe. Use base='auto'."
            )
        if kind == "dequantized" and recipe and recipe.quant_type == "fp4" and recipe.device == "cuda":
            raise MergeError(
                "the adapter was trained on FP4 weights that were quantized on CUDA, and a CPU does not reproduce "
                "their codes exactly. Train with quantization='nf4', or accept the larger error of base='original'."
            )
        return kind

    def _measured(self, job: MergeJob, records: Sequence[Record]) -> JsonObject:
        """Measure both kinds of base. Return the one closer to the adapter on its training base, and both results."""
        candidates = {
            kind: job.rows(recipe, self._stored_dtype)
            for kind, recipe in (("dequantized", job.trained.recipe), ("original", None))
        }
        found = compare(job.config, job.reference, list(candidates.values()), job.examples(records))
        numbers = {kind: asdict(one) for kind, one in zip(candidates, found, strict=True)}
        return {"base": min(numbers, key=lambda kind: numbers[kind]["kl"]), "candidates": numbers}

    def _assemble(
        self, target: MergeOutput, job: MergeJob, rows: MergedTensors, evaluation: Sequence[Record] | None
    ) -> MergedModel:
        """Write the shards, the metadata and finally the manifest."""
        checkpoint, adapters = job.checkpoint, job.trained.adapters
        shards = plan_shards(checkpoint.shards, rows, self.max_shard_bytes)
        expected = job.trained.base["sha256"]
        # The base is normally hashed while it is read for the merge. That does not work for files that are split or
        # contain a tensor that the adapter replaces by a resized one.
        whole = {shard.source.file.name for shard in shards if shard.source} == {
            one.file.name for one in checkpoint.shards
        }
        if not whole and (error := checkpoint.mismatch(checkpoint.digest({}), expected)):
            raise error
        write_shards(target, shards, rows)
        if whole and (error := checkpoint.mismatch(checkpoint.digest(_source_digests(target, shards)), expected)):
            target.discard()
            raise error
        changes = job.changes(self._stored_dtype)
        prompt = adapters[0][0].path / PROMPT_FILE
        target.carry_over(job.files, prompt, shards, rows, changes, tokenizer=job.tokenizer)
        merge = target.inputs | _statistics(target.relative_updates)
        if len(adapters) > 1:
            merge["adapters"] = [{"digest": one.manifest.digest, "weight": weight} for one, weight in adapters]
        if self.thresholds and evaluation:
            verification = _verification(target, job, evaluation)
            require_thresholds(verification, self.thresholds)
            merge["verification"] = asdict(verification)
        came_from = adapters[0][0].manifest.provenance
        provenance = {
            **{key: came_from.get(key) for key in ("base_model", "prompt_fingerprint", "quantization", "data_sha256")},
            "merge": merge,
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "bitsandbytes")},
        }
        return target.finish(shards, provenance)


def _verification(target: MergeOutput, job: MergeJob, records: Sequence[Record]) -> Verification:
    written, reference = BaseCheckpoint.open(target.storage).tensors, job.reference
    shapes, expected = ({name: one.shape for name, one in model.items()} for model in (written, reference.tensors))
    if different := sorted({name for name, _ in shapes.items() ^ expected.items()}):
        name = different[0]
        raise MergeError(
            f"{target.location} is not a merge of this adapter into its base: its shape of {name} is "
            f"{shapes.get(name)}, not {expected.get(name)}. Pass the model that was merged from this adapter."
        )
    (agreement,) = compare(job.config, reference, [MergedTensors(written, {}, None)], job.examples(records))
    return Verification(
        agreement=agreement,
        coverage=1.0,  # plan_merge refuses an adapter with unused tensors
        largest_update=max((value for value in target.relative_updates.values() if value is not None), default=0.0),
        changed_tensors=len(job.plan.updates),
    )


def _source_digests(target: MergeOutput, shards: Sequence[OutputShard]) -> dict[str, str]:
    """Return file name -> SHA-256 of the base's files that the finished shards were computed from."""
    pairs = [(shard.source, target.done[shard.name].source_sha256) for shard in shards]
    return {source.file.name: sha256 for source, sha256 in pairs if source and sha256}


def _statistics(relative_updates: Mapping[str, float | None]) -> JsonObject:
    sizes = [value for value in relative_updates.values() if value is not None]
    return {
        "merged_tensors": len(relative_updates),
        "mean_relative_update": statistics.fmean(sizes) if sizes else None,
        "relative_updates": dict(sorted(relative_updates.items())),
    }


def _records_digest(records: Sequence[Record]) -> str:
    return hashlib.sha256(json.dumps([record_fields(record) for record in records]).encode()).hexdigest()
