"""Preflight of local checkpoints: a good one has no findings, and each way of breaking one has its own."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.session import get_session

from bedrock_fakes import (
    CHATML,
    CONFIG,
    FORMATTER,
    TENSORS,
    TOKENIZER,
    TOKENIZER_CONFIG,
    old_dialect,
    safetensors,
    write_checkpoint,
    write_merged,
)
from sqlquarry.bedrock.import_request import KMS_KEY
from sqlquarry.bedrock.preflight import PreflightReport, preflight, request, tensors
from sqlquarry.bedrock.preflight.__main__ import main
from sqlquarry.checkpoints.tensor_shapes import expected_tensors
from sqlquarry.errors import ConfigError, PreflightError
from sqlquarry.prompt import PromptFormatter

EMBED = "model.embed_tokens.weight"
LAYERS = {name: tensor for name, tensor in TENSORS.items() if name != EMBED}
TWO = {"a.safetensors": {EMBED: TENSORS[EMBED]}, "b.safetensors": LAYERS}
INDEX = {EMBED: "a.safetensors", **dict.fromkeys(LAYERS, "b.safetensors")}


def _session(region: str) -> boto3.Session:
    return boto3.Session("testing", "testing", region_name=region)


def _codes(source: Any, *args: Any, **options: Any) -> list[str]:
    return [f"{finding.severity}:{finding.code}" for finding in preflight(source, *args, **options).findings]


def _problems(source: Any, **options: Any) -> list[str]:
    return [code for code in _codes(source, **options) if not code.startswith("note:")]


def _without(*names: str) -> dict[str, Any]:
    return {"shards": {"model.safetensors": {n: t for n, t in TENSORS.items() if n not in names}}}


def _with(**changed: Any) -> dict[str, Any]:
    return {"shards": {"model.safetensors": TENSORS | {name.replace("__", "."): t for name, t in changed.items()}}}


def test_a_good_model_has_no_findings(tmp_path: Path) -> None:
    report = preflight(
        write_merged(tmp_path),
        "text-to-sql_1",
        s3_uri="s3://bucket/a/b/",
        job_name="job.1",
        session=_session("us-east-1"),
    )
    assert report.findings == ()
    assert report.ok
    assert str(report) == "no findings"
    report.raise_for_errors()
    assert preflight(tmp_path).findings == ()  # given only the directory


def test_good_sharded_models_have_no_findings(tmp_path: Path) -> None:
    assert _codes(write_merged(tmp_path / "merged", shards=TWO, index=INDEX)) == []
    assert _problems(write_checkpoint(tmp_path / "any", shards=TWO, index=INDEX)) == []


def test_a_checkpoint_of_transformers_4_has_no_findings(tmp_path: Path) -> None:
    assert _codes(str(write_checkpoint(tmp_path, **old_dialect()))) == []


def test_everything_that_import_model_rewrites_is_a_note(tmp_path: Path) -> None:
    report = preflight(write_checkpoint(tmp_path))
    assert report.ok
    assert [f"{finding.severity}:{finding.code}" for finding in report.findings] == [
        "note:rope-parameters",
        "note:dtype-key",
        "note:tokenizer-class",
        "note:special-tokens",
        "note:chat-template",
    ]
    assert "rope_theta 10000.0" in str(report)
    assert all("import_model" in finding.fix and finding.repairable for finding in report.findings)


BROKEN: list[tuple[dict[str, Any], list[str]]] = [
    ({"config": {"architectures": ["GemmaForCausalLM"], "model_type": "gemma"}}, ["error:architecture"]),
    ({"config": {"architectures": None}}, ["error:architecture"]),
    ({"config": {"architectures": ["MistralForCausalLM"]}}, ["error:model-type"]),
    ({"config": {"auto_map": {"AutoConfig": "x.Y"}}}, ["error:custom-code"]),
    ({"tokenizer_config": {"auto_map": {"AutoTokenizer": "x.Y"}}}, ["error:custom-code"]),
    ({"config": {"quantization_config": {"load_in_4bit": True}}}, ["error:quantized"]),
    ({"config": {"max_position_embeddings": 262144}}, ["error:max-positions"]),
    ({"config": {"num_hidden_layers": None}}, ["error:config-keys"]),
    ({"config": {"dtype": "float16"}}, ["error:config-dtype"]),
    ({"config": {"vocab_size": 7}}, ["error:vocabulary-size"]),
    ({"config": {"tie_word_embeddings": False}}, ["error:tied-head"]),
    ({"config": {"tie_word_embeddings": None}}, ["error:tied-head"]),
    ({"config": {"num_hidden_layers": 3}}, ["error:missing-tensors"]),
    ({"config": {"num_hidden_layers": 1}}, ["warning:extra-tensors"]),
    ({"config": {"intermediate_size": 9}}, ["error:shapes"]),
    ({"config": {"num_key_value_heads": 2}}, ["error:shapes"]),
    ({"config": {"attention_bias": True}}, ["error:missing-tensors"]),
    ({"config": {"eos_token_id": 6}}, ["error:eos"]),
    (
        {"config": {"rope_parameters": CONFIG["rope_parameters"] | {"factor": 32.0}}},
        ["warning:rope-scaling"],
    ),
    ({"tokenizer_config": {"tokenizer_class": "GemmaTokenizer"}}, ["error:tokenizer-class"]),
    ({"tokenizer_config": {"tokenizer_class": "LlamaTokenizer"}}, ["note:tokenizer-files"]),
    ({"tokenizer_config": {"pad_token": "<pad>"}}, ["error:special-tokens"]),
    (
        {"tokenizer": TOKENIZER | {"added_tokens": [*TOKENIZER["added_tokens"], {"id": 6, "content": "+"}]}},
        ["error:vocabulary-size"],
    ),
    ({"tokenizer_config": {"added_tokens_decoder": {"6": {"content": "+"}}}}, ["error:vocabulary-size"]),
    (_with(x=("I8", [1])), ["error:dtype", "warning:extra-tensors"]),
    (_with(x=("F64", [1])), ["error:dtype", "warning:extra-tensors"]),
    (_with(x=("F32", [1])), ["error:mixed-dtypes", "warning:extra-tensors"]),
    (_with(q__lora_A__weight=("BF16", [1, 4])), ["error:adapter"]),
    (_with(model__layers__0__mlp__up_proj__weight__absmax=("F32", [2])), ["error:quantized", "error:mixed-dtypes"]),
    (_with(model__layers__0__self_attn__q_proj__qweight=("BF16", [2])), ["error:quantized"]),
    (_with(lm_head__weight=("BF16", [6, 4])), ["warning:tied-head"]),
    # A buffer that every server computes itself. Old versions of transformers saved it in float32.
    (_with(model__layers__0__self_attn__rotary_emb__inv_freq=("F32", [1])), []),
    (_without("model.layers.1.mlp.up_proj.weight"), ["error:missing-tensors"]),
    ({"shards": TWO}, ["error:index-missing"]),
    ({"shards": {"weights.safetensors": TENSORS}}, ["error:index-missing"]),
    ({"shards": TWO, "index": INDEX | {"model.norm.weight": "a.safetensors"}}, ["error:index-mismatch"]),
    (
        {"shards": TWO, "index": {n: s for n, s in INDEX.items() if n != "model.norm.weight"}},
        ["error:index-mismatch"],
    ),
    ({"index": dict.fromkeys([*TENSORS, "lost"], "model.safetensors")}, ["error:index-mismatch"]),
    ({"shards": TWO, "index": INDEX | {"more": "c.safetensors"}}, ["error:shard-missing"]),
    ({"shards": {**TWO, "c.safetensors": TENSORS}, "index": INDEX}, ["note:stray-shard"]),
    ({"shards": {"model.safetensors": TENSORS, "consolidated.safetensors": TENSORS}}, ["note:stray-shard"]),
    (
        {"shards": TWO | {"a.safetensors": {**TWO["a.safetensors"], "model.norm.weight": ("BF16", [4])}}}
        | {"index": INDEX},
        ["error:duplicate-tensors"],
    ),
]


def _id(value: object) -> str:
    return re.sub(r"\W+", "-", str(value))[:60]


@pytest.mark.parametrize(("changes", "expected"), BROKEN, ids=_id)
def test_each_defect_has_its_finding(tmp_path: Path, changes: dict[str, Any], expected: list[str]) -> None:
    assert _codes(write_merged(tmp_path / "merged", **changes)) == expected
    # Any other checkpoint has the same findings, without those that are only rewritten.
    rewritten = [code for code in expected if not code.startswith("note:")]
    assert _problems(write_checkpoint(tmp_path / "any", **changes)) == rewritten


MERGED_ONLY: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"tokenizer": TOKENIZER | {"model": {"vocab": [[f"token{i}", 0.0] for i in range(9)]}}},
        ["error:vocabulary-size"],
    ),
    ({"tokenizer": TOKENIZER | {"added_tokens": []}}, ["error:special-tokens", "error:stop-token"]),
    ({"fingerprint": "0" * 16}, ["error:prompt-fingerprint"]),
    ({"formatter": PromptFormatter()}, ["error:prompt"]),
]


@pytest.mark.parametrize(("changes", "expected"), MERGED_ONLY, ids=_id)
def test_defects_of_merged_models(tmp_path: Path, changes: dict[str, Any], expected: list[str]) -> None:
    found = _codes(write_merged(tmp_path, **changes))
    assert [code for code in found if code in expected] == expected


GPT_OSS = {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss"}
FOREIGN: list[tuple[dict[str, Any], list[str]]] = [
    ({"template": None}, ["warning:chat-template"]),
    ({"template": "{% if %}"}, ["error:template"]),
    ({"template": "{{ raise_exception('no') }}"}, ["error:template"]),
    ({"template": "always the same"}, ["error:template", "warning:stop-token"]),
    (
        {"template": CHATML.replace("add_generation_prompt", "false")},
        ["warning:generation-prompt"],
    ),
    # Mistral's format has no header before the answer.
    ({"template": "{% for m in messages %}{{ '[' + m['content'] + ']' }}{% endfor %}</s>"}, []),
    ({"template": CHATML.replace("eos_token", "'STOP'")}, ["warning:stop-token"]),
    ({"tokenizer_config": {"chat_template": [{"name": "default", "template": CHATML}]}}, []),
    ({"config": {"eos_token_id": None}, "template": None}, ["warning:eos", "warning:chat-template"]),
    ({"files": {"added_tokens.json": {"<|more|>": 6}}}, ["error:vocabulary-size"]),
    ({"files": {"adapter_config.json": {}}}, ["error:adapter"]),
    ({"files": {"quantize_config.json": {}}}, ["warning:quantized"]),
    ({"files": {"pytorch_model.bin": b"x"}}, ["warning:leftovers"]),
    ({"files": {"model.Q4_K_M.gguf": b"x"}}, ["warning:leftovers"]),
    ({"files": {"checkpoint-500/optimizer.pt": b"x"}}, ["warning:leftovers"]),
    ({"files": {"original/params.json": "{}"}}, ["warning:leftovers"]),
    ({"files": {"README.md": "words", ".cache/x.bin": b"x"}}, []),
    ({"files": {"manifest.json": "{}"}}, ["error:manifest"]),
    ({"config": GPT_OSS | {"eos_token_id": 2}}, ["error:eos"]),  # the vocabulary of the fake is too small for its ids
    ({"config": {"text_config": "no object", "max_position_embeddings": [1]}}, ["error:config-value"]),
    (
        {"config": {"quantization_config": "awq", "architectures": ["GptOssForCausalLM"]}},
        ["error:model-type", "error:malformed", "error:eos"],
    ),
    (  # a template that accepts only a list of parts loses the question if the content is text
        {"config": {"architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl"}}
        | {"template": "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}"},
        ["error:template"],
    ),
]


@pytest.mark.parametrize(("changes", "expected"), FOREIGN, ids=_id)
def test_defects_of_any_checkpoint(tmp_path: Path, changes: dict[str, Any], expected: list[str]) -> None:
    assert _problems(write_checkpoint(tmp_path, **changes)) == expected


def test_gpt_oss_is_served_in_one_region_and_needs_its_stop_tokens(tmp_path: Path) -> None:
    write_checkpoint(
        tmp_path, config=GPT_OSS | {"vocab_size": 201_088, "quantization_config": {"quant_method": "mxfp4"}}
    )
    codes = _codes(tmp_path, session=_session("us-west-2"))
    assert "error:region" in codes
    assert "note:quantized" in codes
    assert "note:gpt-oss-eos" in codes  # rewritten during the upload
    assert "error:region" not in _codes(tmp_path, session=_session("us-east-1"))


def test_defects_inside_a_nested_text_config_are_seen(tmp_path: Path) -> None:
    text = {"max_position_embeddings": 200_000, "vocab_size": 6, "dtype": "bfloat16"}
    config = {"architectures": ["MllamaForConditionalGeneration"], "model_type": "mllama", "text_config": text}
    rows = {**TENSORS, EMBED: ("BF16", [14, 4])}  # 8 image tokens follow Mllama's vocabulary
    assert _codes(write_merged(tmp_path, config=config, shards={"model.safetensors": rows})) == ["error:max-positions"]


FILES: list[tuple[Callable[[Path], object], list[str]]] = [
    (lambda d: (d / "config.json").unlink(), ["error:file"]),
    (lambda d: (d / "tokenizer.json").write_text("{"), ["error:file"]),
    (lambda d: (d / "generation_config.json").write_text("{"), ["error:file"]),
    (lambda d: (d / "special_tokens_map.json").write_text("[]"), ["error:file"]),
    (lambda d: (d / "prompt.json").unlink(), ["error:prompt"]),
    (lambda d: (d / "prompt.json").write_text("{}"), ["error:prompt"]),
    (lambda d: (d / "model.safetensors").unlink(), ["error:weights"]),
    (lambda d: (d / "model.safetensors").write_bytes(b"short"), ["error:weights"]),
    (lambda d: (d / "model.safetensors").write_bytes(safetensors(TENSORS)[:-1]), ["error:weights"]),
    (lambda d: (d / "model.safetensors").write_bytes(safetensors(TENSORS) + b"x"), ["error:weights"]),
    (lambda d: (d / "model.safetensors.index.json").write_text("{}"), ["error:weights"]),
    (lambda d: (d / "adapter_config.json").write_text("{}"), ["error:adapter"]),
]


@pytest.mark.parametrize(("break_it", "expected"), FILES)
def test_each_bad_file_has_its_finding(tmp_path: Path, break_it: Callable[[Path], object], expected: list[str]) -> None:
    merged = write_merged(tmp_path)
    break_it(tmp_path)
    assert _codes(merged) == expected


def test_the_report_says_where_the_files_are(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "hf")
    report = preflight(tmp_path)
    assert {finding.code for finding in report.findings} == {"file", "weights"}
    assert all("'hf'" in finding.fix for finding in report.findings if finding.code == "file")
    (tmp_path / "model.tar.gz").write_bytes(b"x")
    assert all("model.tar.gz" in finding.fix for finding in preflight(tmp_path).findings if finding.code == "file")
    problems = []
    for name in ("none", "model.tar.gz"):
        with pytest.raises(ConfigError, match=re.escape(str(tmp_path / name))) as caught:
            preflight(tmp_path / name)
        problems.append(str(caught.value).replace(name, "…"))
    assert problems[0] != problems[1]  # a file is not reported as missing


def test_sizes_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merged = write_merged(tmp_path)
    monkeypatch.setattr(tensors, "MAX_SHARD_BYTES", 10)
    monkeypatch.setattr(tensors, "MAX_TEXT_BYTES", 10)
    assert _codes(merged) == ["warning:shard-size", "error:total-size"]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"name": "sql.v1"}, "error:model-name"),
        ({"name": "sql--v1"}, "error:model-name"),
        ({"name": "a" * 64}, "error:model-name"),
        ({"job_name": "_job"}, "error:job-name"),
        ({"job_name": "a" + "-" * 60 + "_"}, "error:job-name"),
        ({"s3_uri": "s3://bucket/run=1/"}, "error:s3-uri"),
        ({"s3_uri": "s3://bucket/my model/"}, "error:s3-uri"),
        ({"s3_uri": "s3://bucket/me@here/"}, "error:s3-uri"),
        ({"s3_uri": "bucket/prefix"}, "error:s3-uri"),
        ({"s3_uri": "s3://bucket//twice"}, "error:s3-uri"),
        ({"s3_uri": "s3://bucket/model.tar.gz"}, "error:s3-uri"),
        ({"session": _session("eu-west-3")}, "warning:region"),
        ({"role_arn": "arn:aws:iam::1:role/x"}, "error:role-arn"),
        ({"kms_key_id": "no key"}, "error:kms-key"),
        (
            {"kms_key_id": "arn:aws:kms:us-west-2:123456789012:alias/x", "session": _session("us-east-1")},
            "error:kms-key",
        ),
        ({"vpc_config": {"subnetIds": ["subnet-1"] * 17, "securityGroupIds": ["sg-1"]}}, "error:vpc"),
        ({"vpc_config": {"subnetIds": ["subnet-1"]}}, "error:vpc"),
        ({"vpc_config": {"subnetIds": ["subnet-1"], "securityGroupIds": ["sg 1"]}}, "error:vpc"),
        ({"vpc_config": {"subnetIds": ["subnet-1"], "securityGroupIds": ["sg-1"], "vpcId": ["x"]}}, "error:vpc"),
    ],
)
def test_the_request_has_the_services_patterns(tmp_path: Path, request_: dict[str, Any], expected: str) -> None:
    assert _codes(write_merged(tmp_path), **request_) == [expected]


def test_a_good_request_has_no_findings(tmp_path: Path) -> None:
    good = {
        "role_arn": "arn:aws:iam::123456789012:role/path/name",
        "kms_key_id": "arn:aws:kms:us-east-1:123456789012:alias/x",
        "session": _session("us-east-1"),
        "vpc_config": {"subnetIds": ["subnet-1"], "securityGroupIds": ["sg-1"]},
    }
    assert _codes(write_merged(tmp_path), **good) == []


def test_patterns_are_those_of_the_api() -> None:
    shape = get_session().get_service_model("bedrock").operation_model("CreateModelImportJob").input_shape
    assert shape is not None
    patterns = {name: member.metadata.get("pattern", "") for name, member in shape.members.items()}
    # The patterns are private constants, and only comparing them shows that they equal those of the API.
    assert request._MODEL_NAME.pattern == patterns["importedModelName"]
    for name in ("a", "job-1.2+3", "a--b", "-a", "a_b", "", "é", "a.", "a" * 63):
        wanted = re.fullmatch(patterns["jobName"], name) is not None
        assert (request._JOB_NAME.fullmatch(name) is not None) == wanted, name
    for key in ("a" * 36, "alias/x", "arn:aws:kms:us-east-1:123456789012:key/" + "b" * 36, "alias", "arn:aws:kms:x"):
        wanted = re.fullmatch(patterns["importedModelKmsKeyId"], key) is not None
        assert (KMS_KEY.fullmatch(key) is not None) == wanted, key


def test_the_error_lists_every_finding_with_its_fix(tmp_path: Path) -> None:
    merged = write_merged(tmp_path, config={"architectures": ["X"], "max_position_embeddings": 262144})
    report = preflight(merged, "no.dots")
    assert not report.ok
    with pytest.raises(PreflightError) as caught:
        report.raise_for_errors()
    for part in ("[model-name]", "'no.dots'", "[architecture]", "'X'", "[max-positions]", "131072"):
        assert part in str(caught.value)


def test_warnings_do_not_raise(tmp_path: Path) -> None:
    report = preflight(write_merged(tmp_path), session=_session("eu-west-3"))
    assert [finding.code for finding in report.warnings] == ["region"]
    report.raise_for_errors()


def test_a_stop_text_may_end_with_a_special_token(tmp_path: Path) -> None:
    assert FORMATTER.tokens is not None
    formatter = dataclasses.replace(FORMATTER, tokens=dataclasses.replace(FORMATTER.tokens, stop="\n</s>"))
    assert _codes(write_merged(tmp_path, formatter=formatter)) == []


def _moe(architecture: str, **sizes: int) -> dict[str, Any]:
    keys = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
    return {"architectures": [architecture], **{key: CONFIG[key] for key in keys}, **sizes}


def test_shapes_of_mixtures_and_of_other_families() -> None:
    mixtral = expected_tensors("MixtralForCausalLM", _moe("MixtralForCausalLM", num_local_experts=3))
    assert mixtral is not None
    assert mixtral["model.layers.1.block_sparse_moe.experts.2.w2.weight"] == (4, 8)
    assert mixtral["model.layers.0.self_attn.k_proj.weight"] == (16, 4)  # 8 heads of size 2 if the key is missing
    sparse = _moe("Qwen3MoeForCausalLM", num_experts=2, moe_intermediate_size=5) | {"mlp_only_layers": [0]}
    qwen = expected_tensors("Qwen3MoeForCausalLM", sparse)
    assert qwen is not None
    assert qwen["model.layers.0.mlp.up_proj.weight"] == (8, 4)
    assert qwen["model.layers.1.mlp.experts.1.down_proj.weight"] == (4, 5)
    assert qwen["model.layers.1.self_attn.q_norm.weight"] == (2,)
    qwen2 = expected_tensors("Qwen2ForCausalLM", CONFIG)
    assert qwen2 is not None
    assert qwen2["model.layers.0.self_attn.k_proj.bias"] == (2,)
    assert "model.layers.0.self_attn.o_proj.bias" not in qwen2
    assert expected_tensors("T5ForConditionalGeneration", CONFIG) is None


def test_16_gigabytes_are_checked_in_seconds(tmp_path: Path) -> None:
    """Llama 3 8B in four shards of sparse files, of which only headers are read."""
    config = {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
        "vocab_size": 128256,
    }
    shapes = expected_tensors("LlamaForCausalLM", config)
    assert shapes is not None
    names = list(shapes)
    index, total = {}, 0
    (tmp_path / "x").mkdir()
    for number in range(4):
        shard, header, end = f"model-{number + 1:05}-of-00004.safetensors", {}, 0
        for name in names[number::4]:
            size = 2 * shapes[name][0] * (shapes[name][1] if len(shapes[name]) > 1 else 1)
            header[name] = {"dtype": "BF16", "shape": list(shapes[name]), "data_offsets": [end, end + size]}
            end, index[name] = end + size, shard
        text = json.dumps(header).encode()
        with (tmp_path / "x" / shard).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + end)
        total += end
    assert total > 16e9
    words = {f"word{number}": number for number in range(128_000)}
    tokenizer = {"model": {"vocab": words}, "added_tokens": [{"id": 128_001, "content": "</s>", "special": True}]}
    write_checkpoint(
        tmp_path / "x",
        config=config | {"eos_token_id": 128_001},
        tokenizer_config={"bos_token": None, "extra_special_tokens": []},
        tokenizer=tokenizer,
        index=index,
        shards={"x": {}},
    )
    (tmp_path / "x" / "x").unlink()
    started = time.process_time()
    report = preflight(tmp_path / "x")
    assert time.process_time() - started < 5
    assert {finding.severity for finding in report.findings} == {"note"}
    # A file that is one byte too short is found just as fast.
    shard = tmp_path / "x" / "model-00004-of-00004.safetensors"
    os.truncate(shard, shard.stat().st_size - 1)
    assert _problems(tmp_path / "x") == ["error:weights"]


def test_the_command_prints_a_table_and_returns_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path / "model")
    assert main([str(tmp_path / "model"), "--name", "no.dots"]) == 1
    out = capsys.readouterr().out
    assert "model-name" in out
    assert "rope-parameters" in out
    assert "┃" in out
    assert main([str(tmp_path / "model"), "--fix", "--name", "fine"]) == 0
    out = capsys.readouterr().out
    assert "config.json: " in out
    assert "┃" not in out  # there is no table, because there are no findings
    assert main([str(tmp_path / "none")]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err.replace("\n", "")
    assert main(["s3://bucket/x", "--fix"]) == 2
    assert main([str(tmp_path / "model"), "--output-dir", str(tmp_path / "copy")]) == 0


def test_an_empty_report_is_ok() -> None:
    assert PreflightReport(()).ok
    assert TOKENIZER_CONFIG["tokenizer_class"] == "TokenizersBackend"  # the subject of the notes above
