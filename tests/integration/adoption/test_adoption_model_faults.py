"""Models that are damaged, not merged, quantized or incomplete are refused with one error, on disk and on S3."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import sqlquarry as sq
from adopted_models import CHATML, add_bos, merged_by_peft
from sqlquarry.emulator import LocalAWS
from sqlquarry.errors import AdoptionError, ConfigError
from sqlquarry.pretrained import load_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT

Tensors = dict[str, torch.Tensor]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 771912\n"
Q_PROJ, NORM = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an intact model. Tests must copy it."""
    return merged_by_peft(tmp_path_factory.mktemp("merged"), tie_word_embeddings=False)


@pytest.fixture
def model(merged: Path, tmp_path: Path) -> Path:
    return shutil.copytree(merged, tmp_path / "model")


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    with LocalAWS() as running:
        yield running


Damage = Callable[[Path], object]


def write(name: str, content: str) -> Damage:
    return lambda directory: (directory / name).write_text(content)


def remove(*names: str) -> Damage:
    return lambda directory: [(directory / name).unlink() for name in names]


def configure(name: str = "config.json", **fields: Any) -> Damage:
    def change(directory: Path) -> None:
        path = directory / name
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def weights(change: Callable[[Tensors], object]) -> Damage:
    """Return a damage that changes the tensors of the only shard."""

    def changed(directory: Path) -> None:
        tensors = load_file(directory / "model.safetensors")
        change(tensors)
        save_file(
            {name: value.contiguous() for name, value in tensors.items()},
            directory / "model.safetensors",
            {"format": "pt"},
        )

    return changed


def renamed(pattern: str, replacement: str) -> Damage:
    def change(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[re.sub(pattern, replacement, name)] = tensors.pop(name)

    return weights(change)


def sharded(listed: Callable[[dict[str, str]], object] = lambda _: None, *, index: bool = True) -> Damage:
    """Return a damage that divides the weights into two shards and changes their index."""

    def change(directory: Path) -> None:
        tensors = load_file(directory / "model.safetensors")
        (directory / "model.safetensors").unlink()
        places = {
            name: f"model-0000{1 + (number % 2)}-of-00002.safetensors" for number, name in enumerate(sorted(tensors))
        }
        for shard in set(places.values()):
            save_file(
                {name: tensors[name] for name in tensors if places[name] == shard}, directory / shard, {"format": "pt"}
            )
        listed(places)
        if index:
            content = {"metadata": {"total_size": 1}, "weight_map": places}
            (directory / "model.safetensors.index.json").write_text(json.dumps(content))

    return change


def copied(name: str) -> Damage:
    return lambda directory: shutil.copy(directory / "model.safetensors", directory / name)


def moved(name: str, new: str) -> Damage:
    return lambda directory: (directory / name).rename(directory / new)


def both(*damages: Damage) -> Damage:
    return lambda directory: [damage(directory) for damage in damages]


def cut(directory: Path) -> None:
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[:-1000])


def set_last(tensors: Tensors, name: str, value: float) -> None:
    tensors[name].view(-1)[-1] = value


def with_tensors(**tensors: torch.Tensor) -> Damage:
    """Return a damage that adds tensors. "__" in a name means "."."""
    return weights(lambda stored: stored.update({name.replace("__", "."): value for name, value in tensors.items()}))


def with_rows(count: int) -> Damage:
    """Return a damage that drops all but the first rows of the embedding and the head."""
    return weights(lambda stored: stored.update({name: stored[name][:count] for name in (EMBEDDING, HEAD)}))


