"""The exported files against real tokenizers and weights: nothing changes but the dialect."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bedrock_scripted import finish_merged
from sqlquarry.artifacts import MergedModel
from sqlquarry.bedrock.export.metadata_files import export_files
from sqlquarry.bedrock.preflight import preflight
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record

LLAMA3 = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 256,
    "rope_theta": 500000.0,
    "rope_type": "llama3",
}


@pytest.fixture(scope="module")
def merged(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> MergedModel:
    directory = tmp_path_factory.mktemp("llama3")
    shutil.copytree(tiny_llama, directory / "saved")
    config = directory / "saved" / "config.json"
    # The weights do not depend on the rope, and a lost rope changes the logits.
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rope_parameters": LLAMA3}))
    return finish_merged(directory / "saved", directory / "merged")


@pytest.fixture(scope="module")
def exported(merged: MergedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exported")
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(merged.path / name, directory / name)
    for name, content in export_files(merged.path).items():
        (directory / name).write_bytes(content)
    return directory


def test_a_model_saved_by_transformers_5_passes_preflight(merged: MergedModel) -> None:
    codes = [finding.code for finding in preflight(merged, "tiny").findings]
    # Bedrock overrides original_max_position_embeddings, which is 256 here.
    assert codes == ["rope-scaling"]


def test_the_exported_files_are_in_the_old_dialect(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert (config["rope_theta"], config["torch_dtype"]) == (500000.0, "bfloat16")
    tokenizer = json.loads((exported / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not (exported / "chat_template.jinja").exists()


def test_logits_are_the_same(merged: MergedModel, exported: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    ids = torch.arange(300)[None] % 400  # beyond original_max_position_embeddings, so that rope scaling matters
    with torch.no_grad():
        before, after = (AutoModelForCausalLM.from_pretrained(d)(ids).logits for d in (merged.path, exported))
    assert torch.equal(before, after)


def test_a_server_that_renders_messages_makes_the_training_tokens(merged: MergedModel, exported: Path) -> None:
    from transformers import AutoTokenizer

    formatter, tokenizer = PromptFormatter.load(merged.path), AutoTokenizer.from_pretrained(exported)
    for question in ("How many users?", "Wie alt ist Zoë?"):
        record = Record(question, "CREATE TABLE users (id, age)")
        served = tokenizer.apply_chat_template(formatter.messages(record), add_generation_prompt=True, return_dict=True)
        assert served["input_ids"] == tokenizer(formatter.prompt(record))["input_ids"]


def test_the_answers_end_token_is_an_eos_token(merged: MergedModel, exported: Path) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    tokens = PromptFormatter.load(merged.path).tokens
    assert tokens is not None
    stop_id = AutoTokenizer.from_pretrained(exported).convert_tokens_to_ids(tokens.stop)
    eos = GenerationConfig.from_pretrained(exported).eos_token_id
    assert stop_id in (eos if isinstance(eos, list) else [eos])
