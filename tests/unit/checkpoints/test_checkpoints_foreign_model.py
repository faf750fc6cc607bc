"""Test that custom code, other files and impossible sizes are refused, and that published models are accepted."""

from __future__ import annotations

import ast
import functools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sqlquarry
from sqlquarry.checkpoints.foreign_model import MODEL_TYPES, refusals, refuse_foreign_code, require_no_refusals
from sqlquarry.errors import UnsupportedModelError

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 126, "vocab_size": 128_256}
ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted(
    path
    for folder in (Path(sqlquarry.__file__).parent, ROOT / "examples", ROOT / "benchmarks")
    for path in folder.rglob("*.py")
)


@functools.cache
def nodes(path):
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def codes(files):
    return [(found.code, found.file) for found in refusals(files)]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", LLAMA | {"auto_map": {"AutoConfig": "modeling.Config"}}),
        ("config.json", LLAMA | {"auto_map": None}),
        ("config.json", LLAMA | {"text_config": {"layers": [{"auto_map": {"AutoModel": "org/repo--m.M"}}]}}),
        ("config.json", LLAMA | {"custom_pipelines": {"text-generation": {"impl": "p.P"}}}),
        ("config.json", LLAMA | {"configuration_files": ["config.4.0.0.json"]}),
        ("config.json", LLAMA | {"_attn_implementation": "kernels-community/flash-attn3"}),
        ("config.json", LLAMA | {"attn_implementation": {"text_config": "someone/attention@main:forward"}}),
        ("config.json", LLAMA | {"_attn_implementation_internal": "paged|someone/attention"}),
        ("config.json", LLAMA | {"_experts_implementation": "someone/moe"}),
        ("config.json", LLAMA | {"tokenizer_class": "AutoModelForCausalLM"}),
        ("tokenizer_config.json", {"auto_map": ["tokenization.T", None]}),
        ("tokenizer_config.json", {"tokenizer_class": "AutoProcessor"}),
        ("tokenizer_config.json", {"tokenizer_class": "pipeline"}),
        ("tokenizer_config.json", {"tokenizer_class": ["LlamaTokenizer"]}),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}),
        ("tokenizer_config.json", {"tokenizer_kwargs": {"trust_remote_code": True}}),
        ("generation_config.json", {"custom_generate": "someone/sampling"}),
        ("processor_config.json", {"auto_map": {"AutoProcessor": "p.P"}}),
        ("question_encoder_tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": "t.T"}}),
        ("adapter_config.json", {"auto_mapping": {"base_model_class": "X", "parent_library": "evil"}}),
        ("adapter_config.json", {"auto_mapping": {"base_model_class": "X", "parent_library": "transformers_evil.x"}}),
        ("adapter_config.json", {"megatron_config": {"a": 1}, "megatron_core": "megatron.core"}),
        ("adapter_config.json", {"peft_type": "XLORA", "adapters": {"0": "someone/adapter"}}),
        ("adapter_config.json", {"peft_type": "SHADOW", "shadow_model": "someone/model"}),
        ("adapter_config.json", {"peft_type": "PROMPT_TUNING", "tokenizer_name_or_path": "someone/tokenizer"}),
        ("adapter_config.json", {"peft_type": ["LORA"]}),
        ("config.json", LLAMA | {"transformers_weights": "other.safetensors"}),
        ("config.json", LLAMA | {"attribute_map": {"num_hidden_layers": "n"}, "n": 10**8}),
        ("config.json", LLAMA | {"attribute_map": {"quantization_config": "q"}, "q": {"quant_method": "gptq"}}),
        ("tokenizer_config.json", {"gguf_file": "../other.gguf"}),
        ("tokenizer_config.json", {"vocab": "/elsewhere/vocab.json"}),
        ("tokenizer_config.json", {"merges": "../merges.txt"}),
        ("tokenizer_config.json", {"init_inputs": ["../vocab.json", "../merges.txt"]}),
    ],
)
def test_custom_code_is_refused(tmp_path, file, content):
    (found,) = refusals({file: content})
    assert (found.code, found.file) == ("custom-code", file)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(UnsupportedModelError, match=re.escape(str(found))):
        refuse_foreign_code(tmp_path)


@pytest.mark.parametrize(
    ("architectures", "model_type"),
    [
        (["LlamaForCausalLM"], "evil"),
        (["LlamaForCausalLM"], "qwen2"),
        (["Qwen3MoeForCausalLM"], "qwen3"),
        (["EvilForCausalLM"], "llama"),
        (["Qwen2_5_VLForConditionalGeneration"], "qwen2_vl"),
    ],
)
def test_a_model_type_of_another_architecture_is_refused(architectures, model_type):
    assert codes({"config.json": {"architectures": architectures, "model_type": model_type}}) == [
        ("model-type", "config.json")
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**8),
        ("num_hidden_layers", 257),
        ("num_hidden_layers", -1),
        ("num_hidden_layers", 1e30),
        ("num_hidden_layers", float("inf")),
        ("num_hidden_layers", float("nan")),
        ("num_local_experts", 10**6),
        ("vocab_size", 2**31),
        ("hidden_size", 10**9),
        ("num_attention_heads", 10**7),
    ],
)
def test_sizes_that_no_model_has_are_refused_with_their_value(key, value):
    for config in (LLAMA | {key: value}, LLAMA | {"text_config": {key: value}}):
        (found,) = refusals({"config.json": config})
        assert found.code == "model-size"
        assert key in found.message
        assert repr(value) in found.message


