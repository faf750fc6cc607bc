"""TRL's trainer in one process: the same step as our engine, the published recipe, resuming, and what is refused."""

from __future__ import annotations

import json
import logging
import random
import signal
import subprocess
import sys
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer
from trl import SFTTrainer, pack_dataset

from sqlquarry import PromptFormatter
from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import RecordError, TrainingError, TrainingInterruptedError
from sqlquarry.records import Record
from sqlquarry.tokenizing.encoded import EncodedRecords
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig
from sqlquarry.training.encoding.whole_text import count_wrapped, encode_whole, wrap
from training_runs import difference, log_of
from trl_runs import HELD_OUT, OPTIONS, TRAIN, Seen, run

from conftest import tiny_tokenizer


@pytest.fixture(scope="module")
def uninterrupted(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterCheckpoint:
    return run(tiny_llama, tmp_path_factory.mktemp("run") / "adapter", evaluation=HELD_OUT)


@pytest.mark.parametrize(("quantization", "packing"), [(None, True), ("nf4", False)])
def test_one_step_equals_one_of_our_engine(
    tiny_llama: Path, tmp_path: Path, quantization: str | None, packing: bool
) -> None:
    options = {"num_train_epochs": 1, "records_per_step": 8, "learning_rate": 1e-3, "warmup_ratio": 0.0}
    options |= {"lora_dropout": 0.0, "quantization": quantization, "max_grad_norm": 0.5, "max_length": 512}
    ours = run(tiny_llama, tmp_path / "ours", evaluation=HELD_OUT, backend="sqlquarry", **options)
    theirs = run(tiny_llama, tmp_path / "theirs", evaluation=HELD_OUT, sft_config={"packing": packing}, **options)
    assert theirs.run.rows == (4 if packing else 8)
    assert difference(ours.path, theirs.path) < 1e-5
    moved = load_file(ours.path / "adapter_model.safetensors")
    assert max(value.abs().max().item() for name, value in moved.items() if "lora_B" in name) > 5e-4
    (mine,), (other,) = log_of(ours.path), log_of(theirs.path)
    assert mine["grad_norm"] > 0.5  # so that clipping is compared too
    for figure in ("loss", "grad_norm", "learning_rate"):
        assert other[figure] == pytest.approx(mine[figure], rel=1e-5)
    assert ours.manifest.provenance["quantization"] == theirs.manifest.provenance["quantization"]


def test_the_published_recipe_learns_whole_texts_in_rows_that_mix_and_cut_records(
    tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen, formatter = Seen(batches=True), PromptFormatter.published()
    config = TrainingConfig.published(device="cpu", max_length=256, sft_config={"gradient_accumulation_steps": 5})
    trainer = QLoRAFSDPTrainer(tiny_llama, formatter=formatter, config=config, callbacks=[seen])
    with caplog.at_level(logging.WARNING, "sqlquarry"):
        adapter = trainer.train(TRAIN, output_dir=tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    texts = [formatter.text(record, tokenizer) for record in TRAIN]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    ids = [*chain.from_iterable(encoded)]
    rows = [batch["input_ids"][0].tolist() for batch in seen.batches]
    assert sorted(rows) == sorted(ids[start : start + 256] for start in range(0, len(ids), 256))
    for batch in seen.batches:
        assert batch["labels"].tolist() == batch["input_ids"].tolist()
        assert "position_ids" not in batch  # so the records of a row see each other
    ends = [*accumulate(map(len, encoded))]
    cut = sum(begin // 256 != (end - 1) // 256 for begin, end in pairwise([0, *ends]))
    assert f"{cut} of 8 records" in caplog.text
    run = adapter.run
    plan = trainer.plan(TRAIN)
    assert (plan.rows, plan.steps, plan.cut) == (len(rows), run.steps, cut)
    assert (run.rows, run.tokens_per_epoch, run.learning_rate) == (len(rows), len(ids), 2e-4)
    assert run.steps == 2 * -(-len(rows) // 5)
    backend = adapter.manifest.provenance["backend"]
    assert (backend["name"], backend["version"][:2]) == ("trl", "1.")
    facts = {
        "max_grad_norm": 0.3,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": True,
        "optim": "adamw_torch",
    }
    assert backend["sft_config"].items() >= (facts | {"num_train_epochs": 2, "packing_strategy": "wrapped"}).items()
    lora = json.loads((adapter.path / "adapter_config.json").read_text())
    assert (lora["r"], lora["lora_alpha"], lora["lora_dropout"]) == (16, 8, 0.05)
    assert len({name.rpartition(".")[2] for name in lora["target_modules"]}) == 7
    assert adapter.manifest.provenance["quantization"]["storage_dtype"] == "float32"
    assert {entry["learning_rate"] for entry in log_of(adapter.path)} == {2e-4}


@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_the_formatter_decides_whether_whole_texts_begin_with_bos(add_special_tokens: bool) -> None:
    tokenizer = tiny_tokenizer()
    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
    (one,) = encode_whole(TRAIN[:1], PromptFormatter(add_special_tokens=add_special_tokens), tokenizer)
    assert one.input_ids.count(bos[1]) == (one.input_ids[0] == bos[1]) == add_special_tokens
    assert one.labels == one.input_ids


def test_a_plan_has_the_wrapped_rows_that_trl_makes() -> None:
    lengths = random.Random(0).choices(range(1, 60), k=1500)
    ids = [[1000 * number + index for index in range(length)] for number, length in enumerate(lengths)]
    rows = pack_dataset(Dataset.from_dict({"input_ids": ids, "labels": ids}), 32, "wrapped")["input_ids"]
    examples = EncodedRecords()
    for number, one in enumerate(ids):
        examples.append(one[: number % 3], one[number % 3 :])
    learned = {token for one in ids for token in one[one[0] // 1000 % 3 :]}
    assert wrap(examples, 32) == [
        (len(row), sum(token in learned for token in row), sum(token % 1000 == 0 for token in row)) for row in rows
    ]
    row_of = {token: number for number, row in enumerate(rows) for token in row}
    assert count_wrapped(examples.lengths, 32) == sum(row_of[one[0]] != row_of[one[-1]] for one in ids)


def test_answers_are_learned_and_every_file_of_our_engine_is_written(
    uninterrupted: AdapterCheckpoint, tiny_llama: Path, tmp_path: Path
) -> None:
    seen = Seen(batches=True)
    again = run(tiny_llama, tmp_path / "a", seen, sft_config={"packing": False})
    encoded = PromptFormatter().encode_all(TRAIN, AutoTokenizer.from_pretrained(tiny_llama))
    rows = [(batch["input_ids"][0].tolist(), batch["labels"][0].tolist()) for batch in seen.batches]
    assert sorted(rows) == sorted((one.input_ids, one.labels) for one in encoded)
    files = {"README.md", "adapter_config.json", "adapter_model.safetensors", "loss.svg", "prompt.json"}
    for adapter in (uninterrupted, again):
        assert {*adapter.manifest.files} == files | {"training_log.jsonl"}
        assert {path.name for path in adapter.path.iterdir()} == files | {"training_log.jsonl", "manifest.json"}
    log = log_of(uninterrupted.path)
    assert [entry["step"] for entry in log] == [*range(1, uninterrupted.run.steps + 1)]
    assert [entry["step"] for entry in log if "eval_loss" in entry] == [2, 4]
    assert uninterrupted.run.training_loss == pytest.approx(sum(entry["loss"] for entry in log) / len(log))


def test_an_evaluation_does_not_change_what_is_learned(tiny_llama: Path, tmp_path: Path) -> None:
    # With dropout, the random state differs, because creating the iterator over the records takes a random number.
    options = {"quantization": "nf4", "lora_dropout": 0.0}
    one, other = (run(tiny_llama, tmp_path / str(len(held)), evaluation=held, **options) for held in ([], HELD_OUT))
    assert difference(one.path, other.path) == 0.0


def test_a_finished_run_is_returned_and_another_one_is_refused(
    uninterrupted: AdapterCheckpoint, tiny_llama: Path
) -> None:
    seen = Seen()
    assert run(tiny_llama, uninterrupted.path, seen, evaluation=HELD_OUT).manifest == uninterrupted.manifest
    assert not seen.steps
    with pytest.raises(TrainingError, match=r"config\.sft_config.*weight_decay"):
        run(tiny_llama, uninterrupted.path, sft_config={"weight_decay": 0.1})
    with pytest.raises(TrainingError, match=r"config\.backend"):
        run(tiny_llama, uninterrupted.path, backend="sqlquarry")


@pytest.mark.parametrize(
    "changes",
    [{"save_steps": None}, {"quantization": "nf4", "sft_config": {"bf16": True}}],
    ids=["float32", "bfloat16"],
)
def test_a_signal_stops_the_run_and_the_same_call_resumes_it(
    uninterrupted: AdapterCheckpoint, tiny_llama: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    whole = uninterrupted
    if "sft_config" in changes:
        whole = run(tiny_llama, tmp_path / "whole", evaluation=HELD_OUT, **changes)
    with pytest.raises(TrainingInterruptedError, match="step 3 of 4"):
        run(tiny_llama, tmp_path / "a", Seen(signal_in_step=3), evaluation=HELD_OUT, **changes)
    assert not (tmp_path / "a" / "manifest.json").exists()
    seen = Seen()
    resumed = run(tiny_llama, tmp_path / "a", seen, evaluation=HELD_OUT, **changes)
    assert seen.steps == [4]
    assert difference(whole.path, resumed.path) == 0.0
    assert [entry["loss"] for entry in log_of(whole.path)] == [entry["loss"] for entry in log_of(resumed.path)]
    assert resumed.run.training_loss == pytest.approx(whole.run.training_loss, rel=1e-12)
    assert resumed.run.duration_s > log_of(resumed.path)[2]["seconds"]
    assert not [path for path in resumed.path.iterdir() if path.name.startswith(".")]


def test_a_killed_process_resumes_from_its_newest_complete_checkpoint(
    uninterrupted: AdapterCheckpoint, tiny_llama: Path, tmp_path: Path
) -> None:
    for name, records in (("train", TRAIN), ("evaluation", HELD_OUT)):
        rows = [{"question": r.question, "schema": r.schema, "sql": r.sql} for r in records]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "evaluation")}
    job |= {"base_model": str(tiny_llama), "output_dir": str(tmp_path / "a"), "checkpoint_dir": str(tmp_path / "c")}
    (tmp_path / "job.json").write_text(json.dumps(job | {"config": OPTIONS}))
    program = Path(__file__).parents[2] / "support" / "trl_job.py"
    killed = subprocess.run([sys.executable, str(program), str(tmp_path / "job.json"), "2"], check=False)
    assert killed.returncode == -signal.SIGKILL
    # What a process leaves that is killed while it writes a checkpoint.
    (tmp_path / "c" / "checkpoint-7").mkdir()
    (tmp_path / "c" / "checkpoint-7" / "adapter_config.json").write_text("{}")
    seen = Seen()
    trainer = QLoRAFSDPTrainer(tiny_llama, config=TrainingConfig(**OPTIONS), callbacks=[seen])
    resumed = trainer.train(TRAIN, HELD_OUT, output_dir=tmp_path / "a", checkpoint_dir=tmp_path / "c")
    assert seen.steps == [3, 4]
    assert difference(uninterrupted.path, resumed.path) == 0.0
    assert not (tmp_path / "c").exists()


def test_a_damaged_checkpoint_falls_back_to_the_one_before_it(
    uninterrupted: AdapterCheckpoint, tiny_llama: Path, tmp_path: Path
) -> None:
    for damaged in ("optimizer.pt", "complete.json"):
        output = tmp_path / f"a-{damaged}"
        with pytest.raises(TrainingInterruptedError):
            run(tiny_llama, output, Seen(signal_in_step=3), evaluation=HELD_OUT)
        path = output / ".checkpoints" / "checkpoint-3" / damaged
        path.write_bytes(path.read_bytes()[:-9])
        seen = Seen()
        resumed = run(tiny_llama, output, seen, evaluation=HELD_OUT)
        assert seen.steps == [3, 4]
        assert difference(uninterrupted.path, resumed.path) == 0.0


def test_checkpoints_of_others_are_neither_used_nor_removed(tiny_llama: Path, tmp_path: Path) -> None:
    def train(output: str, *callbacks: Any, **changes: Any) -> AdapterCheckpoint:
        config = TrainingConfig(**OPTIONS | changes)
        trainer = QLoRAFSDPTrainer(tiny_llama, config=config, callbacks=callbacks)
        return trainer.train(TRAIN, output_dir=tmp_path / output, checkpoint_dir=tmp_path / "c")

    with pytest.raises(TrainingInterruptedError):
        train("a", Seen(signal_in_step=3))
    with pytest.raises(TrainingError, match=r"config\.lora_r \(stored: 16, this run: 4\)"):
        train("b", lora_r=4)
    complete = tmp_path / "c" / "checkpoint-3" / "complete.json"
    written = complete.read_text()
    complete.write_text(written.replace('"processes": 1', '"processes": 2'))
    with pytest.raises(TrainingError, match=r"checkpoint-3 .*processes=2.* 1\."):
        train("a")
    complete.write_text(written)
    train("a")
    assert not (tmp_path / "c").exists()
    theirs = tmp_path / "c" / "checkpoint-9" / "adapter_model.safetensors"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    with pytest.raises(TrainingError, match="checkpoint-9"):
        train("d")
    assert theirs.exists()


def test_figures_are_sent_to_a_service(tiny_llama: Path, tmp_path: Path) -> None:
    adapter = run(tiny_llama, tmp_path / "a", report_to=["tensorboard"])
    assert [*(adapter.path / "runs").rglob("events*")]


def test_a_loss_that_is_not_finite_stops_the_run(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SFTTrainer.compute_loss

    def breaks(self: Any, *arguments: Any, **options: Any) -> Any:
        return real(self, *arguments, **options) * (float("nan") if self.state.global_step == 2 else 1)

    monkeypatch.setattr(SFTTrainer, "compute_loss", breaks)
    with pytest.raises(TrainingError, match=r"loss .*nan .*step 3"):
        run(tiny_llama, tmp_path / "a")


def test_a_token_that_trl_would_drop_is_an_error(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SFTTrainer._prepare_dataset
    monkeypatch.setattr(
        SFTTrainer, "_prepare_dataset", lambda self, rows, *rest: real(self, rows, *rest).select(range(3))
    )
    with pytest.raises(TrainingError, match=r"kept [\d,]+ of [\d,]+ tokens"):
        run(tiny_llama, tmp_path / "a")


def test_a_long_record_is_refused_unless_whole_texts_are_cut(tiny_llama: Path, tmp_path: Path) -> None:
    long = [*TRAIN, Record(question="How many?", schema="CREATE TABLE t (a INT);\n" * 60, sql="SELECT 1", id="long")]
    for sft_config in ({}, {"completion_only_loss": False}, {"packing_strategy": "wrapped"}):
        trainer = QLoRAFSDPTrainer(tiny_llama, config=TrainingConfig(**OPTIONS), sft_config=sft_config)
        with pytest.raises(RecordError, match=r"long .*max_length|max_length.*long"):
            trainer.train(long, output_dir=tmp_path / "a")
    sft_config = {"completion_only_loss": False, "packing_strategy": "bfd_split"}
    plan = QLoRAFSDPTrainer(tiny_llama, config=TrainingConfig(**OPTIONS), sft_config=sft_config).plan(long)
    assert plan.cut == 1
    assert "1 of 9 records" in plan.summary()
