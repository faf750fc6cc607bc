"""Preflight: a good model has no findings, and each way of breaking it has its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bedrock_fakes import FORMATTER, TENSORS, TOKENIZER, safetensors, write_merged

from sqlquarry.bedrock import checks
from sqlquarry.bedrock.preflight import preflight
from sqlquarry.bedrock.weights import read_header
from sqlquarry.errors import PreflightError
from sqlquarry.prompt import PromptFormatter

EMBED = TENSORS["model.embed_tokens.weight"]
NORM = TENSORS["model.norm.weight"]
TWO = {"a.safetensors": {"model.embed_tokens.weight": EMBED}, "b.safetensors": {"model.norm.weight": NORM}}


def _codes(merged: Any, *args: Any, **request: Any) -> list[str]:
    return [f"{finding.severity}:{finding.code}" for finding in preflight(merged, *args, **request).findings]


def test_a_good_model_has_no_findings(tmp_path: Path) -> None:
    report = preflight(
        write_merged(tmp_path), "text-to-sql_1", s3_uri="s3://bucket/a/b/", job_name="job.1", region="us-east-1"
    )
    assert report.findings == ()
    assert report.ok
    assert str(report) == "no findings"
    report.raise_for_errors()


def test_a_good_sharded_model_has_no_findings(tmp_path: Path) -> None:
    index = {"model.embed_tokens.weight": "a.safetensors", "model.norm.weight": "b.safetensors"}
    assert _codes(write_merged(tmp_path, shards=TWO, index=index)) == []


BROKEN: list[tuple[dict[str, Any], list[str]]] = [
    ({"config": {"architectures": ["GemmaForCausalLM"]}}, ["error:architecture"]),
    ({"config": {"architectures": None}}, ["error:architecture"]),
    ({"config": {"auto_map": {"AutoConfig": "x.Y"}}}, ["error:custom-code"]),
    ({"config": {"quantization_config": {"load_in_4bit": True}}}, ["error:quantized"]),
    ({"config": {"max_position_embeddings": 262144}}, ["error:max-positions"]),
    ({"config": {"dtype": "float16"}}, ["error:config-dtype"]),
    ({"config": {"vocab_size": 7}}, ["error:vocabulary-size"]),
    ({"config": {"tie_word_embeddings": False}}, ["error:tied-head"]),
    (
        {"config": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0}}},
        ["warning:rope-scaling"],
    ),
    ({"tokenizer_config": {"tokenizer_class": "GemmaTokenizer"}}, ["error:tokenizer-class"]),
    (
        {"tokenizer": TOKENIZER | {"added_tokens": [*TOKENIZER["added_tokens"], {"id": 6, "content": "+"}]}},
        ["error:vocabulary-size"],
    ),
    ({"tokenizer": TOKENIZER | {"model": {"vocab": [["a", 0.0]] * 9}}}, ["error:vocabulary-size"]),
    ({"tokenizer": TOKENIZER | {"added_tokens": []}}, ["error:stop-token"]),
    ({"fingerprint": "0" * 16}, ["error:prompt-fingerprint"]),
    ({"formatter": PromptFormatter()}, ["error:prompt"]),
    ({"shards": {"model.safetensors": {**TENSORS, "x": ("I8", [1])}}}, ["error:dtype"]),
    ({"shards": {"model.safetensors": {**TENSORS, "x": ("F32", [1])}}}, ["error:mixed-dtypes"]),
    ({"shards": {"model.safetensors": {**TENSORS, "q.lora_A.weight": ("BF16", [1, 4])}}}, ["error:adapter"]),
    ({"shards": {"model.safetensors": {**TENSORS, "lm_head.weight": ("BF16", [6, 4])}}}, ["warning:tied-head"]),
    ({"shards": TWO}, ["error:index-missing"]),
    (
        {"shards": TWO, "index": {"model.embed_tokens.weight": "a.safetensors", "model.norm.weight": "a.safetensors"}},
        ["error:index-mismatch"],
    ),
    ({"shards": TWO, "index": {"model.embed_tokens.weight": "a.safetensors"}}, ["error:index-mismatch"]),
    (
        {"index": dict.fromkeys([*TENSORS, "lost"], "model.safetensors")},
        ["error:index-mismatch"],
    ),
]


@pytest.mark.parametrize(("changes", "expected"), BROKEN, ids=lambda value: str(value)[:60])
def test_each_defect_has_its_finding(tmp_path: Path, changes: dict[str, Any], expected: list[str]) -> None:
    assert _codes(write_merged(tmp_path, **changes)) == expected


def test_defects_inside_a_nested_text_config_are_seen(tmp_path: Path) -> None:
    text = {"max_position_embeddings": 200_000, "vocab_size": 6, "dtype": "bfloat16"}
    config = {"architectures": ["MllamaForConditionalGeneration"], "text_config": text}
    assert _codes(write_merged(tmp_path, config=config)) == ["error:max-positions"]


FILES: list[tuple[Callable[[Path], object], list[str]]] = [
    (lambda d: (d / "config.json").unlink(), ["error:file"]),
    (lambda d: (d / "tokenizer.json").write_text("{"), ["error:file"]),
    (lambda d: (d / "prompt.json").unlink(), ["error:prompt"]),
    (lambda d: (d / "prompt.json").write_text("{}"), ["error:prompt"]),
    (lambda d: (d / "model.safetensors").unlink(), ["error:weights"]),
    (lambda d: (d / "model.safetensors").write_bytes(b"short"), ["error:weights"]),
    (lambda d: (d / "model.safetensors").write_bytes(safetensors(TENSORS)[:-1]), ["error:weights"]),
    (lambda d: (d / "model.safetensors.index.json").write_text("{}"), ["error:weights"]),
    (lambda d: (d / "adapter_config.json").write_text("{}"), ["error:adapter"]),
]


@pytest.mark.parametrize(("break_it", "expected"), FILES)
def test_each_bad_file_has_its_finding(tmp_path: Path, break_it: Callable[[Path], object], expected: list[str]) -> None:
    merged = write_merged(tmp_path)
    break_it(tmp_path)
    assert _codes(merged) == expected


def test_sizes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merged = write_merged(tmp_path)
    monkeypatch.setattr(checks, "MAX_SHARD_BYTES", 10)
    monkeypatch.setattr(checks, "MAX_TEXT_BYTES", 10)
    assert _codes(merged) == ["error:shard-size", "error:total-size"]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"name": "sql.v1"}, "error:model-name"),
        ({"name": "sql--v1"}, "error:model-name"),
        ({"name": "a" * 64}, "error:model-name"),
        ({"job_name": "_job"}, "error:job-name"),
        ({"job_name": "a" + "-" * 60 + "_"}, "error:job-name"),
        ({"s3_uri": "s3://bucket/run=1/"}, "error:s3-uri"),
        ({"s3_uri": "bucket/prefix"}, "error:s3-uri"),
        ({"s3_uri": "s3://bucket//twice"}, "error:s3-uri"),
        ({"region": "eu-west-3"}, "warning:region"),
    ],
)
def test_names_have_the_services_patterns(tmp_path: Path, request_: dict[str, str], expected: str) -> None:
    assert _codes(write_merged(tmp_path), **request_) == [expected]


def test_the_error_lists_every_finding_with_its_fix(tmp_path: Path) -> None:
    merged = write_merged(tmp_path, config={"architectures": ["X"], "max_position_embeddings": 262144})
    report = preflight(merged, "no.dots")
    assert not report.ok
    with pytest.raises(PreflightError) as caught:
        report.raise_for_errors()
    for part in ("[model-name]", "'no.dots'", "[architecture]", "'X'", "[max-positions]", "Set it to 131072"):
        assert part in str(caught.value)


def test_warnings_alone_do_not_stop(tmp_path: Path) -> None:
    report = preflight(write_merged(tmp_path), region="eu-west-3")
    assert report.findings
    report.raise_for_errors()


def test_a_stop_text_that_ends_with_a_special_token_will_do(tmp_path: Path) -> None:
    assert FORMATTER.tokens is not None
    formatter = dataclasses.replace(FORMATTER, tokens=dataclasses.replace(FORMATTER.tokens, stop="\n</s>"))
    assert _codes(write_merged(tmp_path, formatter=formatter)) == []


def test_a_header_is_read_without_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors({"a": ("F32", [2, 3]), "b": ("BF16", [])}))
    assert read_header(path) == {"a": ("F32", (2, 3)), "b": ("BF16", ())}
