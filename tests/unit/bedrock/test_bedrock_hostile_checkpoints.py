"""Preflight and export terminate for any hostile checkpoint, with a finding for the cause."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from bedrock_fakes import CHATML, write_checkpoint, write_merged
from sqlquarry.bedrock.export.metadata_files import export_files
from sqlquarry.bedrock.preflight import preflight
from sqlquarry.prompt import BoundTokens, PromptFormatter

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}"
ONLY_ANSWERS = "{% if messages|length == 2 %}{{ 'a' * 10**9 }}{% endif %}" + CHATML
QWEN_MOE = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}


def found(source: Any) -> dict[str, str]:
    """Return code -> message of every error."""
    started = time.process_time()
    report = preflight(source)
    assert time.process_time() - started < 4  # the template did not run in this process
    return {finding.code: finding.message for finding in report.findings if finding.severity == "error"}


@pytest.mark.parametrize("source", [LOOPS, ONLY_ANSWERS, "{{ 10 ** (10 ** 8) }}"])
@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.jinja", "chat_template.json"])
def test_a_hostile_template_is_a_finding_wherever_it_is(tmp_path: Path, where: str, source: str) -> None:
    files = {
        "tokenizer_config.json": None,
        "chat_template.jinja": {"chat_template.jinja": source},
        "chat_template.json": {"chat_template.json": {"chat_template": source}},
    }[where]
    named = [{"name": "default", "template": source}] if where == "tokenizer_config.json" else None
    tokenizer = {"chat_template": named} if named else None
    directory = write_checkpoint(tmp_path, template=None, tokenizer_config=tokenizer, files=files)
    assert repr(source[:80]) in found(directory)["template"]
    assert export_files(directory)  # the export renders the template too


def test_a_hostile_prompt_is_a_finding(tmp_path: Path) -> None:
    tokens = BoundTokens(LOOPS, "<s>", "</s>", adds_bos=True, stop="</s>")
    merged = write_merged(tmp_path, formatter=PromptFormatter(template="chat", tokens=tokens))
    assert repr(LOOPS[:80]) in found(merged)["prompt"]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"num_hidden_layers": 10**8}, "num_hidden_layers is 100000000"),
        ({"num_hidden_layers": 10**8, "text_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers"),
        (QWEN_MOE | {"num_experts": 10**8}, "num_experts is 100000000"),
        (QWEN_MOE | {"mlp_only_layers": [0] * 200_000}, "mlp_only_layers has 200,000 entries"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000"),
    ],
)
def test_an_impossible_size_is_a_finding_that_names_it(tmp_path: Path, config: dict[str, Any], named: str) -> None:
    assert named in found(write_checkpoint(tmp_path, config=config))["model-size"]


def test_the_largest_possible_mixture_is_checked_in_seconds(tmp_path: Path) -> None:
    sizes = QWEN_MOE | {"num_hidden_layers": 256, "num_experts": 512}
    started = time.process_time()
    report = preflight(write_checkpoint(tmp_path, config=sizes))
    assert "missing-tensors" in {finding.code for finding in report.findings}
    assert time.process_time() - started < 8


def test_code_in_a_processor_is_a_finding(tmp_path: Path) -> None:
    files = {"preprocessor_config.json": {"auto_map": {"AutoImageProcessor": "p.P"}}}
    assert "auto_map" in found(write_checkpoint(tmp_path, files=files))["custom-code"]
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())
