"""FSDP2 gathers only the weights of a frozen base that are used, and not more often than necessary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.fsdp._fully_shard import _fsdp_param_group
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.steps.adapted_model import make_trainable
from sqlquarry.training.steps.sharding import release, shard_base
from sqlquarry.training.steps.world import World

from conftest import save_tiny_llama

LAYERS = 4


@pytest.fixture
def alone() -> Iterator[World]:
    """Yield the world of one process in its own process group."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield World(0, 1, 1, torch.device("cpu"))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("targets", "backward"),
    [
        ("all-linear", LAYERS),
        (("layers.2.self_attn.q_proj",), 2),  # the layers before it and the embeddings have no backward pass
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_only_weights_that_are_used_are_gathered(
    tmp_path: Path, alone: World, monkeypatch: pytest.MonkeyPatch, targets: Any, backward: int, *, tied: bool
) -> None:
    save_tiny_llama(tmp_path, num_hidden_layers=LAYERS, tie_word_embeddings=tied)
    base = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    model = make_trainable(base, TrainingConfig(target_modules=targets, gradient_checkpointing=True), alone)
    shard_base(model, alone, shard_group_size=1, cpu_offload=False)
    gathered: list[Any] = []
    kind = _fsdp_param_group.AllGatherResult
    monkeypatch.setattr(_fsdp_param_group, "AllGatherResult", lambda *a, **k: gathered.append(a) or kind(*a, **k))
    for _ in range(2):
        gathered.clear()
        model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
        ends = 1 if tied else 3  # the last norm with the tied matrix, or the last norm, embeddings and head
        assert len(gathered) == ends + LAYERS + backward
    with torch.no_grad():  # in an evaluation, no backward pass frees the gathered weights
        model(input_ids=torch.arange(8)[None])
    release(model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters() if not parameter.requires_grad)
