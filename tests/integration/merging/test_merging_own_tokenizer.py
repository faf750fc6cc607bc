"""Test adapters with a tokenizer of their own: merge, verify, LocalModel, and import into an emulated Bedrock."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import sqlquarry as sq
from sqlquarry.aws.polling import Polling
from sqlquarry.bedrock.preflight import preflight
from sqlquarry.emulator import LocalAWS
from sqlquarry.errors import CorruptArtifactError, MergeError, UnsupportedModelError
from sqlquarry.manifests import base_digest, write_manifest
from sqlquarry.models.local.decoding import DecodingOptions
from sqlquarry.models.local.sampling import Sampling
from sqlquarry.pretrained import load_causal_lm
from sqlquarry.quantization import QuantizationRecipe

from conftest import save_tiny_llama, toy_examples

RECORDS = [sq.Record(**example) for example in toy_examples(6, seed=7)]
END, SCHEMA = "<|end_of_sql|>", "<|schema|>"
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '<|schema|>' + m['content'] + '<|end_of_sql|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|schema|>' }}{% endif %}"
)
ROWS = 448  # 2 more tokens, padded to a multiple of 64


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = save_tiny_llama(tmp_path_factory.mktemp("own") / "base", initializer_range=0.3)
    for name in ("vocab.json", "merges.txt", "added_tokens.json", "tokenizer.model"):  # files of a slow tokenizer
        (directory / name).write_text("{}")
    return directory


def train(
    base: Path, directory: Path, *, rows: int, recipe: QuantizationRecipe | None = None, **options: Any
) -> sq.AdapterCheckpoint:
    """Save an adapter with random values, its own tokenizer with two new tokens, and its manifest."""
    model = load_causal_lm(base, "cpu", recipe)
    recipe = recipe.completed(model) if recipe else None
    torch.manual_seed(1)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    config = {"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"} | options
    peft = get_peft_model(model, LoraConfig(**config))
    for parameter in peft.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float() + torch.randn(parameter.shape) * 0.05
    peft.save_pretrained(directory)
    file, copies = directory / "adapter_model.safetensors", (".modules_to_save.", ".original_module.")
    kept = {name: value for name, value in load_file(file).items() if not any(one in name for one in copies)}
    save_file(kept, file, {"format": "pt"})
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": [END, SCHEMA]})
    tokenizer.eos_token, tokenizer.chat_template = END, TEMPLATE
    tokenizer.save_pretrained(directory)
    return finish(directory, base, recipe)


def finish(directory: Path, base: Path, recipe: QuantizationRecipe | None = None) -> sq.AdapterCheckpoint:
    formatter = sq.PromptFormatter(template="chat").bind(AutoTokenizer.from_pretrained(directory))
    formatter.save(directory)
    (directory / "README.md").unlink(missing_ok=True)
    provenance = {
        "base_model": {"name": "tiny", "path": str(base), "sha256": base_digest(base)},
        "prompt_fingerprint": formatter.fingerprint,
        "quantization": dataclasses.asdict(recipe) if recipe else None,
    }
    return sq.AdapterCheckpoint(directory, write_manifest(directory, sq.AdapterCheckpoint.kind, provenance))


KINDS: dict[str, dict[str, Any]] = {
    "frozen tables": {},
    "4-bit, both trained": {"modules_to_save": ["embed_tokens", "lm_head"], "recipe": QuantizationRecipe()},
    "4-bit, new rows": {"trainable_token_indices": [442, 443], "recipe": QuantizationRecipe()},
}


@pytest.fixture(scope="module", params=KINDS)
def adapter(
    request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> sq.AdapterCheckpoint:
    return train(base, tmp_path_factory.mktemp("own") / "adapter", rows=ROWS, **KINDS[request.param])


@pytest.fixture(scope="module")
def merged(adapter: sq.AdapterCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> sq.MergedModel:
    return sq.AdapterMerger(dtype="float32").merge(adapter, tmp_path_factory.mktemp("own") / "merged")


def content(directory: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / name).read_text())
    return found


def test_no_file_of_the_tokenizer_of_the_base_stays(adapter: sq.AdapterCheckpoint, merged: sq.MergedModel) -> None:
    own = {"chat_template.jinja", "tokenizer.json", "tokenizer_config.json"}
    assert adapter.tokenizer_files.keys() == own
    weights = {path.name for path in merged.path.glob("*.safetensors*")}
    others = {"config.json", "generation_config.json", "prompt.json", "manifest.json"}
    assert {path.name for path in merged.path.iterdir()} == own | weights | others
    assert merged.manifest.files.keys() == own | weights | others - {"manifest.json"}
    for name in own:
        assert (merged.path / name).read_bytes() == (adapter.path / name).read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(merged.path)
    assert tokenizer(f"{SCHEMA} {END}", add_special_tokens=False)["input_ids"][::2] == [443, 442]


def test_the_model_stops_at_the_new_token_and_at_the_former_one(base: Path, merged: sq.MergedModel) -> None:
    config = content(base, "config.json")
    former = config["eos_token_id"]
    assert former != 442
    for name in ("config.json", "generation_config.json"):
        found = content(merged.path, name)
        assert found["eos_token_id"] == [442, former]
        assert found["bos_token_id"] == config["bos_token_id"]
        assert found["pad_token_id"] == config["pad_token_id"]
    changed = {"vocab_size", "eos_token_id", "dtype", "tie_word_embeddings"}
    found = content(merged.path, "config.json")
    assert {key for key in config if found[key] != config[key]} <= changed
    assert found["vocab_size"] == ROWS


def test_the_adapter_and_the_merged_model_give_the_same_answers(
    adapter: sq.AdapterCheckpoint, merged: sq.MergedModel, tmp_path: Path
) -> None:
    one, other = (sq.LocalModel(model, max_tokens=16, device="cpu") for model in (adapter, merged))
    assert one.formatter == other.formatter
    prompts = [one.formatter.prompt(record) for record in RECORDS]
    encoded = [model.tokenizer(prompts)["input_ids"] for model in (one, other)]
    assert encoded[0] == encoded[1]
    assert sum(ids.count(443) for ids in encoded[0]) == 3 * len(RECORDS)
    assert one.model.get_input_embeddings().weight.dtype in (torch.float32, torch.bfloat16)
    if adapter.manifest.provenance["quantization"] is None:
        answers = [answer.text for answer in one.generate(RECORDS)]
        assert answers == [answer.text for answer in other.generate(RECORDS)]
        assert len(set(answers)) > 2
        assert divergence(one, other, encoded[0][0]) < 1e-6
    else:  # LocalModel computes with tables in bf16
        original = sq.AdapterMerger(base="original", dtype="float32").merge(adapter, tmp_path / "original")
        drift = divergence(one, sq.LocalModel(original, device="cpu"), encoded[0][0])
        assert divergence(one, other, encoded[0][0]) < 0.05 * drift


def divergence(model: sq.LocalModel, other: sq.LocalModel, ids: list[int]) -> float:
    """Return the mean Kullback-Leibler divergence of the next token over a prompt."""
    with torch.no_grad():
        one, two = (each.model(torch.tensor([ids])).logits[0].float().log_softmax(-1) for each in (model, other))
    assert one.shape == (len(ids), ROWS)
    return float(torch.nn.functional.kl_div(two, one, log_target=True, reduction="batchmean"))


def test_verification_uses_the_new_tokens(adapter: sq.AdapterCheckpoint, merged: sq.MergedModel) -> None:
    found = sq.AdapterMerger().verify(RECORDS, adapter, merged)
    assert found.agreement.kl < 1e-6
    tokenizer = AutoTokenizer.from_pretrained(adapter.path)
    formatter = sq.PromptFormatter.load(adapter.path)
    labels = [label for one in formatter.encode_all(RECORDS, tokenizer) for label in one.labels]
    assert labels.count(442) == len(RECORDS)
    assert found.agreement.answer_tokens == sum(label >= 0 for label in labels)


def test_bedrock_serves_the_new_tokens(merged: sq.MergedModel) -> None:
    assert not [one for one in preflight(merged.path).findings if one.severity == "error"]
    local = sq.LocalModel(merged, max_tokens=16, device="cpu")
    with LocalAWS(import_polls=0, cold_start_calls=0) as aws:
        importer = sq.BedrockImporter(aws.role_arn, session=aws.session(), polling=Polling(interval_s=0.01))
        imported = importer.import_model(merged, "own", s3_uri=f"s3://{aws.bucket}/own/")
        served = sq.ImportedModel(imported.arn, formatter=local.formatter, session=aws.session(), max_tokens=16)
        answers = served.generate(RECORDS)
    expected = local.generate(RECORDS)
    assert [answer.text for answer in answers] == [answer.text for answer in expected]
    assert [answer.prompt_tokens for answer in answers] == [answer.prompt_tokens for answer in expected]


def test_the_base_is_not_packaged_under_a_prompt_with_new_tokens(adapter: sq.AdapterCheckpoint, tmp_path: Path) -> None:
    with pytest.raises(MergeError, match=r"\b443\b"):
        sq.AdapterMerger().package_base(adapter, tmp_path / "base")
    assert not list((tmp_path / "base").glob("*.json"))


def test_the_base_keeps_its_tokenizer_if_the_prompt_is_the_same(base: Path, tmp_path: Path) -> None:
    adapter = train(base, tmp_path / "adapter", rows=0)
    own = AutoTokenizer.from_pretrained(base)
    own.add_special_tokens({"pad_token": "<|im_start|>"})
    own.save_pretrained(adapter.path)
    adapter = finish(adapter.path, base)
    packaged = sq.AdapterMerger().package_base(adapter, tmp_path / "packaged")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"):
        assert (packaged.path / name).read_bytes() == (base / name).read_bytes()
    merged = sq.AdapterMerger().merge(adapter, tmp_path / "merged")
    assert content(merged.path, "config.json")["pad_token_id"] == own.pad_token_id
    assert content(merged.path, "config.json")["eos_token_id"] == content(base, "config.json")["eos_token_id"]


def test_a_cut_vocabulary_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = train(base, tmp_path / "adapter", rows=0)
    with pytest.raises(MergeError, match=rf"\b444 ids\b.*\b442 rows\b.*{END[2:-2]}"):
        sq.AdapterMerger().merge(adapter, tmp_path / "merged")
    assert not list((tmp_path / "merged").glob("*.safetensors"))
    with pytest.raises(UnsupportedModelError, match=rf"/adapter .*\b444 ids\b.*\b442 rows\b.*{END[2:-2]}"):
        sq.LocalModel(adapter, device="cpu")


def test_a_shrunk_vocabulary_needs_a_shrunk_tokenizer(base: Path, tmp_path: Path) -> None:
    adapter = train(base, tmp_path / "adapter", rows=400)
    for path in adapter.tokenizer_files.values():
        path.unlink()
    shutil.copyfile(base / "tokenizer.json", tmp_path / "adapter/other.json")
    formatter = sq.PromptFormatter().bind(AutoTokenizer.from_pretrained(base))
    formatter.save(adapter.path)
    provenance = adapter.manifest.provenance | {"prompt_fingerprint": formatter.fingerprint}
    adapter = sq.AdapterCheckpoint(adapter.path, write_manifest(adapter.path, "adapter", provenance))
    assert adapter.tokenizer_files == {}
    with pytest.raises(MergeError, match=r"/base .*\b442 ids\b.*\b400 rows\b"):
        sq.AdapterMerger().merge(adapter, tmp_path / "merged")


def test_half_a_tokenizer_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = train(base, tmp_path / "adapter", rows=ROWS)
    (adapter.path / "tokenizer.json").unlink()
    manifest = write_manifest(adapter.path, "adapter", adapter.manifest.provenance)
    adapter = sq.AdapterCheckpoint(adapter.path, manifest)
    for use in (lambda: sq.AdapterMerger().merge(adapter, tmp_path / "out"), lambda: sq.LocalModel(adapter)):
        with pytest.raises(CorruptArtifactError, match=r"chat_template\.jinja\b.*\btokenizer\.json"):
            use()


def test_adapters_with_different_tokenizers_are_not_combined(base: Path, tmp_path: Path) -> None:
    one = train(base, tmp_path / "one", rows=ROWS)
    shutil.copytree(one.path, tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": [END, SCHEMA, "<|third|>"]})
    tokenizer.eos_token, tokenizer.chat_template = END, TEMPLATE
    tokenizer.save_pretrained(tmp_path / "other")
    other = finish(tmp_path / "other", base)
    with pytest.raises(MergeError, match=r"/other .*/one "):
        sq.AdapterMerger().merge([(one, 0.5), (other, 0.5)], tmp_path / "out")


def test_the_merged_model_loads_with_transformers(merged: sq.MergedModel) -> None:
    model = AutoModelForCausalLM.from_pretrained(merged.path)
    assert model.get_input_embeddings().weight.shape[0] == ROWS
    assert model.generation_config.eos_token_id == content(merged.path, "generation_config.json")["eos_token_id"]


def test_the_model_does_not_stop_at_an_id_that_means_another_token_now(base: Path, tmp_path: Path) -> None:
    former = content(base, "config.json")["eos_token_id"]
    adapter = train(base, tmp_path / "adapter", rows=ROWS)
    file = adapter.path / "tokenizer.json"
    swapped = {"<|im_end|>": "<|pad|>", "<|pad|>": "<|im_end|>"}
    own = json.loads(file.read_text())
    own["model"]["vocab"] = {swapped.get(token, token): id_ for token, id_ in own["model"]["vocab"].items()}
    for token in own["added_tokens"]:
        token["content"] = swapped.get(token["content"], token["content"])
    file.write_text(json.dumps(own))
    adapter = finish(adapter.path, base)
    merged = sq.AdapterMerger().merge(adapter, tmp_path / "merged")
    assert content(merged.path, "config.json")["eos_token_id"] == 442
    assert content(merged.path, "config.json")["pad_token_id"] == former
    for name, stops in (("adapter", 442), ("merged", 442)):
        model = sq.LocalModel({"adapter": adapter, "merged": merged}[name], device="cpu")
        for token in (former, stops):
            options = DecodingOptions(max_tokens=4, sampling=Sampling(logit_bias={token: 100.0}))
            (answer,) = model.complete(["SELECT"], options)
            assert answer.stop_reason == ("stop" if token == stops else "length"), (name, token)
