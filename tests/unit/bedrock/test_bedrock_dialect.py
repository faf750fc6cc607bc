"""The export dialect converts files of transformers 5 for transformers 4.51.3."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_fakes import CHATML, CONFIG, FORMATTER, TOKENIZER, TOKENIZER_CONFIG, write_checkpoint, write_merged
from sqlquarry.bedrock.export import dialect
from sqlquarry.bedrock.export.metadata_files import export_files
from sqlquarry.errors import ConfigError
from sqlquarry.prompt import PromptFormatter


def exported(directory: Path, name: str) -> Any:
    return json.loads(export_files(directory)[name])


def test_llama3_rope_moves_to_the_keys_of_transformers_4() -> None:
    config = dialect.model_config(CONFIG)
    # transformers 4.51.3 reads both from the top of config.json.
    assert config["rope_theta"] == 500000.0
    assert config["rope_scaling"] == {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }
    assert config["torch_dtype"] == "bfloat16"
    assert config["transformers_version"] == "4.51.3"
    assert not {"rope_parameters", "dtype"} & config.keys()


def test_a_default_rope_has_no_scaling() -> None:
    config = dialect.model_config({"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}})
    assert (config["rope_theta"], config["rope_scaling"]) == (10000.0, None)


def test_a_default_rope_keeps_its_other_settings() -> None:
    rope = {"rope_theta": 1e6, "rope_type": "default", "mrope_section": [16, 24, 24]}
    assert dialect.model_config({"rope_parameters": rope})["rope_scaling"]["mrope_section"] == [16, 24, 24]


def test_nested_text_config_is_rewritten_too() -> None:
    config = dialect.model_config({"architectures": ["MllamaForConditionalGeneration"], "text_config": CONFIG})
    assert config["text_config"]["rope_theta"] == 500000.0
    assert config["text_config"]["torch_dtype"] == "bfloat16"
    assert config["transformers_version"] == "4.51.3"


def test_the_number_of_qwen_moe_experts_has_the_old_key() -> None:
    config = dialect.model_config({"model_type": "qwen3_moe", "num_local_experts": 64})
    assert (config["num_experts"], "num_local_experts" in config) == (64, False)
    assert dialect.model_config({"model_type": "mixtral", "num_local_experts": 8})["num_local_experts"] == 8


def test_the_language_model_of_qwen_vl_is_at_the_top_level() -> None:
    text = CONFIG | {"model_type": "qwen2_vl_text", "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}
    config = dialect.model_config({"model_type": "qwen2_vl", "image_token_id": 5, "text_config": text})
    assert "text_config" not in config
    assert (config["model_type"], config["hidden_size"], config["rope_theta"]) == ("qwen2_vl", 4, 1e6)


def test_a_flat_qwen_vl_config_stays_flat() -> None:
    flat = {"model_type": "qwen2_vl", "image_token_id": 5, "hidden_size": 4, "torch_dtype": "bfloat16"}
    assert dialect.model_config(flat) == flat


def test_a_missing_config_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    write_merged(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        export_files(tmp_path)


def test_a_new_generation_config_has_all_token_ids_of_config_json() -> None:
    ids = {"bos_token_id": 1, "decoder_start_token_id": 4, "eos_token_id": 2, "pad_token_id": 0}
    assert dialect.generation_config({}, None, {**ids, "vocab_size": 6}) == ids


def test_the_source_is_not_changed() -> None:
    before = copy.deepcopy(CONFIG)
    dialect.model_config(CONFIG)
    assert before == CONFIG


def test_tokenizer_config_loads_in_transformers_4() -> None:
    config = dialect.tokenizer_config(TOKENIZER_CONFIG, "TEMPLATE")
    assert config == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "additional_special_tokens": ["<|extra|>"],
        "model_max_length": 2048,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": "TEMPLATE",
    }


def test_export_embeds_the_prompts_own_template_and_no_file(tmp_path: Path) -> None:
    write_merged(tmp_path)
    files = export_files(tmp_path)
    assert sorted(files) == [
        "config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
    ]
    assert exported(tmp_path, "tokenizer_config.json")["chat_template"] == FORMATTER.chat_template
    assert exported(tmp_path, "special_tokens_map.json") == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "additional_special_tokens": ["<|extra|>"],
    }


def test_generation_config_is_made_from_config(tmp_path: Path) -> None:
    write_merged(tmp_path)
    assert exported(tmp_path, "generation_config.json")["eos_token_id"] == 2


@pytest.mark.parametrize(("eos", "expected"), [(None, 9), (9, 9), (3, [3, 9]), ([3], [3, 9]), ([9, 3], [9, 3])])
def test_the_stop_token_becomes_an_eos_token(eos: Any, expected: Any) -> None:
    assert dialect.generation_config({"eos_token_id": eos}, 9)["eos_token_id"] == expected


def test_stop_text_is_the_longest_special_token_at_its_end() -> None:
    tokens = {
        "added_tokens": [{"id": 7, "content": "<|end|>", "special": True}, {"id": 8, "content": "|>", "special": True}]
    }
    assert dialect.special_token_id(tokens, "\n<|end|>") == 7
    assert dialect.special_token_id(tokens, "STOP") is None
    assert dialect.special_token_id({"added_tokens": [{"id": 1, "content": "x", "special": False}]}, "x") is None


def test_a_second_export_changes_nothing(tmp_path: Path) -> None:
    write_merged(tmp_path)
    first = export_files(tmp_path)
    for name, content in first.items():
        (tmp_path / name).write_bytes(content)
    assert export_files(tmp_path) == first


def test_a_file_in_the_dialect_comes_out_byte_for_byte(tmp_path: Path) -> None:
    write_merged(tmp_path)
    # Its spacing, order and version differ from the export's, but nothing is changed.
    odd = b'{"torch_dtype":"bfloat16",  "rope_theta": 5e5, "rope_scaling": null,\n"transformers_version": "4.46.0"}'
    (tmp_path / "config.json").write_bytes(odd)
    assert export_files(tmp_path)["config.json"] == odd


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
ropes = st.fixed_dictionaries(
    {"rope_type": st.sampled_from(["default", "llama3", "yarn"])},
    optional={"rope_theta": st.floats(1, 1e7), "factor": st.floats(1, 32), "mrope_section": st.lists(st.integers())},
)
levels = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["bfloat16", "float16"]),
        "rope_parameters": st.none() | ropes,
        "rope_theta": st.floats(1, 1e7),
        "hidden_size": st.integers(),
        "transformers_version": st.sampled_from(["5.24.0", "4.51.3", "4.46.0"]),
    },
)
configs = st.builds(lambda level, text: level | ({"text_config": text} if text else {}), levels, st.none() | levels)


@given(configs)
def test_model_config_is_idempotent_and_loses_no_rope(config: dict[str, Any]) -> None:
    once = dialect.model_config(config)
    assert dialect.model_config(once) == once
    rope = config.get("rope_parameters") or {}
    if "rope_theta" in rope:
        assert once["rope_theta"] == rope["rope_theta"]
    kept = {key: value for key, value in rope.items() if key != "rope_theta"}
    if kept not in ({}, {"rope_type": "default"}):
        assert once["rope_scaling"] == kept


@given(
    st.dictionaries(
        st.sampled_from(["tokenizer_class", "extra_special_tokens", "backend", "add_bos_token", "pad_token"]),
        scalars | st.sampled_from(["TokenizersBackend", "LlamaTokenizer"]) | st.lists(st.text(max_size=3)),
    )
)
def test_tokenizer_config_is_idempotent(config: dict[str, Any]) -> None:
    if isinstance(config.get("tokenizer_class"), list):
        config.pop("tokenizer_class")
    once = dialect.tokenizer_config(config, "T")
    assert dialect.tokenizer_config(once, "T") == once


def test_an_unbound_prompt_is_refused(tmp_path: Path) -> None:
    write_merged(tmp_path)
    PromptFormatter().save(tmp_path)
    with pytest.raises(ConfigError, match=r"bind\("):
        export_files(tmp_path)


def test_without_a_prompt_the_checkpoints_own_template_is_embedded(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, tokenizer_config={"chat_template": "the embedded one"})
    assert exported(tmp_path, "tokenizer_config.json")["chat_template"] == CHATML  # the separate file wins
    (tmp_path / "chat_template.jinja").unlink()
    assert exported(tmp_path, "tokenizer_config.json")["chat_template"] == "the embedded one"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "of the processor"}))
    assert exported(tmp_path, "tokenizer_config.json")["chat_template"] == "of the processor"


def test_of_several_named_templates_the_default_is_kept(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    write_checkpoint(tmp_path, template=None, tokenizer_config={"chat_template": named})
    assert exported(tmp_path, "tokenizer_config.json")["chat_template"] == "D"


def test_a_formatter_is_used_if_there_is_no_prompt(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    files = export_files(tmp_path, FORMATTER)
    assert json.loads(files["tokenizer_config.json"])["chat_template"] == FORMATTER.chat_template
    with pytest.raises(ConfigError, match=r"bind\("):
        export_files(tmp_path, PromptFormatter())


def test_the_end_of_a_turn_becomes_an_eos_token(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, template=CHATML.replace("eos_token", "'<|extra|>'"))
    assert exported(tmp_path, "generation_config.json")["eos_token_id"] == [2, 5]


def test_a_new_generation_config_keeps_the_start_token(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, config={"decoder_start_token_id": 0, "pad_token_id": 0})
    assert exported(tmp_path, "generation_config.json") == {
        "decoder_start_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def test_gpt_oss_stops_at_the_documented_tokens() -> None:
    model = {"architectures": ["GptOssForCausalLM"], "eos_token_id": 200002}
    assert dialect.generation_config({"eos_token_id": 200002}, None, model)["eos_token_id"] == dialect.GPT_OSS_EOS


BOS_FIRST = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
}


BOS_LATER = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, BOS_FIRST]}


@pytest.mark.parametrize(
    ("tokenizer_class", "post_processor", "older", "expected"),
    [
        ("LlamaTokenizer", None, False, False),
        ("LlamaTokenizer", BOS_FIRST, False, None),
        ("LlamaTokenizer", BOS_LATER, False, None),
        ("Qwen2Tokenizer", None, False, None),
        ("TokenizersBackend", None, False, None),
        # Older files are read as 4.51.3 reads them.
        ("LlamaTokenizer", None, True, None),
    ],
)
def test_bos_is_explicit_if_4_51_would_read_it_differently_from_the_training(
    tmp_path: Path, tokenizer_class: str, post_processor: Any, older: bool, expected: bool | None
) -> None:
    write_checkpoint(tmp_path, tokenizer=TOKENIZER | {"post_processor": post_processor})
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": tokenizer_class, "bos_token": "<s>"})
    )
    if older:
        newer = ("dtype", "rope_parameters", "transformers_version")
        config = {key: value for key, value in CONFIG.items() if key not in newer}
        (tmp_path / "config.json").write_text(json.dumps(config))
    assert exported(tmp_path, "tokenizer_config.json").get("add_bos_token") is expected


def test_named_special_tokens_get_their_old_key() -> None:
    config = {"model_specific_special_tokens": {"image_token": "<img>"}, "extra_special_tokens": ["<x>"]}
    assert dialect.renamed_special_tokens(config) == {
        "extra_special_tokens": {"image_token": "<img>"},
        "additional_special_tokens": ["<x>"],
    }


def test_json_that_is_not_an_object_is_refused(tmp_path: Path) -> None:
    write_merged(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json.* list"):
        export_files(tmp_path)


def test_the_fake_tokenizer_has_the_expected_eos_token() -> None:
    assert dialect.special_token_id(TOKENIZER, "</s>") == CONFIG["eos_token_id"]
