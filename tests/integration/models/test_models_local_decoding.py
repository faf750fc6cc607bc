"""LocalModel: batched decoding with shared prefixes gives exactly the answers of single prompts."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import ConfigError, DeviceError, UnsupportedModelError
from sqlquarry.models.local.decoding import DecodingOptions
from sqlquarry.models.local.model import LocalModel
from sqlquarry.models.local.sampling import Sampling
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig

from conftest import toy_examples

RECORDS = [Record(**example) for example in toy_examples(14)]


@pytest.fixture(scope="module")
def adapter(lively_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterCheckpoint:
    config = TrainingConfig(num_train_epochs=2, records_per_step=14, max_length=1024, learning_rate=1e-3, device="cpu")
    return QLoRAFSDPTrainer(lively_llama, config=config).train(
        RECORDS, output_dir=tmp_path_factory.mktemp("run") / "adapter"
    )


@pytest.fixture(scope="module")
def model(adapter: AdapterCheckpoint) -> LocalModel:
    return LocalModel(adapter, batch_size=5, max_tokens=24, device="cpu")


def alone(model: LocalModel, prompt: str, max_tokens: int) -> str:
    ids = model.tokenizer(prompt, return_tensors="pt")
    output = model.model.generate(**ids, max_new_tokens=max_tokens, do_sample=False)
    return str(model.tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


def test_batches_give_the_answers_that_transformers_gives_to_single_prompts(model: LocalModel) -> None:
    formatter = model.formatter
    assert formatter is not None
    answers = model.generate(RECORDS)
    assert [answer.text for answer in answers] == [
        alone(model, formatter.prompt(record, model.tokenizer), 24) for record in RECORDS
    ]
    assert {answer.stop_reason for answer in answers} <= {"stop", "length"}
    assert len({answer.text for answer in answers}) > len(RECORDS) // 2


def test_prompts_of_any_length_and_order(model: LocalModel) -> None:
    prompts = ["a", "SELECT " * 40, "How many users are there?", "b", "SELECT " * 40 + "name", "x y z"]
    assert [answer.text for answer in model.complete(prompts, DecodingOptions(max_tokens=8))] == [
        alone(model, prompt, 8) for prompt in prompts
    ]


def test_token_counts_and_stop_reasons(model: LocalModel) -> None:
    (cut,) = model.complete(["How many"], DecodingOptions(max_tokens=1))
    assert (cut.stop_reason, cut.completion_tokens) == ("length", 1)
    assert cut.prompt_tokens == len(model.tokenizer("How many")["input_ids"])


def test_stop_texts_end_an_answer_and_are_removed(model: LocalModel) -> None:
    (whole,) = model.complete(["List the name of all users."], DecodingOptions(max_tokens=12))
    middle = whole.text[len(whole.text) // 2 :][:2]
    (stopped,) = model.complete(["List the name of all users."], DecodingOptions(max_tokens=12, stop=[middle]))
    assert stopped.stop_reason == "stop"
    assert stopped.text == whole.text[: whole.text.index(middle)]


def test_sampling_is_reproducible_by_seed(model: LocalModel) -> None:
    def sample(seed: int) -> str:
        options = DecodingOptions(max_tokens=16, sampling=Sampling(temperature=2.0), seed=seed)
        return model.complete(["SELECT"], options)[0].text

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(6)}) > 1


def test_records_need_a_formatter(tiny_llama: Path) -> None:
    with pytest.raises(ConfigError, match="formatter="):
        LocalModel(tiny_llama, device="cpu").generate(RECORDS[:1])
    (answer,) = LocalModel(tiny_llama, formatter=PromptFormatter(), max_tokens=2, device="cpu").generate(RECORDS[:1])
    assert answer.completion_tokens in (1, 2)


def test_the_error_for_the_directory_of_an_artifact_says_how_to_open_it(
    tiny_llama: Path, tmp_path: Path, adapter: AdapterCheckpoint
) -> None:
    directory = shutil.copytree(tiny_llama, tmp_path / "merged")
    PromptFormatter().bind(LocalModel(tiny_llama, device="cpu").tokenizer).save(directory)
    with pytest.raises(ConfigError, match=r"formatter=.*MergedModel\.load"):
        LocalModel(directory, device="cpu").generate(RECORDS[:1])
    with pytest.raises(UnsupportedModelError, match=r"AdapterCheckpoint\.load"):
        LocalModel(adapter.path, device="cpu")


def test_pickled_weights_are_refused(tiny_llama: Path, tmp_path: Path, adapter: AdapterCheckpoint) -> None:
    base = shutil.copytree(tiny_llama, tmp_path / "base")
    for file in base.glob("*.safetensors"):
        file.rename(base / "pytorch_model.bin")
    with pytest.raises(UnsupportedModelError, match=rf"{re.escape(str(base))} .*\*\.safetensors"):
        LocalModel(base, device="cpu")
    opened = AdapterCheckpoint.load(shutil.copytree(adapter.path, tmp_path / "adapter"))
    (opened.path / "adapter_model.safetensors").rename(opened.path / "adapter_model.bin")
    with pytest.raises(UnsupportedModelError, match=rf"{re.escape(str(opened.path))} .*adapter_model\.safetensors"):
        LocalModel(opened, device="cpu")


def test_the_fingerprint_depends_on_weights_adapter_prompt_and_limits(
    model: LocalModel, adapter: AdapterCheckpoint, tiny_llama: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(tiny_llama, tmp_path / "base")
    base = LocalModel(directory, device="cpu")
    others = [
        model,
        LocalModel(adapter, device="cpu"),
        LocalModel(directory, device="cpu", max_tokens=9),
        LocalModel(directory, device="cpu", formatter=PromptFormatter()),
    ]
    before = base.fingerprint
    assert len({before, *(other.fingerprint for other in others)}) == 5
    assert LocalModel(directory, device="cpu", batch_size=2).fingerprint == before
    os.utime(directory / "config.json", ns=(0, 0))
    assert base.fingerprint != before
    assert repr(base) == f"LocalModel({str(directory)!r})"


def test_options_that_do_not_apply_to_the_kind_of_model_are_refused(
    tiny_llama: Path, adapter: AdapterCheckpoint
) -> None:
    with pytest.raises(ConfigError, match=r"\bformatter\b"):
        LocalModel(adapter, formatter=PromptFormatter())
    with pytest.raises(ConfigError, match=r"\bbase_model\b"):
        LocalModel(tiny_llama, base_model=tiny_llama)


def test_an_empty_directory_and_a_missing_device_are_refused(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"{re.escape(str(tmp_path))} .*config\.json") as caught:
        LocalModel(tmp_path)
    assert caught.value.__cause__ is None  # transformers was not called
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError):
        LocalModel(tiny_llama, device="cuda")
    with pytest.raises(ConfigError, match="'tpu'"):
        LocalModel(tiny_llama, device="tpu")
