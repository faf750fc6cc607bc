"""Adapters that PEFT has saved are adopted, merged and run, whatever their file, names and location are."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import huggingface_hub
import pytest
import torch
from moto import mock_aws
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import sqlquarry as sq
from hub_on_loopback import Hub
from merging_models import INPUT, LINEAR, Base, train
from sqlquarry.errors import (
    AdoptionError,
    ArtifactError,
    ConfigError,
    GatedModelError,
    UnsupportedAdapterError,
    UnsupportedModelError,
)
from sqlquarry.manifests import base_digest, write_manifest
from sqlquarry.quantization import QuantizationRecipe

SAFE, BIN, CONFIG = "adapter_model.safetensors", "adapter_model.bin", "adapter_config.json"
PROMPT = sq.PromptFormatter()
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> Base:
    return Base(tiny_llama, AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval())


@pytest.fixture(scope="module")
def trained(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trained") / "adapter"
    train(base, directory)
    return directory


@pytest.fixture
def adapter(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the adapter that the test may change."""
    return shutil.copytree(trained, tmp_path / "adapter")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def adopt(adapter: Any, base: Any, **options: Any) -> sq.AdapterCheckpoint:
    base_model = base.directory if isinstance(base, Base) else base
    return sq.adopt_adapter(adapter, base_model=base_model, **{"formatter": PROMPT, "quantization": None} | options)


def edit(directory: Path, **fields: Any) -> Path:
    path = directory / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return directory


def rename(directory: Path, new_name: Callable[[str], str], *, pickled: bool = False) -> Path:
    tensors = {new_name(name): value for name, value in load_file(directory / SAFE).items()}
    if pickled:
        (directory / SAFE).unlink()
        torch.save(tensors, directory / BIN)
    else:
        save_file(tensors, directory / SAFE)
    return directory


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=INPUT).logits
    return found


def unmerged(base: Base, adapter: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(base.load(), adapter))


def merged(adapter: sq.AdapterCheckpoint, folder: Path) -> torch.Tensor:
    sq.AdapterMerger(dtype="float32").merge(adapter, folder)
    return logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dora": True, "use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}},
        {"target_modules": r".*\.(q|v)_proj", "task_type": None},
        {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"modules_to_save": ["model.embed_tokens"], "ensure_weight_tying": True},
        {"modules_to_save": ["mlp", "1.self_attn"], "target_modules": ["0.self_attn.q_proj"]},
        {"target_modules": [*LINEAR, "embed_tokens"]},
        {"trainable_token_indices": [5, 40]},
    ],
    ids=lambda options: "-".join(map(str, [*options, *options.get("modules_to_save", ())])) or "lora",
)
def test_the_merged_model_computes_what_peft_computes(base: Base, tmp_path: Path, options: dict[str, Any]) -> None:
    train(base, tmp_path / "peft", **options)
    adopted = adopt(tmp_path / "peft", base, output_dir=tmp_path / "adopted")
    expected = unmerged(base, tmp_path / "peft")
    assert torch.allclose(merged(adopted, tmp_path / "merged"), expected, atol=2e-5)
    assert torch.equal(unmerged(base, adopted.path), expected)


WRAPPED: dict[str, Callable[[str], str]] = {
    "compiled": lambda name: f"_orig_mod.{name}",
    "distributed": lambda name: f"module.{name}",
    "sharded": lambda name: f"_fsdp_wrapped_module.{name.replace('.self_attn', '._fsdp_wrapped_module.self_attn')}",
    "checkpointed": lambda name: name.replace(".mlp", "._checkpoint_wrapped_module.mlp"),
    "state dict": lambda name: name.replace("_A.weight", "_A.default.weight").replace("_B.weight", "_B.sql.weight"),
}


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
@pytest.mark.parametrize("wrapper", WRAPPED)
def test_files_and_names_of_other_tools_become_those_of_peft(
    adapter: Path, trained: Path, base: Base, wrapper: str, pickled: bool
) -> None:
    adopted = adopt(rename(adapter, WRAPPED[wrapper], pickled=pickled), base)
    found, expected = load_file(adopted.path / SAFE), load_file(trained / SAFE)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not (adopted.path / BIN).exists()


