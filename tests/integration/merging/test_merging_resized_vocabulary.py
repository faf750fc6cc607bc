"""Test merges of adapters that contain an embedding and a head with more or fewer rows than the base.

The reference is PEFT's unmerged model, which is the one that was trained.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from merging_models import INPUT, LINEAR, VOCABULARY, Base, finish, make_base, train_resized
from sqlquarry import AdapterCheckpoint, AdapterMerger
from sqlquarry.errors import MergeError, UnsupportedAdapterError
from sqlquarry.merging.update import Update

BASES = {"llama": ("Llama", False), "llama tied": ("Llama", True), "qwen2 tied": ("Qwen2", True)}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    folder = tmp_path_factory.mktemp("bases")
    return {
        name: make_base(family, folder / name, tied=tied, dtype=torch.float32)
        for name, (family, tied) in BASES.items()
    }  # fmt: skip


def answers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=INPUT).logits
    return found


def config_of(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return content


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in directory.glob("*.safetensors") for name, value in load_file(file).items()}


# rows, options, and whether a tied model stays tied
VARIANTS: dict[str, tuple[int, dict[str, Any], bool]] = {
    "grown": (VOCABULARY + 3, {}, True),
    "padded to 64": (128, {}, True),
    "shrunk": (70, {}, True),
    "both trained": (VOCABULARY + 3, {"modules_to_save": ["embed_tokens", "lm_head"]}, False),
    "embedding trained": (VOCABULARY + 3, {"modules_to_save": ["embed_tokens"]}, False),
    "lora on both": (VOCABULARY + 3, {"target_modules": [*LINEAR, "embed_tokens", "lm_head"]}, False),
    "lora on the embedding": (70, {"target_modules": ["q_proj", "embed_tokens"]}, False),
    "dora on both": (101, {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "use_dora": True}, False),
    "new rows": (VOCABULARY + 3, {"trainable_token_indices": [96, 97, 98]}, True),
    "rows of a shrunk vocabulary": (70, {"trainable_token_indices": [5, 69]}, True),
}


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("name", VARIANTS)
def test_the_merged_model_answers_as_the_trained_one(
    bases: dict[str, Base], tmp_path: Path, name: str, kind: str
) -> None:
    rows, options, keeps = VARIANTS[name]
    base = bases[kind]
    expected = answers(train_resized(base, tmp_path / "adapter", rows, **options))
    assert expected.shape[-1] == rows
    if (name, kind) == ("lora on the embedding", "llama"):  # PEFT does not save the head then
        with pytest.raises(MergeError, match=rf"\b{rows} .* {EMBEDDING} .*\b{VOCABULARY} .* {HEAD}\b"):
            AdapterMerger().merge(finish(tmp_path / "adapter", base.directory), tmp_path / "merged")
        return
    merged = AdapterMerger().merge(finish(tmp_path / "adapter", base.directory), tmp_path / "merged")
    config = config_of(merged.path)
    assert config["vocab_size"] == rows
    assert config["tie_word_embeddings"] == (BASES[kind][1] and keeps)
    assert (HEAD in tensors_of(merged.path)) != config["tie_word_embeddings"]
    found = answers(AutoModelForCausalLM.from_pretrained(merged.path, dtype=torch.float32))
    size = float(expected.abs().max())
    assert float((found - expected).abs().max()) < 1e-5 * size
    assert not config["tie_word_embeddings"] or HEAD not in merged.merge.relative_updates
    assert EMBEDDING in merged.merge.relative_updates


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """An untied base in bf16, with a shard for each few tensors."""
    folder = tmp_path_factory.mktemp("sharded")
    base = make_base("Llama", folder / "whole")
    base.model.save_pretrained(folder / "base", max_shard_size="12KB")
    assert len(list((folder / "base").glob("*.safetensors"))) > 4
    return Base(folder / "base", base.model)


@pytest.fixture(scope="module")
def grown(sharded: Base, tmp_path_factory: pytest.TempPathFactory) -> AdapterCheckpoint:
    """An adapter with two tables of 100 rows in fp32, and LoRA on the head."""
    directory = tmp_path_factory.mktemp("grown")
    options = {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["embed_tokens"]}
    train_resized(sharded, directory, 100, dtype=torch.float32, **options)
    return finish(directory, sharded.directory)


def test_each_table_is_rounded_once_to_the_dtype_of_the_base(
    sharded: Base, grown: AdapterCheckpoint, tmp_path: Path
) -> None:
    merged = AdapterMerger().merge(grown, tmp_path / "merged")
    written, stored = tensors_of(merged.path), tensors_of(sharded.directory)
    saved = load_file(grown.path / "adapter_model.safetensors")
    prefix = "base_model.model."
    assert saved[f"{prefix}{EMBEDDING}"].dtype == torch.float32
    assert written[EMBEDDING].dtype == written[HEAD].dtype == torch.bfloat16
    assert torch.equal(written[EMBEDDING], saved[f"{prefix}{EMBEDDING}"].bfloat16())
    update = saved[f"{prefix}lm_head.lora_B.weight"] @ saved[f"{prefix}lm_head.lora_A.weight"] * 6 / 4
    assert torch.equal(written[HEAD], (saved[f"{prefix}lm_head.base_layer.weight"] + update).bfloat16())
    assert {name for name in stored if not torch.equal(stored[name], written[name])} == {
        EMBEDDING, HEAD, *(f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1))
    }  # fmt: skip
    assert merged.merge.relative_updates[EMBEDDING] is None
    assert merged.merge.relative_updates[HEAD] == pytest.approx(
        float(update.norm() / saved[f"{prefix}lm_head.base_layer.weight"].norm()), rel=1e-5
    )
    index = json.loads((merged.path / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == written.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in written.values())
    float16 = AdapterMerger(dtype="float16").merge(grown, tmp_path / "float16")
    assert {tensor.dtype for tensor in tensors_of(float16.path).values()} == {torch.float16}


def test_shards_with_resized_tables_can_be_split(grown: AdapterCheckpoint, tmp_path: Path) -> None:
    whole = AdapterMerger().merge(grown, tmp_path / "whole")
    split = AdapterMerger(max_shard_bytes=7000).merge(grown, tmp_path / "split")
    assert len(list(split.path.glob("*.safetensors"))) > len(list(whole.path.glob("*.safetensors")))
    one, other = tensors_of(whole.path), tensors_of(split.path)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_base_is_refused_before_anything_is_written(
    sharded: Base, grown: AdapterCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The other values are those of a table that the adapter replaces.
    other = tmp_path / "other"
    other.mkdir()
    for file in sharded.directory.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    path = next(file for file in sorted(other.glob("*.safetensors")) if EMBEDDING in load_file(file))
    save_file({name: value + 1 for name, value in load_file(path).items()}, path, {"format": "pt"})
    monkeypatch.setattr(Update, "apply_rows", lambda *_: pytest.fail("merged"))
    with pytest.raises(MergeError, match=re.escape(str(other))):
        AdapterMerger(base_model=other).merge(grown, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.safetensors"))


@pytest.mark.parametrize("calls", [1, 2, 4])  # of two projections, the embedding and the head
def test_a_killed_merge_resumes_with_the_same_bytes(
    grown: AdapterCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    whole = AdapterMerger().merge(grown, tmp_path / "whole")
    stock, seen = Update.apply_rows, []

    def dies(self: Update, *args: Any) -> Any:
        seen.append(self)
        if len(seen) >= calls:
            raise KeyboardInterrupt
        return stock(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Update, "apply_rows", dies)
        with pytest.raises(KeyboardInterrupt):
            AdapterMerger().merge(grown, tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()
    again = AdapterMerger().merge(grown, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in again.path.iterdir()} == {
        path.name: path.read_bytes() for path in whole.path.iterdir()
    }


def without(directory: Path, name: str) -> None:
    """Remove a tensor from an adapter."""
    file = directory / "adapter_model.safetensors"
    tensors = load_file(file)
    del tensors[f"base_model.model.{name}"]
    save_file(tensors, file, {"format": "pt"})


def test_an_embedding_and_a_head_of_different_lengths_are_refused(bases: dict[str, Base], tmp_path: Path) -> None:
    base = bases["llama"]
    train_resized(base, tmp_path / "adapter", 100)
    without(tmp_path / "adapter", HEAD)
    with pytest.raises(MergeError, match=rf"\b100 .* {EMBEDDING} .*\b{VOCABULARY} .* {HEAD}\b"):
        AdapterMerger().merge(finish(tmp_path / "adapter", base.directory), tmp_path / "out")


def test_a_tied_frozen_table_is_saved_once(bases: dict[str, Base], tmp_path: Path) -> None:
    base = bases["llama tied"]
    expected = answers(train_resized(base, tmp_path / "adapter", 100))
    without(tmp_path / "adapter", HEAD)
    merged = AdapterMerger().merge(finish(tmp_path / "adapter", base.directory), tmp_path / "merged")
    assert config_of(merged.path)["tie_word_embeddings"] is True
    found = answers(AutoModelForCausalLM.from_pretrained(merged.path, dtype=torch.float32))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_trained_embedding_without_the_frozen_head_is_refused(bases: dict[str, Base], tmp_path: Path) -> None:
    # The rows that resizing added to the head are random, and nothing records them.
    base = bases["llama tied"]
    train_resized(base, tmp_path / "adapter", 100, modules_to_save=["embed_tokens"])
    without(tmp_path / "adapter", HEAD)
    with pytest.raises(MergeError, match=rf"\b100 .* {EMBEDDING} .*\b{VOCABULARY} .* {HEAD}\b"):
        AdapterMerger().merge(finish(tmp_path / "adapter", base.directory), tmp_path / "out")


def test_a_stored_head_of_a_tied_model_is_resized_too(bases: dict[str, Base], tmp_path: Path) -> None:
    stored = load_file(bases["llama tied"].directory / "model.safetensors")
    (tmp_path / "base").mkdir()
    stale = {**stored, HEAD: torch.ones_like(stored[EMBEDDING])}
    save_file(stale, tmp_path / "base/model.safetensors", {"format": "pt"})
    (tmp_path / "base/config.json").write_text((bases["llama tied"].directory / "config.json").read_text())
    train_resized(bases["llama tied"], tmp_path / "adapter", 100)
    merged = AdapterMerger().merge(finish(tmp_path / "adapter", tmp_path / "base"), tmp_path / "merged")
    written = tensors_of(merged.path)
    assert written[HEAD].shape[0] == 100
    assert torch.equal(written[HEAD], written[EMBEDDING])


@pytest.mark.parametrize("config", [{"text_config": {}}, {"vocab_size": None}])
def test_a_multimodal_vocabulary_is_not_resized(bases: dict[str, Base], tmp_path: Path, config: dict[str, Any]) -> None:
    content = {**config_of(bases["llama"].directory), **config}
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    stored = (bases["llama"].directory / "model.safetensors").read_bytes()
    (tmp_path / "base/model.safetensors").write_bytes(stored)
    train_resized(bases["llama"], tmp_path / "adapter", 100)
    with pytest.raises(UnsupportedAdapterError, match=r"\b100\b.*\bvocab_size\b"):
        AdapterMerger().merge(finish(tmp_path / "adapter", tmp_path / "base"), tmp_path / "out")


def test_the_embedding_of_another_part_is_not_resized(bases: dict[str, Base], tmp_path: Path) -> None:
    stored = load_file(bases["llama"].directory / "model.safetensors")
    (tmp_path / "base").mkdir()
    save_file({**stored, "audio.embed_tokens.weight": torch.ones(8, 4)}, tmp_path / "base/model.safetensors")
    (tmp_path / "base/config.json").write_text((bases["llama"].directory / "config.json").read_text())
    train_resized(bases["llama"], tmp_path / "adapter", VOCABULARY)
    file = tmp_path / "adapter/adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.audio.embed_tokens.weight": torch.ones(9, 4)}, file)
    with pytest.raises(UnsupportedAdapterError, match=r"\b9 rows .* audio\.embed_tokens\.weight\b.*\b8\b"):
        AdapterMerger().merge(finish(tmp_path / "adapter", tmp_path / "base"), tmp_path / "out")