@pytest.mark.parametrize(
    "config",
    [
        {"r": 10**7},
        {"rank_pattern": {"q_proj": 10**7}},
        {"layer_replication": [[0, 1]] * 300},
        {"layer_replication": [[0, 10**9]]},
        {"target_modules": "(.*)*x"},
        {"exclude_modules": "(a+)+$"},
        {"alpha_pattern": {"(a|aa){9,}b": 3}},
    ],
)
def test_adapters_larger_than_any_known_one_are_refused(config):
    assert codes({"adapter_config.json": {"peft_type": "LORA"} | config}) == [("model-size", "adapter_config.json")]


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": LLAMA | {"_attn_implementation": "sdpa", "_name_or_path": "meta-llama/Llama-3.1-405B"}},
        {"config.json": LLAMA | {"attn_implementation": None, "trust_remote_code": False}},
        {"config.json": {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_layer": 48}},
        {"config.json": {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}},
        {"config.json": {"architectures": ["LlamaForSequenceClassification"], "model_type": "llama"}},
        {"config.json": {"model_type": "llama"}},
        {"config.json": {}},
        *({"config.json": {"architectures": [name], "model_type": kind}} for name, kind in MODEL_TYPES.items()),
        *(
            {"tokenizer_config.json": {"tokenizer_class": name}}
            for name in ("LlamaTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend", "Qwen2Tokenizer", None)
        ),
        {"adapter_config.json": {"peft_type": "LORA", "r": 512, "target_modules": "^(?!.*vis).*(?:q|k|v)_proj$"}},
        {"adapter_config.json": {"peft_type": "LORA", "r": 16, "target_modules": "all-linear", "rank_pattern": {}}},
        {"adapter_config.json": {"peft_type": "LORA", "layer_replication": [[0, 24], [8, 32]], "rank_pattern": None}},
        {"adapter_config.json": {"peft_type": "LORA", "megatron_config": None, "megatron_core": "megatron.core"}},
        {
            "adapter_config.json": {
                "auto_mapping": {"base_model_class": "L", "parent_library": "transformers.models.llama.modeling_llama"}
            }
        },
        {"tokenizer.json": {"model": {"vocab": {"auto_map": 5}}}},  # a token is not a key
        {"tokenizer_config.json": {"init_inputs": [], "vocab_file": "/home/maker/vocab.json", "tokenizer_file": None}},
    ],
)
def test_settings_of_published_models_are_accepted(files):
    assert codes(files) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(content=JSON, key=st.sampled_from(["auto_map", "custom_generate", "configuration_files"]), value=JSON)
def test_any_json_can_be_checked_and_keys_are_found_at_any_depth(content, key, value):
    list(refusals({"config.json": content, "adapter_config.json": content, "tokenizer_config.json": content}))
    if value is not False:
        hidden = {"a": [content, {"b": {key: value}}]}
        assert ("custom-code", "generation_config.json") in codes({"generation_config.json": hidden})


def test_deep_and_damaged_files_are_typed_errors(tmp_path):
    for damaged in ("[" * 100_000, "{", "\xff"):
        (tmp_path / "config.json").write_bytes(damaged.encode("latin-1"))
        with pytest.raises(UnsupportedModelError, match=re.escape(f"{tmp_path}/config.json ")):
            refuse_foreign_code(tmp_path)
    deep = {"auto_map": 1}
    for _ in range(45):  # 92 levels, of at most 100
        deep = {"x": [deep]}
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": deep}))
    with pytest.raises(UnsupportedModelError, match="auto_map"):
        refuse_foreign_code(tmp_path)
    for _ in range(400):
        deep = {"x": [deep]}
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": deep}))
    with pytest.raises(UnsupportedModelError, match=re.escape(f"{tmp_path}/config.json ")):
        refuse_foreign_code(tmp_path)
    with pytest.raises(UnsupportedModelError, match="auto_map"):  # the check itself has no limit of depth
        require_no_refusals({"config.json": {"auto_map": deep}}, tmp_path)


def test_an_adapter_next_to_a_model_and_unknown_quantization_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(UnsupportedModelError, match="gptq"):
        refuse_foreign_code(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"quantization_config": {"load_in_4bit": True}}))
    refuse_foreign_code(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match=r"adapter_config\.json .*\bconfig\.json"):
        refuse_foreign_code(tmp_path)


def test_weights_that_only_transformers_would_read_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"")
    refuse_foreign_code(tmp_path)
    (tmp_path / "shard-00000-model-00001-of-00001.safetensors").write_bytes(b"")
    with pytest.raises(UnsupportedModelError, match=r"shard-00000-model-00001-of-00001\.safetensors"):
        refuse_foreign_code(tmp_path)


def test_every_loading_call_declines_remote_code():
    """Check every call, so that new ones cannot forget it. PEFT's has no such argument and imports nothing."""
    seen = 0
    for path in SOURCES:
        for node in nodes(path):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr not in ("from_pretrained", "from_config") or ast.unparse(node.func.value) == "PeftModel":
                continue
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert given.get("trust_remote_code") == "False", f"{path.name}:{node.lineno}"
            seen += 1
    assert seen >= 12


def test_nothing_turns_remote_code_on():
    for path in SOURCES:
        for node in nodes(path):
            if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "weights_only", "allow_all_kernels"):
                expected = "True" if node.arg == "weights_only" else "False"
                assert ast.unparse(node.value) == expected, f"{path.name}:{node.value.lineno}"