def test_the_manifest_says_what_the_caller_and_the_files_say(adapter: Path, base: Base, home: Path) -> None:
    adopted = adopt(adapter, base)
    assert adopted.path.parent == home / ".cache" / "sqlquarry"
    provenance = adopted.manifest.provenance
    assert provenance["base_model"] == {
        "name": str(base.directory),
        "path": str(base.directory),
        "sha256": base_digest(base.directory),
    }
    assert provenance["quantization"] is None
    assert provenance["adopted"]["from"] == str(adapter)
    bound = sq.PromptFormatter.load(adopted.path)
    assert bound == PROMPT.bind(AutoTokenizer.from_pretrained(base.directory))
    assert adopted.prompt_fingerprint == bound.fingerprint
    assert sq.AdapterCheckpoint.load(adopted.path, verify=True) == adopted
    with pytest.raises(ArtifactError, match="adopted") as caught:
        _ = adopted.run
    assert caught.type is ArtifactError  # not a damaged manifest


def test_the_same_call_returns_the_same_artifact(adapter: Path, base: Base, tmp_path: Path, home: Path) -> None:
    adopted = adopt(adapter, base)
    written = (adopted.path / "manifest.json").stat().st_mtime_ns
    assert adopt(adapter, base) == adopted
    assert (adopted.path / "manifest.json").stat().st_mtime_ns == written
    assert adopt(adapter, base, quantization="nf4") != adopted
    assert len(list((home / ".cache" / "sqlquarry").iterdir())) == 2  # no draft is left
    (tmp_path / "here").mkdir()
    here = adopt(adapter, base, output_dir=tmp_path / "here")
    assert adopt(adapter, base, output_dir=tmp_path / "here") == here
    assert here.manifest == adopted.manifest
    with pytest.raises(ArtifactError, match="here"):
        adopt(adapter, base, output_dir=tmp_path / "here", quantization="nf4")
    assert sq.AdapterCheckpoint.load(tmp_path / "here", verify=True) == here


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_artifact_of_the_cache_is_written_again(
    adapter: Path, base: Base, tmp_path: Path, damage: str
) -> None:
    for options in ({}, {"output_dir": tmp_path / "here"}):
        adopted = adopt(adapter, base, **options)
        weights = adopted.path / SAFE
        content = weights.read_bytes()
        weights.unlink()
        if damage == "changed":
            weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        if options:
            with pytest.raises(ArtifactError, match="here"):
                adopt(adapter, base, **options)
        else:
            assert adopt(adapter, base) == adopted
            assert weights.read_bytes() == content


def occupied(directory: Path, how: str) -> Path:
    if how == "a link":
        directory.symlink_to("absent")
    elif how == "a file":
        directory.write_text("x")
    else:
        write(directory.parent, "notes.txt", "x")
        return directory.parent
    return directory


