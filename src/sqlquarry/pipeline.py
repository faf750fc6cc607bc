"""All stages in one call, from training to the report. Each stage is also a class of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.artifacts import AdapterCheckpoint, MergedModel
from sqlquarry.bedrock import BedrockImporter
from sqlquarry.judging import Report, SQLJudge
from sqlquarry.merging import AdapterMerger
from sqlquarry.models import ImportedModel
from sqlquarry.records import Record
from sqlquarry.training import QLoRAFSDPTrainer

_DEFAULT_MERGER = AdapterMerger()


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """The results of all stages.

    Args:
        adapter: the trained adapter.
        merged: the full model.
        model: the imported model, ready to answer.
        report: the judgements of its answers.
    """

    adapter: AdapterCheckpoint
    merged: MergedModel
    model: ImportedModel
    report: Report


def run_pipeline(
    train: Sequence[Record],
    test: Sequence[Record],
    *,
    trainer: QLoRAFSDPTrainer,
    importer: BedrockImporter,
    judge: SQLJudge,
    name: str,
    s3_uri: str | Path,
    output_dir: str | Path,
    merger: AdapterMerger = _DEFAULT_MERGER,
    max_tokens: int = 512,
) -> PipelineResult:
    """Train an adapter, merge it, import the model into Bedrock, generate answers and judge them.

    Each stage saves its result in `output_dir` or on S3, so a second call resumes where the first one stopped.

    Args:
        train: records to train on.
        test: records to judge the imported model on.
        trainer: base model, prompt and training configuration.
        importer: IAM role and AWS session for the import.
        judge: graders.
        name: name of the imported model.
        s3_uri: S3 prefix for the merged model, ``s3://bucket/prefix``.
        output_dir: directory for ``adapter/`` and ``merged/``.
        merger: merges the adapter, by default into the weights that it was trained on.
        max_tokens: maximum length of an answer in tokens.

    Raises:
        SQLQuarryError: a stage failed. The class depends on the stage.
    """
    output = Path(output_dir)
    adapter = trainer.train(train, output_dir=output / "adapter")
    merged = merger.merge(adapter, output / "merged")
    model = importer.import_model(merged, name, s3_uri=s3_uri).with_options(max_tokens=max_tokens)
    return PipelineResult(adapter, merged, model, judge.evaluate(test, model))
