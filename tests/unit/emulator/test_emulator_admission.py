"""The checks of an import on handmade files."""

from __future__ import annotations

import json
import struct

import pytest

from sqlquarry.emulator.bedrock.admission import ARCHITECTURES, INDEX, ImportFailedError, admit, as_transformers_4_51
from sqlquarry.errors import ConfigError, UnsupportedModelError

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 64}


def safetensors(path, names, dtype="BF16"):
    shape = [2] if dtype == "U8" else [1]
    header = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [2 * i, 2 * i + 2]} for i, name in enumerate(names)
    }
    raw = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(2 * len(names)))


@pytest.fixture
def model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (tmp_path / "tokenizer.json").write_text("{}")
    safetensors(tmp_path / "model.safetensors", ["a", "b"])
    return tmp_path


def shard(model):
    (model / "model.safetensors").unlink()
    safetensors(model / "model-00001-of-00002.safetensors", ["a"])
    safetensors(model / "model-00002-of-00002.safetensors", ["b"])
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_a_valid_model_is_admitted(model):
    size = (model / "model.safetensors").stat().st_size
    assert admit(model) == ("llama", size, 64, False)


@pytest.mark.parametrize(
    ("architecture", "template", "converses"),
    [
        ("LlamaForCausalLM", "{{ messages }}", True),
        ("MistralForCausalLM", [{"name": "default", "template": "{{ messages }}"}], True),
        ("MixtralForCausalLM", "{{ messages }}", True),
        ("LlamaForCausalLM", None, False),
        ("LlamaForCausalLM", [], False),
        ("Qwen2ForCausalLM", "{{ messages }}", False),
        ("Qwen2VLForConditionalGeneration", "{{ messages }}", False),
        ("Qwen2_5_VLForConditionalGeneration", "{{ messages }}", False),
        ("Qwen3ForCausalLM", "{{ messages }}", False),
        ("Qwen3MoeForCausalLM", "{{ messages }}", False),
    ],
)
def test_converse_needs_a_documented_family_and_a_template(model, architecture, template, converses):
    edit("config.json", architectures=[architecture], model_type=ARCHITECTURES[architecture])(model)
    edit("tokenizer_config.json", chat_template=template)(model)
    assert admit(model).converses == converses


def test_shards_with_their_index_are_admitted(model):
    shard(model)
    assert admit(model).weight_bytes == sum(path.stat().st_size for path in model.glob("*.safetensors"))


def edit(name, **changes):
    def change(model):
        path = model / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def without(name):
    return lambda model: (model / name).unlink()


def cut(count):
    def change(model):
        path = model / "model.safetensors"
        path.write_bytes(path.read_bytes()[:count])

    return change


def shard_then(change):
    def both(model):
        shard(model)
        change(model)

    return both


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("config.json"), "could not find the expected file config.json"),
        (without("tokenizer_config.json"), "could not find the expected file tokenizer_config.json"),
        (without("tokenizer.json"), "could not find the expected file tokenizer.json"),
        (without("model.safetensors"), "could not find the expected file model.safetensors"),
        (lambda model: (model / "config.json").write_text("{"), r"^config\.json .*JSON"),
        (lambda model: (model / "config.json").write_text("[]"), r"^config\.json .*\blist\b"),
        (edit("config.json", architectures=["GemmaForCausalLM"]), "architecture GemmaForCausalLM"),
        (edit("config.json", architectures=None), "architecture none"),
        (edit("config.json", quantization_config={"load_in_4bit": True}), r"config\.json .*\bquantization_config\b"),
        (edit("tokenizer_config.json", tokenizer_class="TokenizersBackend"), "tokenizer class TokenizersBackend"),
        (edit("tokenizer_config.json", tokenizer_class=None), "tokenizer class None"),
        (edit("tokenizer_config.json", extra_special_tokens=["<x>"]), "'list' object has no attribute 'keys'"),
        (lambda model: (model / "adapter_config.json").write_text("{}"), r"^adapter_config\.json "),
        (cut(4), r"^model\.safetensors .*\b4\b"),  # the size of the file
        (cut(20), r"^model\.safetensors .*\b158\b"),  # the size of its header
        (cut(-1), r"^model\.safetensors .*\b169\b.*\b170\b"),  # the sizes of the file and of its content
        (lambda model: safetensors(model / "model.safetensors", ["a"], "U8"), r"^model\.safetensors .*\bU8\b"),
        (shard_then(without(INDEX)), f"could not find the expected file {INDEX}"),
        (shard_then(without("model-00002-of-00002.safetensors")), "expected file model-00002-of-00002.safetensors"),
        (
            shard_then(lambda model: safetensors(model / "model-00002-of-00002.safetensors", ["c"])),
            rf"^{INDEX} .*\bb\b",
        ),
        (shard_then(lambda model: (model / INDEX).write_text("{}")), rf"^{INDEX} .*\bweight_map\b"),
    ],
)
def test_each_problem_in_the_files_fails_the_import(model, change, message):
    change(model)
    with pytest.raises(ImportFailedError, match=message):
        admit(model)


