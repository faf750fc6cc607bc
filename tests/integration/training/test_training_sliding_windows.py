"""In a packed row, layers with a sliding window see the same tokens as in each record alone."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import BlockMask, create_mask
from transformers import AutoConfig, AutoModelForCausalLM

from sqlquarry.checkpoints.attention import position_limit, windows_of
from sqlquarry.models.local.decoding import DecodingOptions
from sqlquarry.models.local.model import LocalModel
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.tokenizing.encoded import IGNORED_LABEL, EncodedRecords
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig
from sqlquarry.training.encoding.packing import block_mask, pack
from sqlquarry.training.steps.loss import RowShape, answer_loss, flex_inputs, model_inputs, row_tensors

from conftest import tiny_tokenizer, toy_examples

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
SIZES |= {"num_hidden_layers": 4, "vocab_size": 64, "max_position_embeddings": 256, "initializer_range": 0.2}
QWEN = {"use_sliding_window": True, "sliding_window": 8, "head_dim": 8}
MODELS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 8},
    "mixtral": {"sliding_window": 12, "num_local_experts": 2},
    "qwen2": QWEN | {"max_window_layers": 2},
    "qwen2-all": QWEN | {"model_type": "qwen2", "max_window_layers": 0},
    "qwen3": QWEN | {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "qwen3_moe": QWEN | {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16},
    "qwen2-off": QWEN | {"model_type": "qwen2", "use_sliding_window": False},
    "llama": {},
    "llama-named": {"model_type": "llama", "sliding_window": 8, "layer_types": ["sliding_attention"] * 4},
}


@functools.cache
def made(name: str, attention: str = "sdpa", **changes: Any) -> Any:
    torch.manual_seed(1)
    config = AutoConfig.for_model(**{"model_type": name} | SIZES | MODELS[name] | changes)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


@st.composite
def examples(draw: st.DrawFn) -> tuple[EncodedRecords, list[int]]:
    """Draw examples of two schemas, from shorter than any window to several times as long."""
    found, keys = EncodedRecords(), []
    token = st.integers(0, 63)
    for key in range(2):
        prefix = draw(st.lists(token, min_size=1, max_size=30))
        for _ in range(draw(st.integers(1, 3))):
            prompt = prefix + draw(st.lists(token, min_size=1, max_size=20))
            answer = draw(st.lists(token, min_size=1, max_size=12))
            found.append(prompt, answer)
            keys.append(key)
    return found, keys


@pytest.mark.parametrize("name", MODELS)
@given(data=examples(), share=st.booleans(), padded=st.booleans())
@settings(max_examples=4)
def test_packed_loss_equals_that_of_transformers_for_each_record(
    name: str, data: tuple[EncodedRecords, list[int]], *, share: bool, padded: bool
) -> None:
    model, reference = made(name), made(name, "eager")
    windows = windows_of(model.config, 160)
    rows = pack(*data, max_tokens=160, share_prefixes=share, seed=0)
    shape = RowShape(160, max(row.size.answers for row in rows)) if padded else None
    with torch.no_grad():
        packed = sum(answer_loss(model, model_inputs(row, shape=shape, windows=windows)).item() for row in rows)
        alone = 0.0
        for example in data[0]:
            logits = reference(input_ids=torch.tensor([example.input_ids])).logits[0, :-1]
            labels = torch.tensor(example.labels[1:])
            alone += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
    assert packed == pytest.approx(alone, rel=1e-4)


@given(data=examples(), window=st.none() | st.integers(1, 40), padded=st.booleans())
@settings(max_examples=20, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking would take minutes
def test_the_block_mask_of_flex_attention_equals_the_dense_mask(
    data: tuple[EncodedRecords, list[int]], window: int | None, *, padded: bool
) -> None:
    rows = pack(*data, max_tokens=160, share_prefixes=True, seed=0)
    shape = RowShape(192, max(row.size.answers for row in rows)) if padded else None
    for row in rows:
        built = row.tokens()
        dense = (built.padded(192) if padded else built).attention_mask(window)
        tokens, answers = row_tensors(built, shape)
        masks = [
            block_mask(tokens[1], tokens[2], tokens[3], window),
            flex_inputs(tokens, answers, window)["attention_mask"],
            model_inputs(row, shape=shape, flex=True, windows=window)["attention_mask"],
        ]
        for blocks in masks:
            assert isinstance(blocks, BlockMask)
            assert torch.equal(create_mask(blocks.mask_mod, 1, 1, *dense.shape[2:], device="cpu"), dense)
        plain = model_inputs(row, shape=shape, windows=window)["attention_mask"]
        assert isinstance(plain, torch.Tensor)
        assert torch.equal(plain, dense)


@pytest.mark.parametrize("name", ["mistral", "qwen2", "llama"])
def test_flex_attention_gives_the_same_loss_as_the_dense_mask(name: str) -> None:
    ids = [number * 7 % 64 for number in range(100)]
    data = EncodedRecords()
    for start in (60, 75, 90):
        data.append(ids[:30], ids[start:])
    (row,) = pack(data, [0, 0, 0], max_tokens=128, share_prefixes=True, seed=0)
    model, flex = made(name), made(name, "flex_attention")
    windows = windows_of(model.config, 128)
    with torch.no_grad():
        dense = answer_loss(model, model_inputs(row, windows=windows)).item()
        shape = RowShape(128, row.size.answers)
        blocks = answer_loss(flex, model_inputs(row, shape=shape, flex=True, windows=windows)).item()
    assert blocks == pytest.approx(dense, rel=1e-4)


def test_a_window_longer_than_any_row_is_left_out() -> None:
    assert windows_of(made("mistral").config, 8) is None
    assert windows_of(made("mistral").config, 9) == 8
    assert windows_of(made("qwen2-off").config, 10_000) is None


def saved(name: str, directory: Path) -> Path:
    tokenizer = tiny_tokenizer()
    ids = {f"{one}_token_id": getattr(tokenizer, f"{one}_token_id") for one in ("bos", "eos", "pad")}
    made(name, vocab_size=len(tokenizer), **ids).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("name", ["mistral", "qwen2"])
def test_the_first_step_of_a_run_has_the_same_loss_as_the_records_alone(name: str, tmp_path: Path) -> None:
    base, records = saved(name, tmp_path / "base"), [Record(**example) for example in toy_examples(8)]
    options: dict[str, Any] = {"num_train_epochs": 1, "records_per_step": 8, "max_length": 255, "device": "cpu"}
    trainer = QLoRAFSDPTrainer(base, config=TrainingConfig(quantization=None, **options))
    trainer.train(records, output_dir=tmp_path / "run")
    first = json.loads((tmp_path / "run" / "training_log.jsonl").read_text().splitlines()[0])
    local = LocalModel(base, device="cpu")
    losses, answers = 0.0, 0
    for example in PromptFormatter().encode_all(records, local.tokenizer):
        with torch.no_grad():
            logits = local.model(input_ids=torch.tensor([example.input_ids])).logits[0, :-1]
        losses += torch.nn.functional.cross_entropy(logits, torch.tensor(example.labels[1:]), reduction="sum").item()
        answers += sum(label != IGNORED_LABEL for label in example.labels)
    assert first["loss"] == pytest.approx(losses / answers, rel=1e-4)


@pytest.mark.parametrize("name", ["mistral", "qwen2", "qwen3"])
def test_answers_of_a_batch_equal_those_of_transformers_for_each_prompt(name: str, tmp_path: Path) -> None:
    local = LocalModel(saved(name, tmp_path), device="cpu", batch_size=8)
    schema = "CREATE TABLE users (id, name, price, age, city, year, qty)"
    prompts = [f"{schema} {question}" for question in ("a", "List the city of all users.", "name name " * 9)]
    alone = [made_alone(local, prompt) for prompt in prompts]
    assert [answer.text for answer in local.complete(prompts, DecodingOptions(max_tokens=16))] == alone
    assert len(set(alone)) == len(prompts)


def made_alone(local: LocalModel, prompt: str) -> str:
    ids = local.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    output = local.model.generate(**ids, max_new_tokens=16, do_sample=False)
    return str(local.tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({}, None),
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "dynamic", "factor": 2}}, 4096),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "yarn", "factor": "2"}}, 2048),
    ],
)
def test_the_position_limit_follows_the_configuration(config: dict[str, Any], limit: int | None) -> None:
    assert position_limit(config) == limit
