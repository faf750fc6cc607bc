"""All stages on a tiny model: train, merge, import into the emulated Bedrock, serve and judge."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import pytest

import sqlquarry as sq
from sqlquarry.aws.polling import Polling
from sqlquarry.emulator import LocalAWS
from sqlquarry.errors import PreflightError, PromptMismatchError
from sqlquarry.pipeline import PipelineResult

from conftest import toy_examples

RECORDS = [sq.Record(**example, id=f"toy-{number}") for number, example in enumerate(toy_examples(20))]
CONFIG = sq.TrainingConfig(num_train_epochs=2, records_per_step=20, max_length=1024, learning_rate=1e-3, device="cpu")


def run(base: Path, output: Path, aws: LocalAWS, records: Sequence[sq.Record] = RECORDS) -> PipelineResult:
    return sq.run_pipeline(
        records,
        records[:8],
        trainer=sq.QLoRAFSDPTrainer(base, config=CONFIG),
        importer=sq.BedrockImporter(aws.role_arn, session=aws.session(), polling=Polling(interval_s=0.01)),
        judge=sq.SQLJudge([sq.ExactGrader()]),
        name="tiny-sql",
        s3_uri=f"s3://{aws.bucket}/tiny/",
        output_dir=output,
        max_tokens=24,
    )


@pytest.fixture(scope="module")
def work(lively_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PipelineResult, Path]:
    output = tmp_path_factory.mktemp("pipeline")
    with LocalAWS(cold_start_calls=0) as aws:
        return run(lively_llama, output, aws), output


def test_served_answers_are_those_of_the_merged_weights(work: tuple[PipelineResult, Path]) -> None:
    result, _ = work
    local = sq.LocalModel(result.merged, max_tokens=24, device="cpu")
    questions = [dataclasses.replace(record, sql=None) for record in RECORDS[:8]]
    served = [entry.answer for entry in result.report.entries]
    assert served == [answer.text for answer in local.generate(questions)]
    assert len(set(served)) > 4


def test_the_merged_model_agrees_with_the_trained_adapter(work: tuple[PipelineResult, Path], tmp_path: Path) -> None:
    result, _ = work
    trained = sq.LocalModel(result.adapter, device="cpu")
    original = sq.AdapterMerger(base="original").merge(result.adapter, tmp_path / "original")
    drift = {
        name: divergence(trained, sq.LocalModel(merged, device="cpu"))
        for name, merged in {"dequantized": result.merged, "original": original}.items()
    }
    assert drift["dequantized"] < 0.05 * drift["original"], drift


def divergence(model: sq.LocalModel, other: sq.LocalModel) -> float:
    """Return the mean Kullback-Leibler divergence of the next token over the training texts."""
    import torch

    formatter = model.formatter
    assert formatter is not None
    total = 0.0
    for record in RECORDS[:8]:
        ids = torch.tensor([formatter.encode(record, model.tokenizer).input_ids])
        with torch.inference_mode():
            p, q = (one.model(input_ids=ids).logits[0].log_softmax(-1) for one in (model, other))
        total += torch.nn.functional.kl_div(q, p, log_target=True, reduction="batchmean").item()
    return total


def test_all_stages_use_the_same_prompt(work: tuple[PipelineResult, Path]) -> None:
    result, _ = work
    fingerprint = sq.PromptFormatter.load(result.adapter.path).fingerprint
    assert result.adapter.prompt_fingerprint == result.merged.prompt_fingerprint == fingerprint
    assert result.model.formatter.fingerprint == fingerprint


def test_a_second_run_resumes_where_the_first_one_stopped(
    lively_llama: Path, work: tuple[PipelineResult, Path]
) -> None:
    first, output = work
    stamps = {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")}
    with LocalAWS() as aws:  # in a new account, upload and import run again, but training and merging do not
        second = run(lively_llama, output, aws)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.safetensors")} == stamps
    assert [entry.answer for entry in second.report.entries] == [entry.answer for entry in first.report.entries]


def test_another_prompt_is_refused_at_the_merge_and_at_the_import(
    work: tuple[PipelineResult, Path], tmp_path: Path
) -> None:
    import shutil

    result, _ = work
    other = dataclasses.replace(
        sq.PromptFormatter.load(result.adapter.path), user="Write SQL for this: {question}", tokens=None
    )
    adapter_copy = shutil.copytree(result.adapter.path, tmp_path / "adapter")
    bound = other.bind(sq.LocalModel(result.merged.path, device="cpu").tokenizer)
    bound.save(adapter_copy)
    with pytest.raises(sq.SQLQuarryError):
        sq.AdapterMerger().merge(sq.AdapterCheckpoint(adapter_copy, result.adapter.manifest), tmp_path / "merged")
    merged_copy = shutil.copytree(result.merged.path, tmp_path / "other")
    bound.save(merged_copy)
    with LocalAWS() as aws, pytest.raises((PreflightError, PromptMismatchError)):
        sq.BedrockImporter(aws.role_arn, session=aws.session()).import_model(
            sq.MergedModel(merged_copy, result.merged.manifest), "tiny-sql", s3_uri=f"s3://{aws.bucket}/other/"
        )


PACKAGE = Path(sq.__file__).parent
ROOMS = ("data", "training", "merging", "bedrock", "models", "judging", "sagemaker")


def room_of(frame: FrameType | None) -> str:
    """Return the innermost room that a call comes from, or "user" if it comes from outside or from shared modules."""
    while frame:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE) and (room := path.relative_to(PACKAGE).parts[0]) in ROOMS:
            return room
        frame = frame.f_back
    return "user"


def test_each_room_gets_records_from_one_caller(lively_llama: Path, tmp_path: Path) -> None:
    """From `load_records` to the report, each room gets records from only one other room."""
    sq.Records(RECORDS).to_jsonl(tmp_path / "records.jsonl")
    entered: set[tuple[str, str]] = set()  # (room that passes records, room that gets them)

    def contains_record(value: object) -> bool:
        return isinstance(value, sq.Record) or (
            isinstance(value, list | tuple | sq.Records) and any(isinstance(one, sq.Record) for one in value[:1])
        )

    def follow(frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(str(PACKAGE)):
            return
        caller, callee = room_of(frame.f_back), room_of(frame)
        if caller != callee:
            arguments = [value for name, value in frame.f_locals.items() if name != "self"]
            if any(map(contains_record, arguments)):
                entered.add((caller, callee))

    with LocalAWS(cold_start_calls=0) as aws:
        sys.setprofile(follow)
        try:
            run(lively_llama, tmp_path, aws, sq.load_records(tmp_path / "records.jsonl"))
        finally:
            sys.setprofile(None)
    assert entered == {("user", "training"), ("user", "judging"), ("judging", "models")}