@pytest.mark.parametrize("how", ["a file", "a link", "other files", "the adapter itself"])
def test_an_output_with_other_files_is_refused_before_the_base_is_read(
    adapter: Path, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    (tmp_path / "new").mkdir()
    output = adapter if how == "the adapter itself" else occupied(tmp_path / "new" / "output", how)
    monkeypatch.setattr("sqlquarry.merging.base_checkpoint.BaseCheckpoint.digest", lambda *_: pytest.fail("hashed"))
    before = {path: path.lstat() for path in tmp_path.rglob("*")}
    with pytest.raises(ArtifactError, match=str(output)):
        adopt(adapter, base, output_dir=output)
    after = {path: path.lstat() for path in tmp_path.rglob("*")}
    assert after.keys() == before.keys()
    assert all(after[path].st_mtime_ns == before[path].st_mtime_ns for path in before if path.is_file())


@pytest.mark.parametrize("fields", [{"layers_to_transform": [0]}, {"exclude_modules": "x"}, {"target_modules": ".*"}])
def test_a_selection_of_layers_is_complete(adapter: Path, base: Base, fields: dict[str, Any]) -> None:
    assert adopt(drop(edit(adapter, **fields), "layers.1."), base).path.is_dir()


def test_the_log_says_what_was_detected(adapter: Path, base: Base, caplog: pytest.LogCaptureFixture) -> None:
    edit(adapter, base_model_name_or_path="unsloth/tiny-bnb-4bit")
    with caplog.at_level("INFO", "sqlquarry.adoption"):
        adopted = adopt(adapter, base, quantization="auto")
    for value in ("LoRA", "rank 4", "nf4", "14 modules", str(base.directory), str(adopted.path), "has none"):
        assert value in caplog.text


def test_an_adopted_adapter_answers(adapter: Path, base: Base) -> None:
    record = sq.Record("How many users are there?", "CREATE TABLE users (id)")
    model = sq.LocalModel(adopt(adapter, base), device="cpu", max_tokens=3)
    (answer,) = model.generate([record])
    assert answer.completion_tokens == 3


@pytest.mark.parametrize("skipped", [None, ["lm_head", "model.layers.1.mlp", "model.layers.0.self_attn.k_proj"]])
def test_the_recipe_has_the_modules_that_transformers_quantizes(adapter: Path, base: Base, skipped: Any) -> None:
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(**NF4, bnb_4bit_compute_dtype=torch.bfloat16, llm_int8_skip_modules=skipped)
    model = AutoModelForCausalLM.from_pretrained(base.directory, dtype=torch.bfloat16, quantization_config=config)
    expected = QuantizationRecipe().completed(model)
    adopted = adopt(adapter, base, quantization=config)
    recipe = QuantizationRecipe.of(adopted.manifest.provenance["quantization"])
    assert recipe == dataclasses.replace(expected, device="cuda", offsets=(), storage_dtype="uint8")
    as_dict = adopt(adapter, base, quantization=json.loads(config.to_json_string(use_diff=False)))
    assert as_dict.manifest == adopted.manifest


def test_a_local_model_leaves_the_skipped_modules_in_16_bits(adapter: Path, base: Base) -> None:
    from bitsandbytes.nn import Linear4bit

    settings = NF4 | {"llm_int8_skip_modules": ["lm_head", "model.layers.1"]}
    adopted = adopt(adapter, base, quantization=settings)
    model = sq.LocalModel(adopted, device="cpu").model
    found = {
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, Linear4bit)
    }
    modules = {name.removesuffix(".base_layer") for name in found}
    assert modules == {*adopted.manifest.provenance["quantization"]["modules"]}
    assert {name.split(".")[2] for name in modules} == {"0"}


def test_a_4_bit_adapter_is_merged_into_the_4_bit_weights(adapter: Path, base: Base, tmp_path: Path) -> None:
    edit(adapter, base_model_name_or_path="unsloth/tiny-bnb-4bit")
    adopted = adopt(adapter, base, quantization="auto")
    sq.AdapterMerger(dtype="float32").merge(adopted, tmp_path / "merged")
    found = load_file(tmp_path / "merged" / "model.safetensors")
    recipe = QuantizationRecipe.of(adopted.manifest.provenance["quantization"])
    module = "model.layers.0.mlp.up_proj"
    stored = load_file(base.directory / "model.safetensors")[f"{module}.weight"]
    tensors = load_file(adapter / SAFE)
    a, b = (tensors[f"base_model.model.{module}.lora_{which}.weight"] for which in "AB")
    expected = recipe.round_trip(stored).float() + b @ a * (6 / 4)
    assert torch.allclose(found[f"{module}.weight"], expected, atol=1e-6)


def test_the_prompt_must_be_given(adapter: Path, base: Base) -> None:
    with pytest.raises(ConfigError) as caught:
        adopt(adapter, base, formatter=None)
    for call in ("sq.PromptFormatter(template='chat')", "sq.PromptFormatter()", "sq.PromptFormatter.published()"):
        assert call in str(caught.value)
        assert isinstance(eval(call), sq.PromptFormatter)
    assert str(base.directory) in str(caught.value)
    AutoTokenizer.from_pretrained(base.directory).save_pretrained(adapter)
    with pytest.raises(ConfigError, match=str(adapter)):
        adopt(adapter, base, formatter=None)
    with pytest.raises(ConfigError, match="'chat'"):
        adopt(adapter, base, formatter="chat")


def test_an_equal_tokenizer_is_left_out_and_another_one_is_kept(adapter: Path, base: Base) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base.directory)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(adapter)
    assert not (adopt(adapter, base).path / "tokenizer.json").exists()
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>\n", "<|im_end|>")
    tokenizer.save_pretrained(adapter)
    adopted = adopt(adapter, base, formatter=sq.PromptFormatter(template="chat"))
    names = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert all((adopted.path / name).read_bytes() == (adapter / name).read_bytes() for name in names)
    tokens = sq.PromptFormatter.load(adopted.path).tokens
    assert tokens is not None
    assert tokens.template == tokenizer.chat_template


