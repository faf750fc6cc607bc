"""Records that the base cannot learn from, and arguments that are not records, are refused before loading the base."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from sqlquarry.errors import ConfigError, RecordError, SQLQuarryError
from sqlquarry.models.local.decoding import DecodingOptions
from sqlquarry.models.local.model import LocalModel
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig
from sqlquarry.training.planning.guards import check_run
from sqlquarry.training.steps import adapted_model

from conftest import save_tiny_llama, toy_examples

RECORDS = [Record(**example) for example in toy_examples(6)]
LONG = Record("How many users " + "and " * 60 + "are there?", "CREATE TABLE users (id)", "SELECT 1", id="r-7")
CONFIG = TrainingConfig(num_train_epochs=0.2, max_length=640, device="cpu", quantization=None)


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapted_model, "load_causal_lm", lambda *_, **__: pytest.fail("loaded the model"))


@pytest.fixture(scope="module")
def short_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a base with 256 positions."""
    base = save_tiny_llama(tmp_path_factory.mktemp("short"))
    text = (base / "config.json").read_text()
    (base / "config.json").write_text(text.replace('"max_position_embeddings": 2048', '"max_position_embeddings": 256'))
    return base


def problems(trainer: QLoRAFSDPTrainer, records: list[Record]) -> str:
    with pytest.raises(SQLQuarryError) as found:
        check_run(trainer.plan(records), trainer.config)
    return str(found.value)


@pytest.mark.usefixtures("nothing_loads")
def test_a_record_beyond_the_positions_of_the_base_is_refused(short_base: Path, tmp_path: Path) -> None:
    tokens = len(PromptFormatter().encode(LONG, AutoTokenizer.from_pretrained(short_base)).input_ids)
    assert tokens > 256
    trainer = QLoRAFSDPTrainer(short_base, config=CONFIG)
    for found in (problems(trainer, [*RECORDS, LONG]), refused(trainer, [*RECORDS, LONG], None, tmp_path)):
        assert all(part in found for part in ("1 of 7", "256", "r-7", str(tokens)))
    assert "r-7" in refused(trainer, RECORDS, [LONG], tmp_path)
    # A row contains many records, and only the positions within a record matter.
    assert trainer.plan(RECORDS * 3).row_sizes[0][0] > 256
    check_run(trainer.plan(RECORDS * 3), CONFIG)


def refused(trainer: QLoRAFSDPTrainer, train: Any, evaluation: Any, tmp_path: Path) -> str:
    with pytest.raises((ConfigError, RecordError)) as found:
        trainer.train(train, evaluation, output_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "adapter_model.safetensors").exists()
    return str(found.value)


@pytest.fixture(scope="module")
def wordy_base(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a base whose tokenizer has two added tokens without rows."""
    base = Path(shutil.copytree(tiny_llama, tmp_path_factory.mktemp("wordy") / "base"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<schema>", "<join>"])
    tokenizer.save_pretrained(base)
    return base


@pytest.mark.usefixtures("nothing_loads")
def test_tokens_without_rows_are_refused_if_they_are_used(wordy_base: Path, tmp_path: Path) -> None:
    trainer = QLoRAFSDPTrainer(wordy_base, config=CONFIG)
    used = [*RECORDS, Record("Which <join> ?", "CREATE TABLE users (id)", "SELECT 1")]
    for found in (problems(trainer, used), refused(trainer, used, None, tmp_path)):
        assert "'<join>'" in found
        assert "'<schema>'" not in found
        assert "resize_token_embeddings" in found
    assert "'<join>'" in refused(trainer, RECORDS, used, tmp_path)


def test_unused_tokens_without_rows_are_only_noted(wordy_base: Path, tiny_llama: Path) -> None:
    for base, noted in ((wordy_base, True), (tiny_llama, False)):
        tokenizer = AutoTokenizer.from_pretrained(base)
        notes = check_run(QLoRAFSDPTrainer(base, config=CONFIG).plan(RECORDS), CONFIG, tokenizer=tokenizer)
        assert any("'<schema>'" in note for note in notes) is noted


def test_added_rows_make_the_tokens_usable(wordy_base: Path, tmp_path: Path) -> None:
    local = LocalModel(wordy_base, device="cpu")
    with pytest.raises(ConfigError, match="<schema>"):
        local.complete(["SELECT", "a <schema> b"], DecodingOptions(max_tokens=2))
    local.model.resize_token_embeddings(len(local.tokenizer) + 6)
    local.model.save_pretrained(tmp_path)
    local.tokenizer.save_pretrained(tmp_path)
    assert LocalModel(tmp_path, device="cpu").complete(["a <schema> b"], DecodingOptions(max_tokens=2))
    used = [Record("Which <join> ?", "CREATE TABLE users (id)", "SELECT 1")]
    QLoRAFSDPTrainer(tmp_path, config=CONFIG).train(used, output_dir=tmp_path / "run")


ROWS = list(toy_examples(3))
WRONG: dict[str, Any] = {
    "a path": "data/train.jsonl",
    "a Path": Path("train.jsonl"),
    "None": None,
    "one record": RECORDS[0],
    "a dict": ROWS[0],
    "dicts": ROWS,
    "a generator of dicts": ...,
    "texts": ["SELECT 1"],
    "a number": 7,
    "records and None": [*RECORDS, None],
    "a class": Record,
}


@pytest.mark.usefixtures("nothing_loads")
@pytest.mark.parametrize("name", WRONG)
def test_arguments_that_are_not_records_are_refused(name: str, tiny_llama: Path, tmp_path: Path) -> None:
    trainer = QLoRAFSDPTrainer(tiny_llama, config=CONFIG)

    def given() -> Any:
        return iter(ROWS) if name == "a generator of dicts" else WRONG[name]

    calls = [lambda: trainer.plan(given()), lambda: trainer.train(given(), output_dir=tmp_path / "run")]
    if name != "None":
        calls.append(lambda: trainer.train(RECORDS, given(), output_dir=tmp_path / "run"))
    for call in calls:
        with pytest.raises(RecordError, match=r"Record|records"):
            call()
    assert not (tmp_path / "run").exists()


def test_a_generator_is_read_once(tiny_llama: Path, tmp_path: Path) -> None:
    trainer = QLoRAFSDPTrainer(tiny_llama, config=CONFIG)
    assert trainer.plan(record for record in RECORDS).records == len(RECORDS)
    run = trainer.train(iter(RECORDS), (record for record in RECORDS[:2]), output_dir=tmp_path / "run")
    assert run.run.records == len(RECORDS)
