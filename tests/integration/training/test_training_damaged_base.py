"""A damaged base model is the same typed error in plan, training and local models, before anything is loaded."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sqlquarry.errors import SQLQuarryError, UnsupportedModelError
from sqlquarry.models.local.decoding import DecodingOptions
from sqlquarry.models.local.model import LocalModel
from sqlquarry.records import Record
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig
from sqlquarry.training.steps import adapted_model

from conftest import toy_examples

RECORDS = [Record(**example) for example in toy_examples(6)]
CONFIG = TrainingConfig(num_train_epochs=0.1, max_length=320, device="cpu", quantization=None)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
Damage = Callable[[Path], object]


def written(name: str, content: bytes) -> Damage:
    return lambda base: (base / name).write_bytes(content)


def cut(name: str, length: int) -> Damage:
    return lambda base: (base / name).write_bytes((base / name).read_bytes()[:length])


def config(**changes: Any) -> Damage:
    def change(base: Path) -> None:
        fields = json.loads((base / "config.json").read_text()) | changes
        (base / "config.json").write_text(json.dumps({key: value for key, value in fields.items() if value != "-"}))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Damage:
    def rewrite(base: Path) -> None:
        save_file(change(load_file(base / "model.safetensors")), base / "model.safetensors", {"format": "pt"})

    return rewrite


def without(part: str) -> Damage:
    return tensors(lambda found: {name: value for name, value in found.items() if part not in name})


def index(content: bytes) -> Damage:
    def write(base: Path) -> None:
        (base / "model.safetensors").rename(base / "one.safetensors")
        (base / "model.safetensors.index.json").write_bytes(content)

    return write


# Name of the damage -> how to make it, and what the error must contain.
DAMAGES: dict[str, tuple[Damage, str]] = {
    "weights cut in the header": (cut("model.safetensors", 700), "model.safetensors"),
    "weights cut in the data": (cut("model.safetensors", 40_000), "model.safetensors"),
    "weights empty": (written("model.safetensors", b""), "model.safetensors"),
    "weights a pointer": (written("model.safetensors", POINTER), "git lfs pull"),
    "tokenizer gone": (lambda base: (base / "tokenizer.json").unlink(), "tokenizer.json"),
    "tokenizer a pointer": (written("tokenizer.json", POINTER), "git lfs pull"),
    "tokenizer empty": (written("tokenizer.json", b""), "tokenizer.json"),
    "tokenizer cut": (cut("tokenizer.json", 5000), "tokenizer.json"),
    "tokenizer without content": (written("tokenizer.json", b"{}"), "tokenizer.json"),
    "tokenizer a folder": (
        lambda base: ((base / "tokenizer.json").unlink(), (base / "tokenizer.json").mkdir()),
        "tokenizer.json",
    ),
    "tokenizer_config a list": (written("tokenizer_config.json", b"[]"), "tokenizer_config.json"),
    "special tokens a pointer": (written("special_tokens_map.json", POINTER), "special_tokens_map.json"),
    "generation_config a list": (written("generation_config.json", b"[1]"), "generation_config.json"),
    "generation_config of text": (written("generation_config.json", b'{"eos_token_id": "</s>"}'), "eos_token_id"),
    "config cut": (cut("config.json", 150), "config.json"),
    "config a list": (written("config.json", b"[]"), "config.json"),
    "config without model_type": (config(model_type="-"), "model_type"),
    "config without a size": (config(vocab_size="-"), "vocab_size"),
    "a size of text": (config(num_key_value_heads="4"), "config.json"),
    "another width": (config(hidden_size=64), "model.embed_tokens.weight"),
    "another vocabulary": (config(vocab_size=50_000), "model.embed_tokens.weight"),
    "more layers": (config(num_hidden_layers=3), "model.layers.2."),
    "fewer layers": (config(num_hidden_layers=1), "model.layers.1."),
    "a head that is not there": (config(tie_word_embeddings=False), "lm_head.weight"),
    "an unknown activation": (config(hidden_act="swish2"), "config.json"),
    "an unknown rotary scaling": (config(rope_parameters={"rope_type": "yarm", "factor": 2.0}), "config.json"),
    "epsilon of text": (config(rms_norm_eps="1e-5"), "rms_norm_eps"),
    "a tensor gone": (without("layers.1.mlp.down_proj"), "model.layers.1.mlp.down_proj.weight"),
    "a norm gone": (without("model.norm"), "model.norm.weight"),
    "weights of integers": (tensors(lambda found: {name: t.to(torch.int8) for name, t in found.items()}), "I8"),
    "an index of a shard that is gone": (
        index(b'{"metadata": {}, "weight_map": {"model.norm.weight": "two.safetensors"}}'),
        "two.safetensors",
    ),
    "an index of a tensor that is gone": (
        index(b'{"metadata": {}, "weight_map": {"model.last.weight": "one.safetensors"}}'),
        "model.last.weight",
    ),
    "an index without metadata": (index(b'{"weight_map": {"model.norm.weight": "one.safetensors"}}'), "metadata"),
    "an index that is a pointer": (index(POINTER), "git lfs pull"),
}


@pytest.fixture
def base(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "base"))


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_reported_before_anything_is_loaded(name: str, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage, value = DAMAGES[name]
    damage(base)
    monkeypatch.setattr(adapted_model, "load_causal_lm", lambda *_, **__: pytest.fail("loaded the model"))
    trainer = QLoRAFSDPTrainer(base, config=CONFIG)
    with pytest.raises(UnsupportedModelError) as planned:
        trainer.plan(RECORDS)
    with pytest.raises(UnsupportedModelError) as trained:
        trainer.train(RECORDS, output_dir=base.parent / "run")
    with pytest.raises(UnsupportedModelError) as served:
        LocalModel(base, device="cpu")
    assert value in str(planned.value)
    assert str(trained.value) == str(planned.value)
    assert str(base) in str(served.value)
    assert not (base.parent / "run").exists()


def test_extra_tensors_and_files_that_transformers_writes_are_accepted(base: Path) -> None:
    def extended(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        table = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
        return found | table | {"lm_head.weight": found["model.embed_tokens.weight"].clone()}

    tensors(extended)(base)
    (base / "original").mkdir()
    (base / "original" / "consolidated.safetensors").write_bytes(b"")
    assert QLoRAFSDPTrainer(base, config=CONFIG).plan(RECORDS).records == len(RECORDS)
    assert LocalModel(base, device="cpu").complete(["SELECT"], DecodingOptions(max_tokens=1))


@pytest.mark.parametrize("seed", range(8))
def test_random_damage_raises_only_errors_of_this_library(seed: int, base: Path) -> None:
    choose = random.Random(seed)
    for path in sorted(base.iterdir()):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        for _ in range(choose.choice([1, 3, 30])):
            # Only headers and small files, because any bytes are valid weights.
            damaged[choose.randrange(min(len(damaged), 3000))] = choose.choice(b'\x00\xff[]{}",:0nt-')
        path.write_bytes(bytes(damaged) if choose.random() < 0.7 else whole[: choose.randrange(len(whole))])
        trainer = QLoRAFSDPTrainer(base, config=CONFIG)
        with contextlib.suppress(SQLQuarryError):
            trainer.plan(RECORDS)
            if seed == 0:
                trainer.train(RECORDS, output_dir=base.parent / path.name)
        with contextlib.suppress(SQLQuarryError):
            LocalModel(base, device="cpu").complete(["SELECT a"], DecodingOptions(max_tokens=2))
        path.write_bytes(whole)