def test_a_cut_vocabulary_is_refused(adapter: Path, base: Base) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base.directory)
    rows = len(tokenizer)
    tokenizer.add_tokens(["<schema>"], special_tokens=True)
    tokenizer.save_pretrained(adapter)
    with pytest.raises(AdoptionError, match=f"{rows:,} rows"):
        adopt(adapter, base)


@pytest.mark.parametrize("options", [{}, {"modules_to_save": ["embed_tokens", "lm_head"]}], ids=["frozen", "trained"])
def test_added_tokens_come_with_their_rows_and_their_tokenizer(
    base: Base, tmp_path: Path, options: dict[str, Any]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base.directory)
    tokenizer.add_tokens(["<schema>", "</schema>"], special_tokens=True)
    rows = len(tokenizer) + 4  # as with pad_to_multiple_of
    model = base.load()
    model.resize_token_embeddings(rows)
    directory = tmp_path / "resized"
    peft = train(Base(base.directory, model), directory, **options)
    peft.save_pretrained(directory, save_embedding_layers=True)
    expected = logits(peft)
    tokenizer.save_pretrained(directory)
    adopted = adopt(directory, base)
    assert adopted.tokenizer_files.keys() >= {"tokenizer.json", "tokenizer_config.json"}
    names = [name for name in load_file(adopted.path / SAFE) if "embed_tokens" in name or "lm_head" in name]
    assert not any("modules_to_save" in name or "original_module" in name for name in names)
    found = merged(adopted, tmp_path / "merged")
    assert found.shape[-1] == rows
    assert torch.allclose(found, expected, atol=2e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")("<schema>")["input_ids"] == [rows - 6]
    (answer,) = sq.LocalModel(adopted, device="cpu", max_tokens=2).generate([sq.Record("q", "<schema>")])
    assert answer.completion_tokens == 2


def test_a_formatter_for_another_tokenizer_is_refused(adapter: Path, base: Base) -> None:
    unbound = sq.PromptFormatter(template="{% for m in messages %}{{ m.content }}!!{% endfor %}")
    with pytest.raises(ConfigError, match="'!!'"):
        adopt(adapter, base, formatter=unbound)
    right = PROMPT.bind(AutoTokenizer.from_pretrained(base.directory))
    assert right.tokens is not None
    assert adopt(adapter, base, formatter=right).prompt_fingerprint == right.fingerprint
    for wrong in ({"eos": "</s>"}, {"bos": "<s>"}, {"adds_bos": True}):
        tokens = dataclasses.replace(right.tokens, **wrong)
        with pytest.raises(ConfigError, match=str(next(iter(wrong.values()))).replace("True", "BOS")):
            adopt(adapter, base, formatter=dataclasses.replace(right, tokens=tokens))


def test_the_published_prompt_is_adopted(adapter: Path, base: Base) -> None:
    adopted = adopt(adapter, base, formatter=sq.PromptFormatter.published())
    assert not sq.PromptFormatter.load(adopted.path).add_special_tokens


# --- Faults of the files ----------------------------------------------------------------------------------------------


def empty(directory: Path) -> Path:
    for path in directory.iterdir():
        path.unlink()
    return directory


def in_subfolders(directory: Path) -> Path:
    for name in ("checkpoint-9", "checkpoint-10"):
        shutil.copytree(directory, directory.parent / "run" / name)
    return directory.parent / "run"


def change(directory: Path, **tensors: torch.Tensor | None) -> Path:
    found = load_file(directory / SAFE)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    found |= {key.replace("Q", name): value for key, value in tensors.items() if value is not None}
    save_file(found, directory / SAFE)
    return directory


def drop(directory: Path, part: str) -> Path:
    save_file({key: one for key, one in load_file(directory / SAFE).items() if part not in key}, directory / SAFE)
    return directory


def write(directory: Path, name: str, content: bytes | str) -> Path:
    (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return directory


def move(directory: Path, name: str) -> Path:
    return directory.rename(directory.parent / name)


def without(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).unlink()
    return directory


def hostile(directory: Path) -> Path:
    class Code:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return eval, ("1",)

    torch.save({"x": Code()}, without(directory, SAFE) / BIN)
    return directory


def own(directory: Path) -> Path:
    write_manifest(directory, "adapter", {})
    return directory


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
FAULTS: list[tuple[str, Callable[[Path], Any], type[Exception], str]] = [
    ("nothing there", lambda d: d.parent / "absent", AdoptionError, "absent"),
    ("a file", lambda d: d / SAFE, AdoptionError, SAFE),
    ("an empty directory", empty, AdoptionError, "no files"),
    ("checkpoints", in_subfolders, AdoptionError, "checkpoint-9, checkpoint-10"),
    ("a model", lambda d: write(empty(d), "config.json", "{}"), AdoptionError, "adopt_model"),
    ("no configuration", lambda d: without(d, CONFIG), AdoptionError, CONFIG),
    ("no weights", lambda d: without(d, SAFE), AdoptionError, BIN),
    ("several weights", lambda d: write(without(d, SAFE), "adapter_model-00001-of-00002.safetensors", "x"),
     AdoptionError, "00001-of-00002"),
    ("pissa_init", lambda d: move(d, "pissa_init"), UnsupportedAdapterError, "pissa_init"),
    ("pissa_backup", lambda d: move(d, "pissa_backup"), UnsupportedAdapterError, "pissa_backup"),
    ("PiSSA", lambda d: edit(d, init_lora_weights="pissa_niter_16"), UnsupportedAdapterError, "pissa_niter_16"),
    ("a pointer", lambda d: write(d, SAFE, POINTER), AdoptionError, "git lfs pull"),
    ("an empty file", lambda d: write(d, SAFE, ""), AdoptionError, f"{SAFE} is empty"),
    ("a damaged file", lambda d: write(d, SAFE, b"\x00" * 64), AdoptionError, SAFE),
    ("a damaged configuration", lambda d: write(d, CONFIG, "{"), AdoptionError, CONFIG),
    ("an invalid value", lambda d: edit(d, lora_alpha="8"), AdoptionError, "'8'"),
    ("code", hostile, AdoptionError, "eval"),
    ("no tensors", lambda d: save_file({}, d / SAFE) or d, AdoptionError, "unwrap_model"),
    ("empty tensors", lambda d: change(d, Q=torch.zeros(0)), AdoptionError, "q_proj.lora_A"),
    ("packed tensors", lambda d: change(d, Q=torch.zeros(4, 128, dtype=torch.uint8)), AdoptionError, "U8"),
    ("NaN", lambda d: change(d, Q=torch.full((4, 128), float("nan"))), AdoptionError, "q_proj.lora_A"),
    ("infinity", lambda d: change(d, Q=torch.full((4, 128), float("-inf"))), AdoptionError, "q_proj.lora_A"),
    ("two values", lambda d: change(d, **{"module.Q": torch.zeros(4, 128)}), AdoptionError, r"module\.base_model"),
    ("half a pair", lambda d: rename(d, lambda n: n.replace("0.mlp.up_proj.lora_A", "0.mlp.up_proj.x")),
     AdoptionError, r"0\.mlp\.up_proj"),
    ("custom code", lambda d: write(d, "tokenizer_config.json", '{"auto_map": {"AutoTokenizer": "x.y"}}'),
     UnsupportedModelError, "auto_map"),
    ("a classifier", lambda d: edit(d, task_type="SEQ_CLS"), UnsupportedAdapterError, "SEQ_CLS"),
    ("IA3", lambda d: edit(d, peft_type="IA3"), UnsupportedAdapterError, "IA3"),
    ("aLoRA", lambda d: edit(d, alora_invocation_tokens=[1]), UnsupportedAdapterError, "alora_invocation_tokens"),
    ("a module that was not saved", lambda d: edit(d, modules_to_save=["embed_tokens"]), AdoptionError, "embed_tokens"),
    ("a lost layer", lambda d: drop(d, "layers.1.mlp.up_proj"), AdoptionError, r"model\.layers\.1\.mlp\.up_proj"),
    ("other shapes", lambda d: change(d, Q=torch.zeros(4, 64)), AdoptionError, r"\[4, 64\]"),
    ("other layers", lambda d: rename(d, lambda n: n.replace("layers.1", "layers.7")), AdoptionError, r"layers\.7"),
    ("only a chat template", lambda d: write(d, "chat_template.jinja", "{{ messages }}"), AdoptionError,
     r"tokenizer\.json"),
    ("an artifact of this library", own, AdoptionError, r"sq\.AdapterCheckpoint\.load"),
    ("a tokenizer that cannot be read", lambda d: write(d, "tokenizer.json", '{"model": {"type": "New"}}'),
     AdoptionError, "tokenizer"),
]  # fmt: skip


@pytest.mark.parametrize("fault", [fault[1:] for fault in FAULTS], ids=[one[0] for one in FAULTS])
def test_a_fault_of_the_files_is_one_clear_error(
    adapter: Path, base: Base, home: Path, fault: tuple[Callable[[Path], Any], type[Exception], str]
) -> None:
    make, error, value = fault
    place = make(adapter)
    with pytest.raises(error, match=value) as caught:
        adopt(place, base)
    assert type(caught.value) is error
    assert not list(home.rglob("*adopted*"))


@pytest.mark.parametrize("content", ['{"name": "an app"}', "[", '{"kind": "merged-model"}'])
def test_a_manifest_of_another_program_is_ignored(adapter: Path, base: Base, content: str) -> None:
    expected = adopt(adapter, base)
    assert adopt(write(adapter, "manifest.json", content), base) == expected


def test_the_converted_form_of_pissa_is_named(adapter: Path, base: Base) -> None:
    shutil.copytree(adapter, adapter / "pissa_converted")
    edit(adapter, init_lora_weights="pissa_niter_16")
    with pytest.raises(UnsupportedAdapterError, match="pissa_converted"):
        adopt(adapter, base)
    assert adopt(adapter / "pissa_converted", base).path.is_dir()


# --- The base ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        (lambda d: d.parent / "absent", AdoptionError, "absent"),
        (lambda _: "owner/absent", AdoptionError, "hf download owner/absent"),
        (lambda _: None, ConfigError, "None"),
        (lambda d: d / "config.json", AdoptionError, r"config\.json"),
        (lambda d: without(d, "config.json"), UnsupportedModelError, r"config\.json"),
        (lambda d: without(d, "tokenizer.json"), UnsupportedModelError, r"tokenizer\.json"),
        (lambda d: write(d, "tokenizer.json", POINTER), UnsupportedModelError, "git lfs pull"),
        (lambda d: four_bit(d, NF4), UnsupportedModelError, "quantization_config"),
        (lambda d: four_bit(d, {"quant_method": "gptq"}), UnsupportedModelError, "gptq"),
        (lambda d: without(d, "model.safetensors"), UnsupportedModelError, r"model\.safetensors"),
    ],
)
def test_an_unusable_base_is_one_clear_error(
    adapter: Path, base: Base, tmp_path: Path, fault: tuple[Callable[[Path], Any], type[Exception], str]
) -> None:
    make, error, value = fault
    with pytest.raises(error, match=value):
        adopt(adapter, make(shutil.copytree(base.directory, tmp_path / "base")))


