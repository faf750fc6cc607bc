"""A plan reads only small files and headers of a base on the hub or in S3, and refusals come before any weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import huggingface_hub
import pytest

import sqlquarry as sq
from hub_on_loopback import Hub
from sqlquarry.emulator import LocalAWS
from sqlquarry.errors import (
    ConfigError,
    DeviceError,
    GatedModelError,
    RecordError,
    TrainingError,
    UnsupportedModelError,
)
from sqlquarry.pretrained import load_tokenizer
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.sagemaker import Compute, SageMakerLauncher, staging
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig, local_run
from sqlquarry.training.base import base_model
from sqlquarry.training.base.outline import BaseOutline
from sqlquarry.training.planning.forecast import with_stop_check
from sqlquarry.training.planning.plan import TrainingPlan

from conftest import save_tiny_llama, toy_examples

RECORDS = [Record(**example) for example in toy_examples(30)]
LONG = Record("How many? " * 400, "CREATE TABLE t (a)", "SELECT 1", id="wide")
CONFIG = TrainingConfig(num_train_epochs=1, max_length=256, device="cpu")
NARROW = TrainingConfig(max_length=256)
BASE = "acme/llama-tiny"


@pytest.fixture(scope="module")
def large_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a base whose weights are several files of a few megabytes."""
    directory = save_tiny_llama(tmp_path_factory.mktemp("base"), hidden_size=256, intermediate_size=1024)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory)
    (directory / "model.safetensors").unlink()
    model.save_pretrained(directory, max_shard_size="2MB")
    assert len(list(directory.glob("*.safetensors"))) > 1
    return directory


@pytest.fixture
def hub(large_vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    gated = ("meta-llama/Meta-Llama-3-8B-Instruct", "acme/gated")
    found = Hub(dict.fromkeys((BASE, *gated), large_vocabulary), gated)
    with found.in_use(monkeypatch, tmp_path / "hub"):
        yield found


def same(one: TrainingPlan, other: TrainingPlan) -> bool:
    alike = dataclasses.replace(one, shape=other.shape, notes=other.notes)  # one plan could not check the head
    return alike == other and one.shape.parameters == other.shape.parameters


def test_a_hub_base_is_planned_exactly_without_its_weights(hub: Hub, large_vocabulary: Path, tmp_path: Path) -> None:
    local = QLoRAFSDPTrainer(large_vocabulary, config=CONFIG).plan(RECORDS)
    plan = QLoRAFSDPTrainer(BASE, config=CONFIG).plan(RECORDS, RECORDS)
    assert same(plan, local)
    assert not plan.estimated
    weights = {path.name: path.stat().st_size for path in large_vocabulary.glob("*.safetensors")}
    asked = {name: sent for name, sent in hub.sent.items() if name in weights}
    assert asked.keys() == weights.keys()
    assert all(sent <= 100_001 for sent in asked.values())  # only the first bytes, which contain the header
    assert sum(asked.values()) < sum(weights.values()) / 4
    assert not list((tmp_path / "hub").rglob("*.safetensors"))


@pytest.mark.usefixtures("hub")
def test_a_hub_base_can_be_planned_trained_and_then_planned_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_trainer = QLoRAFSDPTrainer(BASE, config=CONFIG)
    planned = hub_trainer.plan(RECORDS)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnsupportedModelError):  # the weights have not been downloaded
        hub_trainer.train(RECORDS, output_dir=tmp_path / "out")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    adapter = hub_trainer.train(RECORDS, output_dir=tmp_path / "out")
    assert adapter.run.steps == planned.steps
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert same(hub_trainer.plan(RECORDS), planned)
    assert hub_trainer.train(RECORDS, output_dir=tmp_path / "out") == adapter


@pytest.mark.parametrize(("records", "error"), [([*RECORDS, LONG], RecordError), ([Record("q", "s")], RecordError)])
def test_invalid_records_are_refused_before_the_weights_of_a_hub_base_are_read(
    hub: Hub, tmp_path: Path, records: list[Record], error: type[Exception]
) -> None:
    hub_trainer = QLoRAFSDPTrainer(BASE, config=CONFIG)
    for ask in (hub_trainer.plan, lambda found: hub_trainer.train(found, output_dir=tmp_path / "out")):
        with pytest.raises(error):
            ask(records)
    assert all(sent <= 2 * 100_001 for name, sent in hub.sent.items() if name.endswith(".safetensors"))
    assert not list((tmp_path / "hub").rglob("*.safetensors"))


