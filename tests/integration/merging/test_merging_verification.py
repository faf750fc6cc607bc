"""Test base="auto" with records, thresholds, and the measured numbers against full logits of transformers and PEFT."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer

from sqlquarry import AdapterCheckpoint, AdapterMerger, MergedModel, PromptFormatter, Record
from sqlquarry.errors import ConfigError, MergeError, RecordError, UnsupportedModelError
from sqlquarry.manifests import base_digest, write_manifest
from sqlquarry.merging import Thresholds, require_thresholds
from sqlquarry.merging.carried_files import CarriedFiles
from sqlquarry.merging.storage.local import LocalDirectory
from sqlquarry.merging.verification import examples
from sqlquarry.quantization import QuantizationRecipe, keep_trainable_on_cpu
from sqlquarry.tokenizing.encoded import IGNORED_LABEL

from conftest import save_tiny_llama, toy_examples

RECORDS = [Record(**example) for example in toy_examples(6, seed=7)]
LOOSE = Thresholds(max_kl=10, min_greedy_agreement=0, max_relative_update=10)


def with_bos(directory: Path) -> Path:
    """Make the tokenizer add BOS, as Llama 3's does."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", pair="<|endoftext|> $A $B", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer.save_pretrained(directory)
    return directory


def load(directory: Path, recipe: QuantizationRecipe | None) -> Any:
    if recipe is None:
        return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    options = {"quantization_config": recipe.transformers_config(torch.float32)}
    dtype = getattr(torch, recipe.load_dtype)
    return keep_trainable_on_cpu(AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, **options))


def write_adapter(directory: Path, base: Path, recipe: QuantizationRecipe | None) -> AdapterCheckpoint:
    model = load(base, recipe)
    if recipe:
        recipe = recipe.completed(model)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    trained = get_peft_model(model, config)
    torch.manual_seed(1)
    for name, parameter in trained.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    trained.save_pretrained(directory)
    formatter = PromptFormatter().bind(AutoTokenizer.from_pretrained(base))
    formatter.save(directory)
    provenance = {
        "base_model": {"name": "tiny", "path": str(base), "sha256": base_digest(base)},
        "prompt_fingerprint": formatter.fingerprint,
        "quantization": dataclasses.asdict(recipe) if recipe else None,
    }
    return AdapterCheckpoint(directory, write_manifest(directory, AdapterCheckpoint.kind, provenance))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    return with_bos(save_tiny_llama(directory, initializer_range=0.15, num_key_value_heads=2))


