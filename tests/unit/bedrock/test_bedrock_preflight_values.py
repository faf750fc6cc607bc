"""Preflight finds values, formats, NaN and leftovers that transformers 4.51.3 cannot handle."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_fakes import CONFIG, TENSORS, safetensors, write_checkpoint, write_merged
from sqlquarry.bedrock.export.model_export import ModelExport
from sqlquarry.bedrock.export.non_finite import holds_non_finite, sha256_of_finite
from sqlquarry.bedrock.preflight import preflight, repair
from sqlquarry.bedrock.preflight.source import LocalSource
from sqlquarry.bedrock.preflight.tensors import finite
from sqlquarry.checkpoints.tensor_shapes import expected_tensors
from sqlquarry.errors import CorruptArtifactError

NORM = "model.norm.weight"
NO_ROPE = {"rope_parameters": None}
ROPE = {"rope_theta": 1e4}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
EXPERTS = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_experts": 3,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 4,
}
MIXTRAL = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 3}


def errors(source: Any) -> list[str]:
    return [finding.code for finding in preflight(source).findings if finding.severity == "error"]


# Each value fails in transformers 4.51.3, or builds another model (biases for "false", an unlimited window).
@pytest.mark.parametrize(
    ("config", "named"),
    [
        (NO_ROPE | {"rope_scaling": "linear"}, "rope_scaling"),
        (NO_ROPE | {"rope_scaling": ["linear"]}, "rope_scaling"),
        (NO_ROPE | {"rope_scaling": {"type": "linear"}}, "rope_scaling.factor"),
        (NO_ROPE | {"rope_scaling": {}}, "rope_scaling.rope_type"),
        (NO_ROPE | {"rope_scaling": {"factor": 2.0}}, "rope_scaling.rope_type"),
        (NO_ROPE | {"rope_scaling": {"rope_type": "su", "factor": 2.0}}, "rope_scaling.rope_type"),
        (NO_ROPE | {"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling.factor"),
        (NO_ROPE | {"rope_scaling": {"rope_type": "dynamic", "factor": "2"}}, "rope_scaling.factor"),
        (NO_ROPE | {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_scaling.short_factor"),
        ({"rope_parameters": ROPE | {"rope_type": "longrope", "factor": 2.0}}, "rope_scaling.long_factor"),
        (
            NO_ROPE | {"rope_scaling": {"rope_type": "longrope", "short_factor": [1, 1], "long_factor": [1.0]}},
            "rope_scaling.short_factor",
        ),
        (
            NO_ROPE | {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}},
            "rope_scaling.factor",
        ),
        (NO_ROPE | {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling.low_freq_factor"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps"),
        ({"rms_norm_eps": None}, "rms_norm_eps"),
        (NO_ROPE | {"rope_theta": "10000"}, "rope_theta"),
        ({"hidden_act": "swiglu"}, "hidden_act"),
        ({"hidden_act": ["silu"]}, "hidden_act"),
        ({"dtype": "bf16"}, "torch_dtype"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"head_dim": "4"}, "head_dim"),
        ({"pad_token_id": 6}, "pad_token_id"),
        ({"pad_token_id": -7}, "pad_token_id"),
        ({"attention_bias": "false"}, "attention_bias"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings"),
        ({"attention_dropout": 2}, "attention_dropout"),
        ({"max_position_embeddings": "64"}, "max_position_embeddings"),
        ({"sliding_window": "4096"}, "sliding_window"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"pad_token_id": True}, "pad_token_id"),
        ({"head_dim": 3}, "head_dim"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"partial_rotary_factor": None}, "partial_rotary_factor"),
        ({"pruned_heads": None}, "pruned_heads"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"num_labels": None}, "num_labels"),
        ({"id2label": ["a"]}, "id2label"),
        ({"problem_type": "generation"}, "problem_type"),
        ({"_attn_implementation": "flash_attention_3"}, "_attn_implementation"),
        (NO_ROPE | {"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": "32"}}, "rope_scaling.beta_fast"),
        (
            NO_ROPE | {"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": "1"}},
            "rope_scaling.attention_factor",
        ),
        (QWEN3 | {"head_dim": None}, "head_dim"),
        (QWEN2 | {"head_dim": None}, "head_dim"),
        (QWEN2 | {"use_sliding_window": True, "max_window_layers": None}, "max_window_layers"),
        (EXPERTS | {"num_key_value_heads": None}, "num_key_value_heads"),
        (EXPERTS | {"decoder_sparse_step": 0}, "decoder_sparse_step"),
        (EXPERTS | {"decoder_sparse_step": None}, "decoder_sparse_step"),
        (EXPERTS | {"num_experts_per_tok": 4}, "num_experts_per_tok"),
        (MIXTRAL | {"num_experts_per_tok": 0}, "num_experts_per_tok"),
    ],
)
def test_values_that_no_model_can_be_built_from(tmp_path: Path, config: dict[str, Any], named: str) -> None:
    found = preflight(write_checkpoint(tmp_path, config=config)).findings
    messages = [finding.message for finding in found if finding.code == "config-value"]
    assert any(message.startswith(f"{named} is ") for message in messages), found


@pytest.mark.parametrize(
    "config",
    [
        {"pad_token_id": -1},
        {"pad_token_id": None, "hidden_act": "silu", "rms_norm_eps": 1e-6, "attention_bias": False},
        {"rope_parameters": ROPE | {"rope_type": "yarn", "factor": 4.0}},
        {"rope_parameters": ROPE | {"rope_type": "longrope", "factor": 4.0, "short_factor": [1], "long_factor": [2]}},
        {"rope_parameters": ROPE | {"rope_type": "default"}},
        {"head_dim": None, "sliding_window": None, "num_key_value_heads": 1},
        {"attention_dropout": None, "partial_rotary_factor": 1.0, "decoder_sparse_step": None, "pruned_heads": {}},
        {"rope_parameters": ROPE | {"rope_type": "yarn", "factor": 4.0, "beta_fast": None, "attention_factor": 1.0}},
    ],
)
def test_values_of_real_models_are_accepted(tmp_path: Path, config: dict[str, Any]) -> None:
    assert errors(write_checkpoint(tmp_path, config=config)) == []


@pytest.mark.parametrize("content", ["\ufeff" + json.dumps(CONFIG), json.dumps(CONFIG | {"rms_norm_eps": math.nan})])
def test_json_that_other_parsers_refuse_is_refused(tmp_path: Path, content: str) -> None:
    assert errors(write_checkpoint(tmp_path, files={"config.json": content})) == ["file"]


def with_metadata(metadata: dict[str, str] | None) -> bytes:
    plain = safetensors(TENSORS)
    length = int.from_bytes(plain[:8], "little")
    header = json.loads(plain[8 : 8 + length])
    text = json.dumps(({} if metadata is None else {"__metadata__": metadata}) | header).encode()
    return struct.pack("<Q", len(text)) + text + plain[8 + length :]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (None, []),
        ({"format": "pt"}, []),
        ({"format": "mlx"}, []),
        ({}, ["format"]),
        ({"made_by": "a script"}, ["format"]),
        ({"format": "np"}, ["format"]),
        ({"format": "tf"}, ["format"]),
    ],
)
def test_a_file_with_metadata_that_pytorch_refuses_is_found_and_repaired(
    tmp_path: Path, metadata: dict[str, str] | None, expected: list[str]
) -> None:
    model = write_checkpoint(tmp_path / "model", files={"model.safetensors": with_metadata(metadata)})
    assert errors(model) == expected
    repair(model)
    assert errors(model) == []


NUMPY = {"F16": np.float16, "F32": np.float32}


@given(
    st.sampled_from(["BF16", "F16", "F32"]),
    st.lists(st.binary(min_size=4, max_size=4), max_size=40),
    st.lists(
        st.sampled_from([b"\x80\x7f", b"\x00\x7c", b"\x7f\x7f", b"\xff\x7f", b"\x80\xff", b"\xff\x7b"]), max_size=4
    ),
)
def test_non_finite_numbers_are_those_of_ieee_754(dtype: str, numbers: list[bytes], edges: list[bytes]) -> None:
    content = b"".join([*numbers, *(edge * 2 for edge in edges)])
    if dtype == "BF16":  # the upper half of a float32
        wide = b"".join(b"\0\0" + content[at : at + 2] for at in range(0, len(content), 2))
        values = np.frombuffer(wide, dtype="<f4")
    else:
        values = np.frombuffer(content, dtype=NUMPY[dtype])
    assert holds_non_finite(dtype, content) == (not np.isfinite(values).all())


def test_other_dtypes_are_ignored() -> None:
    assert not holds_non_finite("U8", b"\xff" * 8)


def poisoned(name: str, place: int) -> bytes:
    plain = bytearray(safetensors(TENSORS))
    length = int.from_bytes(plain[:8], "little")
    start = json.loads(plain[8 : 8 + length])[name]["data_offsets"][0]
    at = 8 + length + start + 2 * place
    plain[at : at + 2] = b"\xc0\x7f"  # NaN in bfloat16
    return bytes(plain)


@pytest.mark.parametrize("name", [NORM, "model.embed_tokens.weight"])
def test_nan_in_weights_is_found(tmp_path: Path, name: str) -> None:
    found = preflight(write_checkpoint(tmp_path, files={"model.safetensors": poisoned(name, 2)})).findings
    assert [(one.code, one.where) for one in found if one.severity == "error"] == [("non-finite", name)]


def test_of_many_tensors_a_sample_of_all_sizes_is_checked(tmp_path: Path) -> None:
    from sqlquarry.bedrock.preflight.checkpoint import read_weights

    class Counting(LocalSource):
        def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
            reads.append(length)
            return super().read(name, start, length)

    reads: list[int | None] = []
    source = Counting(write_checkpoint(tmp_path, files={"model.safetensors": poisoned(NORM, 3)}))
    weights, _ = read_weights(source)
    assert weights is not None
    reads.clear()
    assert len(list(finite(source, weights))) == 1
    assert len(reads) == len(TENSORS)
    reads.clear()
    list(finite(source, weights, most_reads=4))
    assert 2 <= len(reads) <= 4
    assert len(set(reads)) > 1


def test_an_import_without_a_manifest_checks_every_weight(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    size = 3 * 2**19
    header = json.dumps({"w": {"dtype": "BF16", "shape": [size], "data_offsets": [0, 2 * size]}}).encode()
    content = bytearray(struct.pack("<Q", len(header)) + header + bytes(2 * size))
    path.write_bytes(content)
    assert sha256_of_finite(path) == hashlib.sha256(content).hexdigest()
    content[-2:] = b"\x80\xff"  # minus infinity, far beyond the bytes that a preflight reads
    path.write_bytes(content)
    with pytest.raises(CorruptArtifactError, match=re.escape(f"{path}: tensor w ")):
        sha256_of_finite(path)


def test_the_second_set_of_weights_in_mistrals_folder_is_not_uploaded(tmp_path: Path) -> None:
    shards = {"model.safetensors": TENSORS, "consolidated.safetensors": TENSORS}
    for number, index in enumerate([None, dict.fromkeys(TENSORS, "model.safetensors")]):
        model = write_checkpoint(tmp_path / str(number), shards=shards, index=index)
        report = preflight(model)
        assert report.ok
        assert "note:stray-shard" in [f"{one.severity}:{one.code}" for one in report.findings]
        assert "consolidated.safetensors" not in ModelExport.of(model).files


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_repair_removes_a_leftover_quantization_config(tmp_path: Path, key: str) -> None:
    model = write_checkpoint(tmp_path, config={key: {"quant_method": "bitsandbytes", "load_in_4bit": True}})
    found = [one for one in preflight(model).findings if one.severity == "error"]
    assert [(one.code, one.repairable) for one in found] == [("quantized", True)]
    assert found[0].message.startswith(key)
    repair(model)
    assert errors(model) == []
    assert key not in json.loads((model / "config.json").read_text())


def test_quantized_weights_are_not_a_leftover(tmp_path: Path) -> None:
    packed = TENSORS | {"model.layers.0.mlp.up_proj.weight.absmax": ("F32", [2])}
    options = {"config": {"quantization_config": {}}, "shards": {"model.safetensors": packed}}
    found = [one for one in preflight(write_merged(tmp_path, **options)).findings if one.code == "quantized"]
    assert not any(one.repairable for one in found)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("config", "code"), [({"model_type": None}, "model-type"), ({"quantization_config": None}, "quantized")]
)
def test_null_that_4_51_3_cannot_read_is_removed_by_upload_and_repair(
    tmp_path: Path, config: dict[str, Any], code: str
) -> None:
    source = write_checkpoint(tmp_path / "model", config=config)
    report = preflight(source)
    assert report.ok
    assert [(found.severity, found.repairable) for found in report.findings if found.code == code] == [("note", True)]
    repair(source, output_dir=tmp_path / "repaired")
    for files in (ModelExport.of(source).files, {"config.json": (tmp_path / "repaired/config.json").read_bytes()}):
        content = json.loads(files["config.json"])  # type: ignore[arg-type] - rewritten files are bytes
        assert content["model_type"] == "llama"
        assert "quantization_config" not in content


@pytest.mark.parametrize("heads", [None, 2])
def test_null_key_value_heads_equal_the_heads(heads: int | None) -> None:
    sizes = {
        "hidden_size": 4,
        "intermediate_size": 8,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "vocab_size": 6,
    }
    for name in ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"):
        shapes = expected_tensors(name, sizes | {"num_key_value_heads": heads, "head_dim": 2})
        assert shapes is not None
        assert shapes["model.layers.0.self_attn.k_proj.weight"] == (4, 4)


def test_zero_experts_make_dense_layers() -> None:
    config = CONFIG | EXPERTS | {"num_experts": 0, "head_dim": 2}
    shapes = expected_tensors("Qwen3MoeForCausalLM", config)
    assert shapes is not None
    assert shapes["model.layers.0.mlp.up_proj.weight"] == (8, 4)


@pytest.mark.parametrize("name", ["hf_quant_config.json", "quant_config.json", "quantize_config.json"])
def test_a_quantization_file_next_to_full_weights_is_a_leftover(tmp_path: Path, name: str) -> None:
    report = preflight(write_checkpoint(tmp_path, files={name: {"bits": 4}}))
    assert report.ok
    assert [found.where for found in report.warnings if found.code == "quantized"] == [name]


def test_repair_removes_quantization_keys_at_every_level(tmp_path: Path) -> None:
    nested = {"quantization_config": {"quant_method": "fp8"}}
    source = write_checkpoint(tmp_path, config={"text_config": {**CONFIG, **nested}})
    repair(source)
    assert "quantization_config" not in (source / "config.json").read_text()


@pytest.mark.parametrize(
    "stray",
    [
        b"",
        b"xx",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        safetensors({"layers.0.weight": ("F32", [4])}),
        safetensors({"layers.0.weight": ("I8", [4]), "layers.0.qscale_weight": ("F32", [1])}),
        safetensors({"lm_head.weight": ("BF16", [9, 4])}),
    ],
)
@pytest.mark.parametrize(
    "name", ["consolidated.safetensors", "consolidated-00001-of-00002.safetensors", "x.safetensors"]
)
def test_weights_that_are_not_uploaded_are_not_checked(tmp_path: Path, stray: bytes, name: str) -> None:
    source = write_checkpoint(tmp_path, files={name: stray})
    report = preflight(source)
    assert report.ok
    assert [found.where for found in report.findings if found.code == "stray-shard"] == [name]
    assert name not in ModelExport.of(source).files


@pytest.mark.parametrize("metadata", [{}, {"metadata": None}, {"metadata": []}])
def test_an_index_without_metadata_gets_an_empty_object(tmp_path: Path, metadata: dict[str, Any]) -> None:
    index = "model.safetensors.index.json"
    content = {**metadata, "weight_map": dict.fromkeys(TENSORS, "model.safetensors")}
    source = write_checkpoint(tmp_path / "model", files={index: content})
    report = preflight(source)
    assert report.ok
    assert [found.severity for found in report.findings if found.code == "index-metadata"] == ["note"]
    assert json.loads(ModelExport.of(source).files[index])["metadata"] == {}  # type: ignore[arg-type] - bytes, as above
    repair(source)
    assert json.loads((source / index).read_bytes())["metadata"] == {}