QUANTIZED_BY = {
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic"},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "gptq": {"quant_method": "gptq", "bits": 4},
}
FAULTS: dict[str, tuple[Damage, str]] = {
    "pointer-weights": (write("model.safetensors", POINTER), r"model\.safetensors.*git lfs pull"),
    "pointer-tokenizer": (write("tokenizer.json", POINTER), r"tokenizer\.json.*git lfs pull"),
    "pointer-config": (write("config.json", POINTER), r"config\.json.*git lfs pull"),
    "empty-config": (write("config.json", ""), r"config\.json is empty"),
    "no-json": (write("config.json", "{"), r"config\.json"),
    "no-tokenizer": (remove("tokenizer.json"), r"tokenizer\.json"),
    "no-tokenizer-config": (remove("tokenizer_config.json"), r"tokenizer_config\.json"),
    "broken-tokenizer": (write("tokenizer.json", "{}"), r"tokenizer\.json"),
    "odd-tokenizer": (configure("tokenizer.json", added_tokens=[7]), r"tokenizer\.json|vocabulary"),
    "custom-code": (configure(auto_map={"AutoModelForCausalLM": "own.Model"}), r"auto_map.*own\.Model"),
    "fp8": (
        both(configure(quantization_config=QUANTIZED_BY["fp8"]), renamed(r"q_proj\.weight", "q_proj.weight_scale_inv")),
        "'fp8'.*merged_16bit",
    ),
    "bitsandbytes": (
        both(configure(quantization_config=QUANTIZED_BY["bitsandbytes"]), with_tensors(a__absmax=torch.ones(2))),
        "'bitsandbytes'.*merged_16bit",
    ),
    "gptq": (
        both(configure(quantization_config=QUANTIZED_BY["gptq"]), renamed(r"q_proj\.weight", "q_proj.qweight")),
        "'gptq'.*merged_16bit",
    ),
    "awq-names": (renamed(r"q_proj\.weight", "q_proj.qweight"), "qweight.*merged_16bit"),
    "fp8-weights": (
        weights(lambda t: t.update({Q_PROJ: t[Q_PROJ].to(torch.float8_e4m3fn)})),
        f"{Q_PROJ}.*merged_16bit",
    ),
    "packed-weights": (weights(lambda t: t.update({Q_PROJ: torch.zeros(8192, 1, dtype=torch.uint8)})), Q_PROJ),
    "left-over-settings": (
        configure(quantization_config=QUANTIZED_BY["bitsandbytes"]),
        r"quantization_config.*'bitsandbytes'.*repair",
    ),
    "cut": (cut, r"model\.safetensors is truncated"),
    "no-shard": (both(sharded(), remove("model-00002-of-00002.safetensors")), r"model-00002-of-00002\.safetensors"),
    "index-lists-more": (
        sharded(lambda places: places.update({"model.extra": "model-00001-of-00002.safetensors"})),
        r"model\.extra",
    ),
    "index-lists-less": (sharded(lambda places: places.pop(Q_PROJ)), Q_PROJ),
    "no-index": (sharded(index=False), r"model\.safetensors\.index\.json"),
    "two-sets": (both(copied("kept"), sharded(), moved("kept", "model.safetensors")), r"model\.safetensors"),
    "fewer-layers": (configure(num_hidden_layers=1), r"model\.layers\.1"),
    "more-layers": (configure(num_hidden_layers=3), r"model\.layers\.2"),
    "other-width": (configure(intermediate_size=128), r"\[128, 256\] instead of \[128, 128\]"),
    "other-vocabulary": (configure(vocab_size=400), "442.*400"),
    "no-head": (weights(lambda stored: stored.pop(HEAD)), HEAD),
    "fewer-rows": (with_rows(400), "400.*442"),
    "more-ids-than-rows": (both(configure(vocab_size=400), with_rows(400)), "441.*400"),
    "lora": (
        with_tensors(model__layers__0__mlp__up_proj__lora_A__weight=torch.ones(4, 128)),
        "lora_A.*merge_and_unload",
    ),
    "base-layer": (renamed(r"q_proj\.weight", "q_proj.base_layer.weight"), "base_layer.*merge_and_unload"),
    "modules-to-save": (
        renamed(r"^lm_head\.", "lm_head.modules_to_save.default."),
        "modules_to_save.*merge_and_unload",
    ),
    "peft-prefix": (renamed("^", "base_model.model."), r"base_model\.model\.lm_head"),
    "compiled": (renamed("^", "_orig_mod."), r"torch\.compile .*_orig_mod\.lm_head"),
    "compiled-layers": (renamed(r"layers\.(\d)\.", r"layers.\1._orig_mod."), r"layers\.\d\._orig_mod"),
    "ddp": (renamed("^", "module."), r"module\.lm_head"),
    "mixed-dtypes": (weights(lambda stored: stored.update({NORM: stored[NORM].float()})), rf"{NORM} is F32"),
    "other-dtype": (configure(dtype="float16"), "'float16'.*bfloat16"),
    "nan": (weights(lambda stored: set_last(stored, Q_PROJ, float("nan"))), Q_PROJ),
    "infinity": (weights(lambda stored: set_last(stored, EMBEDDING, float("-inf"))), EMBEDDING),
    "trained-head-of-a-tied-model": (configure(tie_word_embeddings=True), rf"{HEAD} differs from {EMBEDDING}"),
    "adapter-next-to-it": (write("adapter_config.json", "{}"), r"adapter_config\.json"),
}
ON_S3 = ("pointer-weights", "custom-code", "cut", "no-shard", "no-tokenizer", "broken-tokenizer", "lora", "nan")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_model_is_refused(model: Path, fault: str) -> None:
    damage, value = FAULTS[fault]
    damage(model)
    before = sorted(model.iterdir())
    with pytest.raises(AdoptionError, match=rf"(?s){value}") as caught:
        sq.adopt_model(model, formatter=CHATML)
    assert str(model) in str(caught.value)
    assert sorted(model.iterdir()) == before


