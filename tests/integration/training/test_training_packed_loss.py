"""In a packed row, every example has the same loss and gradients as alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from sqlquarry.pretrained import load_causal_lm
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.tokenizing.encoded import EncodedRecords
from sqlquarry.training.encoding.packing import pack
from sqlquarry.training.steps.loss import answer_loss, model_inputs

from conftest import toy_examples


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Any:
    return load_causal_lm(tiny_llama, "cpu")


@pytest.fixture(scope="module")
def examples(tiny_llama: Path) -> tuple[EncodedRecords, list[str]]:
    records = [Record(**example) for example in toy_examples(12)]
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    return PromptFormatter().encode_all(records, tokenizer), [record.schema for record in records]


def loss_and_gradients(
    model: Any, examples: tuple[EncodedRecords, list[str]], *, max_tokens: int, share: bool
) -> tuple[float, dict[str, torch.Tensor]]:
    rows = pack(*examples, max_tokens=max_tokens, share_prefixes=share, seed=0)
    answers = sum(label != -100 for example in examples[0] for label in example.labels)
    model.zero_grad()
    total = 0.0
    for row in rows:
        loss = answer_loss(model, model_inputs(row)) / answers
        loss.backward()
        total += loss.item()
    return total, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("max_tokens", "share"), [(512, True), (1024, True), (1024, False)])
def test_packed_equals_alone(
    model: Any, examples: tuple[EncodedRecords, list[str]], *, max_tokens: int, share: bool
) -> None:
    longest = max(len(example.input_ids) for example in examples[0])
    alone, alone_gradients = loss_and_gradients(model, examples, max_tokens=longest, share=False)
    packed, packed_gradients = loss_and_gradients(model, examples, max_tokens=max_tokens, share=share)
    assert packed == pytest.approx(alone, rel=1e-5)
    for name, gradient in alone_gradients.items():
        difference = (packed_gradients[name] - gradient).norm() / gradient.norm()
        assert difference < 1e-4, f"{name}: gradients differ by {difference:.1e} of their norm"


def test_answer_loss_equals_the_loss_of_transformers(model: Any, examples: tuple[EncodedRecords, list[str]]) -> None:
    for number, example in enumerate(examples[0][:3]):
        rows = pack(examples[0].select([number]), ["schema"], max_tokens=512, share_prefixes=True, seed=0)
        ours = answer_loss(model, model_inputs(rows[0])) / rows[0].size.answers
        theirs = model(input_ids=torch.tensor([example.input_ids]), labels=torch.tensor([example.labels])).loss
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