@pytest.fixture(scope="module", params=["nf4", "fp4"])
def adapter(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterCheckpoint:
    # With weights in fp32, PEFT's model computes everything in fp32, so the numbers can be compared exactly.
    recipe = QuantizationRecipe(quant_type=request.param, load_dtype="float32", storage_dtype="uint8")
    return write_adapter(tmp_path_factory.mktemp("adapter"), base, recipe)


def expected_agreement(
    base: Path, adapter: AdapterCheckpoint, merged: Path, records: Sequence[Record]
) -> tuple[float, float, float, float]:
    """Return KL, greedy agreement and both log-likelihoods, computed from the full logits of transformers and PEFT."""
    fields = adapter.manifest.provenance["quantization"]
    recipe = QuantizationRecipe(**fields) if fields else None
    models = [PeftModel.from_pretrained(load(base, recipe), adapter.path).eval(), load(merged, None).eval()]
    formatter, tokenizer = PromptFormatter.load(adapter.path), AutoTokenizer.from_pretrained(base)
    chosen: list[list[torch.Tensor]] = [[], []]
    gold: list[int] = []
    for encoded in formatter.encode_all(records, tokenizer):
        answer = [place for place, label in enumerate(encoded.labels) if label != IGNORED_LABEL]
        gold += [encoded.labels[place] for place in answer]
        for model, parts in zip(models, chosen, strict=True):
            with torch.no_grad():
                found = model(input_ids=torch.tensor([encoded.input_ids])).logits[0].double()
            parts.append(found[[place - 1 for place in answer]].log_softmax(dim=-1))
    p, q = (torch.cat(parts) for parts in chosen)
    likelihoods = [one[range(len(gold)), gold].mean().item() for one in (q, p)]
    kl = (p.exp() * (p - q)).sum(dim=1).mean().item()
    return kl, (p.argmax(1) == q.argmax(1)).double().mean().item(), *likelihoods


def test_auto_measures_both_bases_and_takes_the_closer_one(
    base: Path, adapter: AdapterCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = AdapterMerger().merge(adapter, tmp_path / "auto", evaluation=RECORDS)
    merge = merged.merge
    assert merge.base == "dequantized"
    assert merge.candidates["dequantized"].kl < merge.candidates["original"].kl / 10
    for kind in ("dequantized", "original"):
        written = AdapterMerger(base=kind).merge(adapter, tmp_path / kind)  # type: ignore[arg-type] - both are allowed
        found = merge.candidates[kind]
        kl, greedy, likelihood, of_adapter = expected_agreement(base, adapter, written.path, RECORDS)
        assert found.kl == pytest.approx(kl, rel=0.02, abs=1e-7)
        assert found.greedy_agreement == pytest.approx(greedy)
        assert found.answer_log_likelihood == pytest.approx(likelihood, abs=1e-4)
        assert found.adapter_log_likelihood == pytest.approx(of_adapter, abs=1e-4)
        assert found.records == len(RECORDS)
    assert (merged.path / "model.safetensors").read_bytes() == (tmp_path / "dequantized/model.safetensors").read_bytes()
    monkeypatch.setattr("sqlquarry.merging.merger.compare", lambda *_: pytest.fail("measured again"))
    assert AdapterMerger().merge(adapter, tmp_path / "auto", evaluation=RECORDS) == merged
    with pytest.raises(MergeError, match="evaluation_sha256"):
        AdapterMerger(base="dequantized", thresholds=LOOSE).merge(adapter, tmp_path / "auto", evaluation=RECORDS[:2])


def test_auto_without_records_or_without_4_bits_measures_nothing(base: Path, tmp_path: Path) -> None:
    plain = write_adapter(tmp_path / "plain", base, None)
    merged = AdapterMerger().merge(plain, tmp_path / "merged", evaluation=RECORDS)
    assert merged.merge.base == "original"
    assert merged.merge.candidates == {}
    assert "candidates" not in merged.manifest.provenance["merge"]


def test_the_original_base_fails_the_thresholds_with_its_numbers(adapter: AdapterCheckpoint, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(MergeError, match=r" KL \d\.\d\de-\d\d > 0\.005, .*% < 98\.00%, .*\b6 records"):
        AdapterMerger(base="original", thresholds=Thresholds()).merge(adapter, output, evaluation=RECORDS)
    assert not (output / "manifest.json").exists()
    again = AdapterMerger(base="original", thresholds=LOOSE).merge(adapter, output, evaluation=RECORDS)
    assert again.merge.verification.agreement.kl > Thresholds().max_kl


def test_a_correct_merge_passes_and_records_its_numbers(base: Path, adapter: AdapterCheckpoint, tmp_path: Path) -> None:
    merger = AdapterMerger(dtype="float32", thresholds=Thresholds(max_kl=1e-6, min_greedy_agreement=1.0))
    merged = merger.merge(adapter, tmp_path / "out", evaluation=RECORDS)
    numbers = merged.merge.verification
    found = AdapterMerger().verify(RECORDS, adapter, merged)
    assert found == numbers
    assert AdapterMerger().verify(RECORDS, adapter, str(merged.path)) == numbers
    assert found.coverage == 1
    assert found.changed_tensors == 14
    assert found.largest_update == max(merged.merge.relative_updates.values())
    kl, *_ = expected_agreement(base, adapter, merged.path, RECORDS)
    assert kl < 1e-6


def test_a_damaged_weight_is_found_by_verification(adapter: AdapterCheckpoint, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    merged = AdapterMerger().merge(adapter, tmp_path / "out")
    good = AdapterMerger().verify(RECORDS, adapter, merged)
    require_thresholds(good, Thresholds(min_greedy_agreement=0.9))
    file = merged.path / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.down_proj.weight"] *= -1
    save_file(tensors, file, {"format": "pt"})
    bad = AdapterMerger().verify(RECORDS, adapter, MergedModel(merged.path, merged.manifest))
    assert bad.agreement.kl > 20 * good.agreement.kl
    del tensors["model.norm.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(MergeError, match=re.escape(str(merged.path))):
        AdapterMerger().verify(RECORDS, adapter, merged)


def test_records_that_cannot_be_used_for_measuring_are_refused(
    adapter: AdapterCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unanswered = [Record(question="How many?", schema="CREATE TABLE t (a)")]
    with pytest.raises(RecordError, match=r"\bsql\b"):
        AdapterMerger().merge(adapter, tmp_path / "out", evaluation=unanswered)
    monkeypatch.setattr(examples, "_MAX_TOKENS", 20)
    with pytest.raises(ConfigError, match=r"\b6 evaluation records .*\b20 tokens"):
        AdapterMerger().merge(adapter, tmp_path / "out", evaluation=RECORDS)
    monkeypatch.setattr(examples, "_MAX_TOKENS", 450)
    merged = AdapterMerger().merge(adapter, tmp_path / "out", evaluation=RECORDS)
    assert 0 < merged.merge.candidates["original"].records < len(RECORDS)


def test_another_architecture_merges_but_cannot_be_measured(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "base"
    shutil.copytree(base, other)
    config = (other / "config.json").read_text().replace('"model_type": "llama"', '"model_type": "gpt_bigcode"')
    config = config.replace("LlamaForCausalLM", "GPTBigCodeForCausalLM")
    adapter = write_adapter(tmp_path / "adapter", other, None)
    (other / "config.json").write_text(config)
    provenance = adapter.manifest.provenance
    provenance = provenance | {"base_model": provenance["base_model"] | {"sha256": base_digest(other)}}
    adapter = AdapterCheckpoint(adapter.path, write_manifest(adapter.path, AdapterCheckpoint.kind, provenance))
    with pytest.raises(UnsupportedModelError, match=r"\(model_type 'gpt_bigcode'\)"):
        AdapterMerger(thresholds=Thresholds()).merge(adapter, tmp_path / "out", evaluation=RECORDS)
    AdapterMerger().merge(adapter, tmp_path / "plain")


@pytest.mark.parametrize("bos", [False, True], ids=["no bos", "bos"])
def test_tokens_equal_those_of_transformers(tmp_path: Path, bos: bool) -> None:
    save_tiny_llama(tmp_path)
    if bos:
        with_bos(tmp_path)
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), CarriedFiles(LocalDirectory(tmp_path), {}).tokenizer()
    formatter = PromptFormatter().bind(theirs)
    assert formatter.bind(ours) == PromptFormatter().bind(ours) == formatter
    assert formatter.encode_all(RECORDS, ours) == formatter.encode_all(RECORDS, theirs)
    assert PromptFormatter(template="chat").bind(ours) == PromptFormatter(template="chat").bind(theirs)
    assert ours("SELECT 1")["input_ids"] == theirs("SELECT 1")["input_ids"]
    assert (ours("a")["input_ids"][0] == ours.bos_token_id) == bos


def test_a_base_without_a_fast_tokenizer_is_refused(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "base")
    (tmp_path / "base/tokenizer.json").unlink()
    with pytest.raises(UnsupportedModelError, match=r"/base .*\btokenizer\.json"):
        CarriedFiles(LocalDirectory(tmp_path / "base"), {}).tokenizer()