@pytest.mark.parametrize("fault", ON_S3)
def test_a_faulty_model_on_s3_is_refused(model: Path, fault: str, aws: LocalAWS) -> None:
    damage, value = FAULTS[fault]
    damage(model)
    session = aws.session()
    for path in model.iterdir():
        session.client("s3").upload_file(str(path), aws.bucket, f"{fault}/{path.name}")
    with pytest.raises(AdoptionError, match=rf"(?s){value}") as caught:
        sq.adopt_model(f"s3://{aws.bucket}/{fault}", formatter=CHATML, session=session)
    assert f"s3://{aws.bucket}/{fault}" in str(caught.value)
    assert "/tmp" not in str(caught.value)


@pytest.mark.parametrize(
    ("variant", "shards"),
    [(sharded(), 2), (copied("consolidated.safetensors"), 1), (write("quantize_config.json", "{}"), 1)],
    ids=["sharded", "also in another format", "left-over file"],
)
def test_intact_variants_are_accepted(model: Path, variant: Damage, shards: int) -> None:
    variant(model)
    files = sq.adopt_model(model, formatter=CHATML).manifest.files
    assert sum(name.endswith(".safetensors") for name in files) == shards
    assert not {"consolidated.safetensors", "quantize_config.json"} & files.keys()


def test_a_tied_head_that_equals_the_embedding_is_accepted(model: Path) -> None:
    both(configure(tie_word_embeddings=True), weights(lambda t: t.update({HEAD: t[EMBEDDING].clone()})))(model)
    sq.adopt_model(model, formatter=CHATML)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("nowhere", "nowhere does not exist"),
        ("model/config.json", r"config\.json is a file"),
        ("owner/name", "hf download owner/name"),
    ],
)
def test_a_location_without_a_directory_is_an_error(
    model: Path, place: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    with pytest.raises(AdoptionError, match=value):
        sq.adopt_model(place, formatter=CHATML)


def test_a_link_out_of_the_directory_is_refused(model: Path, tmp_path: Path) -> None:
    shutil.move(model / "model.safetensors", tmp_path / "elsewhere.safetensors")
    (model / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(AdoptionError, match=r"model\.safetensors is a link"):
        sq.adopt_model(model, formatter=CHATML)


@pytest.mark.parametrize("token", ["<|im_end|>", "<|endoftext|>"])
def test_a_formatter_that_is_bound_to_another_tokenizer_is_refused(model: Path, token: str) -> None:
    bound = CHATML.bind(load_tokenizer(model))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (model / name).write_text((model / name).read_text().replace(token, "<|other|>"))
    with pytest.raises(ConfigError, match=re.escape(token)):
        sq.adopt_model(model, formatter=bound)
    assert sq.adopt_model(model, formatter=CHATML).prompt_fingerprint != bound.fingerprint


@pytest.mark.parametrize("adds", [True, False])
def test_a_formatter_that_is_bound_to_another_bos_policy_is_refused(model: Path, tmp_path: Path, adds: bool) -> None:
    other = shutil.copytree(model, tmp_path / "other")
    add_bos(other if adds else model)
    with pytest.raises(ConfigError, match="BOS"):
        sq.adopt_model(model, formatter=CHATML.bind(load_tokenizer(other)))


def test_a_prompt_without_bos_is_refused_if_the_tokenizer_always_adds_it(model: Path) -> None:
    add_bos(model)
    configure("tokenizer_config.json", tokenizer_class="CodeLlamaTokenizer")(model)
    with pytest.raises(AdoptionError, match="<unk>"):  # of a SentencePiece vocabulary, which this one is not
        sq.adopt_model(model, formatter=CHATML)
    with pytest.raises(AdoptionError, match=r"add_special_tokens=False.*CodeLlamaTokenizer"):
        sq.adopt_model(model, formatter=dataclasses.replace(CHATML, add_special_tokens=False))


def test_other_objects_are_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match="'chat'"):
        sq.adopt_model(model, formatter="chat")  # type: ignore[arg-type] - wrong on purpose
    with pytest.raises(ConfigError, match="7"):
        sq.adopt_model(7)  # type: ignore[arg-type] - wrong on purpose