def four_bit(directory: Path, settings: dict[str, Any]) -> Path:
    config = json.loads((directory / "config.json").read_text())
    return write(directory, "config.json", json.dumps(config | {"quantization_config": settings}))


@pytest.mark.parametrize("options", [{"target_modules": ["lm_head", "q_proj"]}, {"target_modules": ["embed_tokens"]}])
def test_copies_of_the_base_show_another_base(base: Base, tmp_path: Path, options: dict[str, Any]) -> None:
    train(base, tmp_path / "peft", **options)
    assert adopt(tmp_path / "peft", base).path.is_dir()
    stored = load_file(base.directory / "model.safetensors")
    other = shutil.copytree(base.directory, tmp_path / "other")
    table = stored["model.embed_tokens.weight"]
    save_file(stored | {"model.embed_tokens.weight": table + 0.001}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(AdoptionError, match="other"):
        adopt(tmp_path / "peft", other)
    few = table.clone()
    few[:20] += 1  # a tool may have initialized unused rows
    save_file(stored | {"model.embed_tokens.weight": few}, other / "model.safetensors", {"format": "pt"})
    assert adopt(tmp_path / "peft", other).path.is_dir()


def test_a_base_with_two_heads_is_refused(adapter: Path, base: Base, tmp_path: Path) -> None:
    other = shutil.copytree(base.directory, tmp_path / "other")
    stored = load_file(other / "model.safetensors")
    table = stored["model.embed_tokens.weight"]
    save_file(stored | {"lm_head.weight": table.clone()}, other / "model.safetensors", {"format": "pt"})
    assert adopt(adapter, other).path.is_dir()
    save_file(stored | {"lm_head.weight": table + 1}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(AdoptionError, match=r"tie_word_embeddings.*other.*lm_head\.weight"):
        adopt(adapter, other)


# --- The hub and S3 ---------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(adapter: Path, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    found = Hub({"acme/adapter": adapter, "acme/Meta-Tiny": base.directory})
    with found.in_use(monkeypatch, tmp_path / "hub"):
        yield found


@pytest.mark.parametrize("pickled", [False, True])
def test_an_adapter_of_the_hub_is_adopted(hub: Hub, adapter: Path, base: Base, pickled: bool) -> None:
    torch.save(load_file(adapter / SAFE), adapter / BIN)
    write(adapter, "optimizer.pt", "x")
    if pickled:
        without(adapter, SAFE)
    expected = adopt(adapter, base)
    adopted = adopt("acme/adapter", base)
    assert load_file(adopted.path / SAFE).keys() == load_file(expected.path / SAFE).keys()
    assert adopted.manifest.digest == expected.manifest.digest
    assert {SAFE, BIN, "optimizer.pt"} & hub.sent.keys() == {BIN if pickled else SAFE}


def test_a_hub_base_is_compared_by_name(hub: Hub, adapter: Path) -> None:
    huggingface_hub.snapshot_download("acme/Meta-Tiny")
    edit(adapter, base_model_name_or_path="unsloth/tiny-bnb-4bit")
    adopted = adopt(adapter, "acme/Meta-Tiny", quantization="auto")
    assert adopted.base_model == "acme/Meta-Tiny"
    assert adopted.base_model_path.is_dir()
    edit(adapter, base_model_name_or_path="unsloth/tiny-instruct-bnb-4bit")
    with pytest.raises(AdoptionError, match="unsloth/tiny-instruct-bnb-4bit"):
        adopt(adapter, "acme/Meta-Tiny", quantization="auto")
    assert hub.sent["model.safetensors"] > 0


@pytest.mark.usefixtures("hub")
def test_a_repository_that_does_not_exist_is_an_error(base: Base) -> None:
    with pytest.raises(GatedModelError, match="acme/absent"):
        adopt("acme/absent", base)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[boto3.Session]:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws(config={"core": {"mock_credentials": False}}):
        found = boto3.session.Session("testing", "testing", region_name="us-east-1")
        found.client("s3").create_bucket(Bucket="bucket")
        yield found


def upload(session: boto3.Session, directory: Path, prefix: str) -> None:
    for path in directory.rglob("*"):
        if path.is_file():
            session.client("s3").upload_file(str(path), "bucket", f"{prefix}/{path.relative_to(directory)}")


def test_adapter_and_base_can_be_on_s3(
    session: boto3.Session, adapter: Path, base: Base, tmp_path: Path, home: Path
) -> None:
    write(adapter, BIN, "never read")
    upload(session, adapter, "adapter")
    upload(session, base.directory, "base")
    expected = adopt(adapter, base)
    adopted = adopt("s3://bucket/adapter", "s3://bucket/base", session=session)
    assert not list(home.rglob(BIN))
    assert adopted.manifest.digest == expected.manifest.digest
    origin = expected.manifest.provenance["base_model"]["sha256"]
    place = "s3://bucket/base"
    assert adopted.manifest.provenance["base_model"] == {"name": place, "path": place, "sha256": origin}
    one = sq.AdapterMerger(session=session).merge(adopted, tmp_path / "one")
    assert one.manifest.digest == sq.AdapterMerger().merge(expected, tmp_path / "two").manifest.digest


def test_s3_without_an_adapter_says_what_is_there(session: boto3.Session, adapter: Path, base: Base) -> None:
    upload(session, adapter, "run/checkpoint-5")
    session.client("s3").put_object(Bucket="bucket", Key="other/notes.txt", Body=b"x")
    for prefix, value in {"run": "checkpoint-5", "other": r"notes\.txt", "none": "s3://bucket/none"}.items():
        with pytest.raises(AdoptionError, match=value) as caught:
            adopt(f"s3://bucket/{prefix}", base, session=session)
        assert f"s3://bucket/{prefix}" in str(caught.value)


def test_errors_name_the_place_that_the_caller_gave(
    session: boto3.Session, hub: Hub, adapter: Path, base: Base, home: Path
) -> None:
    own(change(adapter, Q=torch.zeros(4, 64)))
    upload(session, adapter, "adapter")
    assert hub.endpoint
    for place in ("acme/adapter", "s3://bucket/adapter"):
        with pytest.raises(AdoptionError, match=place) as caught:
            adopt(place, base, session=session)
        assert str(home) not in str(caught.value)
        assert "snapshots" not in str(caught.value)
