"""The model card has a header for the hub, the facts of the manifest, and the notice that the license requires."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sqlquarry.training.tracking.card import base_license, model_card, write_card

PROVENANCE: dict[str, Any] = {
    "base_model": {"name": "meta-llama/Meta-Llama-3-8B-Instruct", "path": "x", "sha256": "b" * 64},
    "prompt_fingerprint": "0123456789abcdef",
    "data_sha256": "d" * 64,
    "config": {"num_train_epochs": 2.0, "lora_r": 16, "target_modules": "all-linear"},
    "quantization": {"quant_type": "nf4"},
    "run": {
        "records": 62310,
        "rows": 1500,
        "tokens_per_epoch": 3_000_000,
        "tokens_unshared": 4_000_000,
        "steps": 950,
        "learning_rate": 2.9e-4,
        "training_loss": 0.1234,
        "duration_s": 754.0,
        "tokens_per_second": 7956.0,
        "device": "cuda",
        "processes": 4,
        "shard_group_size": 1,
        "trained_rows": [],
        "peak_memory_bytes": 9 * 2**30,
    },
    "versions": {"torch": "2.13.0"},
}
LLAMA_3 = "META LLAMA 3 COMMUNITY LICENSE AGREEMENT\nMeta Llama 3 Version Release Date: April 18, 2024"
LLAMA_31 = "LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\nLlama 3.1 Version Release Date: July 23, 2024"
APACHE = "                                 Apache License\n                           Version 2.0, January 2004\n"


def licensed(tmp_path: Path, text: str) -> Path:
    (tmp_path / "LICENSE.txt").write_text(text)
    return tmp_path


def header_of(card: str) -> dict[str, Any]:
    _, header, _ = card.split("---\n", 2)
    return yaml.safe_load(header)


def test_the_card_has_a_header_for_the_hub_and_the_facts_of_the_run(tmp_path: Path) -> None:
    write_card(tmp_path, PROVENANCE, base=licensed(tmp_path, LLAMA_3), scores={"execution accuracy": "81.2 %"})
    card = (tmp_path / "README.md").read_text()
    header = header_of(card)
    assert header["base_model"] == "meta-llama/Meta-Llama-3-8B-Instruct"
    assert header["license"] == "llama3"
    assert header["library_name"] == "peft"
    assert "text-to-sql" in header["tags"]
    for fact in (
        "62,310",
        "d" * 64,
        "b" * 64,
        "0123456789abcdef",
        "0.1234",
        "2.90e-04",
        "4 × cuda",
        "9.00 GiB",
        "81.2 %",
    ):
        assert fact in card
    assert "`lora_r` | `16`" in card
    assert "4-bit NF4" in card


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (LLAMA_3, "llama3", "Built with Meta Llama 3."),
        (LLAMA_31, "llama3.1", "Built with Llama."),
        (APACHE, "apache-2.0", "NOTICE"),
        ("MIT License\n\nCopyright (c) 2024", "mit", "copyright line"),
    ],
)
def test_licenses_are_recognized_by_their_text(tmp_path: Path, text: str, name: str, words: str) -> None:
    found = base_license(licensed(tmp_path, text))
    assert found is not None
    assert found.hub_name == name
    assert words in found.notice


def test_a_llama_architecture_does_not_imply_metas_license(tmp_path: Path) -> None:
    assert base_license(tmp_path) is None
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert base_license(tmp_path) is None
    assert base_license(licensed(tmp_path, "All rights reserved.")) is None
    card = model_card(PROVENANCE, None, {})
    assert "license" not in header_of(card)
    terms = card.partition("## License")[2]
    assert "license" in terms
    assert not re.search("Copyright|Llama|Apache|MIT", terms)
    assert "`SQLJudge`" in card  # instead of scores


def test_a_base_from_a_folder_has_no_hub_id() -> None:
    local = PROVENANCE | {"base_model": {"name": "/models/my llama", "sha256": "b"}, "quantization": None}
    card = model_card(local, None, {"a|b": "1|2"})
    assert "base_model" not in header_of(card)
    assert "# Text-to-SQL adapter for my llama" in card
    assert "4-bit" not in card
    assert "1\\|2" in card