def test_files_are_rewritten_to_what_transformers_4_51_reads(model):
    edit("config.json", rope_parameters={"rope_theta": 5e5, "rope_type": "default"}, dtype="bfloat16")(model)
    (model / "chat_template.jinja").write_text("{{ messages }}")
    admit(model)
    assert json.loads((model / "config.json").read_text()) == CONFIG | {"rope_theta": 10_000.0}
    assert not (model / "chat_template.jinja").exists()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"rope_theta": 5e5}, {"rope_theta": 5e5}),
        ({"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e6}}, {"rope_theta": 5e5}),
        ({"rope_parameters": {"rope_theta": 5e5}}, {"rope_theta": 1e4}),
        (
            {"model_type": "mixtral", "rope_parameters": {"rope_theta": 5e5}},
            {"model_type": "mixtral", "rope_theta": 1e6},
        ),
        ({"rope_scaling": None}, {"rope_scaling": None}),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 2}},
            {"rope_scaling": {"rope_type": "linear", "factor": 2}},
        ),
    ],
)
def test_rope_settings_as_transformers_4_51_reads_them(config, expected):
    assert as_transformers_4_51(config) == expected


def test_bedrock_overrides_llama3_scaling():
    seen = as_transformers_4_51({"rope_scaling": {"rope_type": "llama3", "factor": 32.0}})["rope_scaling"]
    assert (seen["factor"], seen["original_max_position_embeddings"]) == (8.0, 8192)


@pytest.mark.parametrize(
    ("change", "kind", "value"),
    [
        (edit("config.json", auto_map={"AutoConfig": "m.C"}), UnsupportedModelError, "auto_map"),
        (edit("config.json", num_hidden_layers=10**8), UnsupportedModelError, "num_hidden_layers"),
        (edit("config.json", model_type="qwen2"), UnsupportedModelError, "qwen2"),
        (edit("tokenizer_config.json", auto_map={"AutoTokenizer": "t.T"}), UnsupportedModelError, "auto_map"),
        (edit("tokenizer_config.json", chat_template="{{ 10 ** (10 ** 8) }}"), ConfigError, "template"),
        (
            edit(
                "tokenizer_config.json",
                bos_token={"content": "<s>"},
                chat_template="{% if bos_token == '<s>' and strftime_now('%d') %}{{ 'a' * 10**9 }}{% endif %}",
            ),
            ConfigError,
            "template",
        ),
        (
            edit("tokenizer_config.json", chat_template=[{"name": "tool_use", "template": "{{ 'a' * 10**9 }}"}]),
            ConfigError,
            "template",
        ),
    ],
)
def test_code_and_templates_without_limits_are_not_admitted(model, change, kind, value):
    change(model)
    with pytest.raises(ImportFailedError, match=rf"\b{value}\b") as caught:
        admit(model)
    assert type(caught.value.__cause__) is kind
