"""The whole way in one call; each stage is a class that can be used alone."""

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
    """What each stage left behind.

    Args:
        adapter: the trained adapter.
        merged: the full model.
        model: the imported model, ready to answer.
        report: how good its answers were.
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
    """Train, merge, import, generate and judge.

    Every stage keeps its result below `output_dir` or on S3, so a second call resumes where the first stopped.

    Args:
        train: records to learn from.
        test: records to judge the served model on.
        trainer: base model, prompt and training configuration.
        importer: role and account to import with.
        judge: graders.
        name: name of the imported model.
        s3_uri: prefix that receives the merged model, ``s3://bucket/prefix``.
        output_dir: receives ``adapter/`` and ``merged/``.
        merger: how the adapter is merged; by default into the weights that it was trained on.
        max_tokens: longest answer, in tokens.

    Raises:
        SQLQuarryError: of the stage that failed.
    """
    output = Path(output_dir)
    adapter = trainer.train(train, output_dir=output / "adapter")
    merged = merger.merge(adapter, output / "merged")
    model = importer.import_model(merged, name, s3_uri=s3_uri).with_options(max_tokens=max_tokens)
    return PipelineResult(adapter, merged, model, judge.evaluate(test, model))