@pytest.mark.usefixtures("hub")
def test_a_gated_base_is_planned_only_if_it_is_well_known() -> None:
    known = QLoRAFSDPTrainer("meta-llama/Meta-Llama-3-8B-Instruct")
    plan = known.plan(RECORDS, instance_type="ml.g5.2xlarge")
    assert plan.shape.parameters == 8_030_261_248
    assert "HF_TOKEN" in plan.estimated
    for name in ("acme/gated", "acme/private"):
        with pytest.raises(GatedModelError, match="HF_TOKEN"):
            QLoRAFSDPTrainer(name).plan(RECORDS, instance_type="ml.g5.2xlarge")
    with pytest.raises(GatedModelError, match="HF_TOKEN"):  # training needs the tokenizer itself
        known.train(RECORDS, output_dir="never")


def test_a_base_on_s3_is_planned_with_the_session_and_without_its_weights(
    large_vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalAWS() as aws:
        s3 = aws.session().client("s3")
        for path in large_vocabulary.iterdir():
            s3.upload_file(str(path), aws.bucket, f"bases/tiny/{path.name}")
        uri = f"s3://{aws.bucket}/bases/tiny"
        local = QLoRAFSDPTrainer(large_vocabulary, config=CONFIG).plan(RECORDS)
        assert same(QLoRAFSDPTrainer(uri, config=CONFIG, session=aws.session()).plan(RECORDS), local)
        launcher = SageMakerLauncher(aws.role_arn, bucket=aws.bucket, session=aws.session())
        assert launcher.dry_run(QLoRAFSDPTrainer(uri, config=NARROW), RECORDS)
        for refused in ([*RECORDS, LONG], [Record("q", "s")]):
            with pytest.raises(RecordError):
                launcher.dry_run(QLoRAFSDPTrainer(uri, config=NARROW), refused)
        monkeypatch.setattr(staging, "sha256_file", lambda path: pytest.fail(f"hashed {path}"))
        nowhere = dataclasses.replace(launcher, bucket="no-such-bucket-of-anybody")
        with pytest.raises(TrainingError, match="no-such-bucket"):
            nowhere.launch(QLoRAFSDPTrainer(large_vocabulary, config=NARROW), RECORDS)
        s3.delete_object(Bucket=aws.bucket, Key="bases/tiny/config.json")
        with pytest.raises(UnsupportedModelError, match=rf"{uri}.* config\.json"):
            QLoRAFSDPTrainer(uri, session=aws.session()).plan(RECORDS)
        for elsewhere in (f"s3://{aws.bucket}/none", "s3://no-such-bucket-of-anybody/none"):
            with pytest.raises(UnsupportedModelError, match="none"):
                QLoRAFSDPTrainer(elsewhere, session=aws.session()).plan(RECORDS)


@pytest.fixture
def hashes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (staging, base_model):
        monkeypatch.setattr(module, "sha256_file", lambda path: pytest.fail(f"hashed {path}"))
    monkeypatch.setattr(local_run, "base_digest", lambda path: pytest.fail(f"hashed {path}"))


@pytest.mark.parametrize(
    ("data", "compute", "error"),
    [
        ([[*RECORDS, LONG]], {}, RecordError),
        ([RECORDS, [LONG]], {}, RecordError),
        ([RECORDS, [Record("q", "s", id="e-7")]], {}, RecordError),
        ([RECORDS], {"instance_type": "ml.g4dn.12xlarge"}, DeviceError),
        ([RECORDS], {"instance_type": "ml.p3.16xlarge"}, DeviceError),
        ([RECORDS], {"instance_count": 40}, ConfigError),
        ([RECORDS], {"keep_alive_period_s": 99_999}, ConfigError),
    ],
)
@pytest.mark.usefixtures("hashes_nothing")
def test_refusals_come_before_anything_is_hashed_or_uploaded(
    tiny_llama: Path, data: list[list[Record]], compute: dict[str, Any], error: type[Exception]
) -> None:
    role, session = "arn:aws:iam::123456789012:role/training", boto3.Session(region_name="us-east-1")
    launcher = SageMakerLauncher(role, bucket="models", session=session, compute=Compute(**compute))
    for ask in (launcher.launch, launcher.dry_run):
        with pytest.raises(error):
            ask(QLoRAFSDPTrainer(tiny_llama, config=NARROW), *data)


@pytest.mark.usefixtures("hashes_nothing")
def test_a_run_that_cannot_work_is_refused_before_its_base_is_hashed(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="wide"):
        QLoRAFSDPTrainer(tiny_llama, config=CONFIG).train([*RECORDS, LONG], output_dir=tmp_path / "out")
    wrong = dataclasses.replace(CONFIG, target_modules=("no_such_layer",))
    with pytest.raises(ConfigError, match="no_such_layer"):
        QLoRAFSDPTrainer(tiny_llama, config=wrong).train(RECORDS, output_dir=tmp_path / "out")


def test_errors_distinguish_evaluation_records(tiny_llama: Path) -> None:
    local = QLoRAFSDPTrainer(tiny_llama, config=CONFIG)
    with pytest.raises(RecordError, match="evaluation wide"):
        local.plan(RECORDS, [RECORDS[0], LONG])
    with pytest.raises(RecordError, match="evaluation record 1"):
        local.plan(RECORDS, [RECORDS[0], Record("q", "CREATE TABLE t (a)")])


def test_plan_and_train_pack_once_and_hash_the_encoded_records(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib
    from array import array

    from sqlquarry.pretrained import load_tokenizer
    from sqlquarry.training.encoding import prepared

    packed = []
    real = prepared.pack
    monkeypatch.setattr(prepared, "pack", lambda *given, **options: packed.append(1) or real(*given, **options))
    records = [*RECORDS, Record("Which one is new?", "CREATE TABLE new (a)", "SELECT a FROM new")]
    plan = QLoRAFSDPTrainer(tiny_llama, config=CONFIG).plan(records)
    adapter = QLoRAFSDPTrainer(tiny_llama, config=CONFIG).train(records, output_dir=tmp_path / "out")
    assert packed == [1]
    assert adapter.run.rows == plan.rows
    examples = list(sq.PromptFormatter().encode_all(records, load_tokenizer(tiny_llama)))
    lengths = [len(one.input_ids) for one in examples]
    prompts = [one.labels.count(-100) for one in examples]
    ids = [token for one in examples for token in one.input_ids]
    content = f"{len(examples)}\n".encode() + b"".join(array("i", part).tobytes() for part in (lengths, prompts, ids))
    assert adapter.manifest.provenance["data_sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"trainable_tokens": ("<|im_end|>",), "sharding": "full"}, "sharding"),
        ({"trainable_tokens": ("<|nothing|>",)}, "nothing"),
    ],
)
def test_listed_tokens_are_checked_before_the_weights_are_read(
    large_vocabulary: Path, tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    config = dataclasses.replace(CONFIG, records_per_step=8, **options)
    for base in (BASE, large_vocabulary):
        asked = QLoRAFSDPTrainer(base, config=config)
        with pytest.raises(ConfigError, match=named):
            asked.plan(RECORDS, processes=2)
        with pytest.raises(ConfigError, match=named):
            asked.train(RECORDS, output_dir=tmp_path / "out", processes=2)


@pytest.mark.usefixtures("hub")
def test_listed_tokens_count_once_with_and_without_weights(large_vocabulary: Path) -> None:
    config = dataclasses.replace(CONFIG, trainable_tokens=("<|im_end|>",))
    plans = [QLoRAFSDPTrainer(base, config=config).plan(RECORDS) for base in (BASE, large_vocabulary)]
    assert plans[0].adapter_parameters == plans[1].adapter_parameters
    tokenizer = load_tokenizer(large_vocabulary)
    bound = PromptFormatter().bind(tokenizer)
    outline = BaseOutline(plans[0].shape, tokenizer, directory=large_vocabulary)
    again = with_stop_check(plans[0], outline, config, formatter=bound)
    assert again.adapter_parameters == plans[1].adapter_parameters
