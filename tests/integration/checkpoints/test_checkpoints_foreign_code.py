"""Test that no part of the library runs Python code of a model, even if its files ask for it and the user agrees."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import re
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from sqlquarry import AdapterCheckpoint, AdapterMerger, LocalModel, PromptFormatter, QLoRAFSDPTrainer, Record
from sqlquarry.bedrock.preflight import preflight
from sqlquarry.emulator.bedrock.admission import ImportFailedError, admit
from sqlquarry.errors import SQLQuarryError, UnsupportedModelError
from sqlquarry.manifests import base_digest, write_manifest
from sqlquarry.merging.base_checkpoint import BaseCheckpoint
from sqlquarry.merging.storage.local import LocalDirectory
from sqlquarry.models import DecodingOptions
from sqlquarry.sagemaker.container import main
from sqlquarry.training import TrainingConfig
from sqlquarry.training.base.base_model import check_base_model, resolve_base_model

from conftest import save_tiny_llama, toy_examples

RECORDS = [Record(**example) for example in toy_examples(4)]
MAP = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}


def edit(directory: Path, name: str, **changes: Any) -> None:
    path = directory / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | changes))


def of_the_model(directory: Path) -> None:
    edit(directory, "config.json", model_type="evil", auto_map=MAP)


def of_the_tokenizer(directory: Path) -> None:
    names = {"AutoTokenizer": ["evil.Tokenizer", None]}
    edit(directory, "tokenizer_config.json", auto_map=names, tokenizer_class="EvilTokenizer")
    edit(directory, "config.json", model_type="evil")


def of_another_config(directory: Path) -> None:
    shutil.copy(directory / "config.json", directory / "config.4.0.0.json")
    edit(directory, "config.4.0.0.json", model_type="evil", auto_map=MAP)
    edit(directory, "config.json", configuration_files=["config.4.0.0.json"])


def of_what_is_called_a_tokenizer(directory: Path) -> None:
    edit(directory, "tokenizer_config.json", tokenizer_class="AutoImageProcessor")
    edit(directory, "preprocessor_config.json", auto_map={"AutoImageProcessor": "evil.Processor"})


# The way in which a model asks for its code -> a word that the error must contain.
DISGUISES = {
    of_the_model: "auto_map",
    of_the_tokenizer: "auto_map",
    of_another_config: "configuration_files",
    of_what_is_called_a_tokenizer: "AutoImageProcessor",
}


@dataclasses.dataclass
class Evil:
    """A tiny model whose module writes the file `marker` when it is imported, and an adapter trained on the model."""

    directory: Path
    adapter: AdapterCheckpoint
    marker: Path
    word: str


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny model and a LoRA adapter written by PEFT."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("plain")
    model = AutoModelForCausalLM.from_pretrained(save_tiny_llama(root / "model"), trust_remote_code=False)
    options = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(model, options).save_pretrained(root / "adapter")
    return root


@pytest.fixture(params=DISGUISES, ids=lambda disguise: disguise.__name__)
def evil(request: pytest.FixtureRequest, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evil:
    directory, marker = tmp_path / "model", tmp_path / "it ran"
    shutil.copytree(plain / "model", directory)
    (directory / "evil.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).write_text('')\n")
    request.param(directory)
    adapter = finished(shutil.copytree(plain / "adapter", tmp_path / "adapter"), directory)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return Evil(directory, adapter, marker, DISGUISES[request.param])


def finished(directory: Path, base: Path) -> AdapterCheckpoint:
    PromptFormatter().save(directory)
    provenance = {
        "base_model": {"name": "tiny", "path": str(base), "sha256": base_digest(base)},
        "prompt_fingerprint": PromptFormatter().fingerprint,
        "quantization": None,
    }
    return AdapterCheckpoint(directory, write_manifest(directory, AdapterCheckpoint.kind, provenance))


def trainer(base: Path | str) -> QLoRAFSDPTrainer:
    return QLoRAFSDPTrainer(base, config=TrainingConfig(num_train_epochs=1, max_length=320, device="cpu"))


def in_the_hub_cache(evil: Evil) -> Any:
    """Use a model by its hub id without the network. The cache contains the snapshot that the ref names."""
    cache = evil.marker.parent / "hub"
    (cache / "models--org--evil" / "refs").mkdir(parents=True)
    (cache / "models--org--evil" / "refs" / "main").write_text("0" * 40)
    shutil.copytree(evil.directory, cache / "models--org--evil" / "snapshots" / ("0" * 40))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        return trainer("org/evil").plan(RECORDS)


def in_the_container(evil: Evil) -> None:
    """Run the program that SageMaker starts, with another folder instead of /opt/ml."""
    root = evil.marker.parent / "opt"
    data = root / "input" / "data"
    for name in ("train", "job"):
        (data / name).mkdir(parents=True)
    shutil.copytree(evil.directory, data / "model")
    (data / "train" / "train.jsonl").write_text("\n".join(json.dumps(dataclasses.asdict(r)) for r in RECORDS))
    config = dataclasses.asdict(TrainingConfig(num_train_epochs=1, max_length=320, device="cpu"))
    (data / "job" / "job.json").write_text(json.dumps({"base_model": None, "config": config}))
    PromptFormatter().save(data / "job")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQLQUARRY_ML_ROOT", str(root))
        assert main([str(data / "job" / "job.json")]) == 1
    raise UnsupportedModelError((root / "output" / "failure").read_text())


def in_the_emulator(evil: Evil) -> None:
    if evil.word != "AutoImageProcessor":
        edit(evil.directory, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    admit(evil.directory)


PLACES: dict[str, Callable[[Evil], Any]] = {
    "LocalModel": lambda evil: LocalModel(evil.directory, device="cpu"),
    "LocalModel of an adapter": lambda evil: LocalModel(evil.adapter, device="cpu"),
    "plan": lambda evil: trainer(evil.directory).plan(RECORDS),
    "train": lambda evil: trainer(evil.directory).train(RECORDS, output_dir=evil.marker.parent / "out"),
    "check_base_model": lambda evil: check_base_model(evil.directory),
    "resolve_base_model": lambda evil: resolve_base_model(evil.directory),
    "hub id": in_the_hub_cache,
    "container": in_the_container,
    "merge": lambda evil: AdapterMerger().merge(evil.adapter, evil.marker.parent / "merged"),
    "package_base": lambda evil: AdapterMerger().package_base(evil.adapter, evil.marker.parent / "packed"),
    "base checkpoint": lambda evil: BaseCheckpoint.open(LocalDirectory(evil.directory)),
    "preflight": lambda evil: preflight(evil.directory).raise_for_errors(),
    "emulator": in_the_emulator,
}


@pytest.mark.parametrize("place", PLACES)
def test_no_entry_point_runs_the_models_code(evil: Evil, place: str) -> None:
    with pytest.raises((SQLQuarryError, ImportFailedError), match=evil.word):
        PLACES[place](evil)
    assert not evil.marker.exists()


def test_transformers_alone_runs_it(evil: Evil) -> None:
    """Check that each model is really dangerous. transformers runs its code as soon as the user agrees."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for auto in (AutoTokenizer, AutoModelForCausalLM):
        with contextlib.suppress(Exception):  # the module defines no class
            auto.from_pretrained(evil.directory)
    assert evil.marker.exists()


def test_declining_is_not_enough_for_a_processor(evil: Evil) -> None:
    """Show why the files are also checked: transformers does not pass the user's answer to another Auto class."""
    from transformers import AutoTokenizer

    with contextlib.suppress(Exception):
        AutoTokenizer.from_pretrained(evil.directory, trust_remote_code=False)
    assert evil.marker.exists() == (evil.word == "AutoImageProcessor")


def test_an_adapter_cannot_name_a_library(plain: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(plain / "adapter", tmp_path / "adapter")
    edit(directory, "adapter_config.json", megatron_config={"a": 1}, megatron_core="megatron.evil")
    with pytest.raises(UnsupportedModelError, match="megatron_config"):
        LocalModel(finished(directory, plain / "model"), device="cpu")


def test_an_adapter_cannot_bring_its_own_model(evil: Evil, plain: Path) -> None:
    """Refuse PEFT's Shadow, which loads the model that the adapter names. transformers would offer to run its code."""
    edit(evil.adapter.path, "adapter_config.json", peft_type="SHADOW", shadow_model=str(evil.directory))
    with pytest.raises(UnsupportedModelError, match="SHADOW"):
        LocalModel(finished(evil.adapter.path, plain / "model"), device="cpu")
    assert not evil.marker.exists()


def test_python_files_that_no_configuration_names_are_ignored(plain: Path, tmp_path: Path) -> None:
    directory, marker = shutil.copytree(plain / "model", tmp_path / "model"), tmp_path / "it ran"
    for name in ("modeling_llama.py", "custom_generate/generate.py"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(f"import pathlib\npathlib.Path({str(marker)!r}).write_text('')\n")
    assert LocalModel(directory, device="cpu").complete(["a"], DecodingOptions(max_tokens=2))
    assert not marker.exists()


MALFORMED = {
    "config.json": [{"hidden_act": "none"}, {"hidden_size": "x"}, {"rope_scaling": {"rope_type": "\x1b[2J"}}],
    "tokenizer_config.json": [{"bos_token": 5}, {"eos_token": {"content": None}}, {"added_tokens_decoder": {"a": 1}}],
    "tokenizer.json": [{"model": {"type": "none"}}, {"added_tokens": [{}]}, {"version": 7}],
    "generation_config.json": [{"eos_token_id": {}}],
}


@pytest.mark.parametrize(
    ("name", "changes"), [(name, changes) for name, found in MALFORMED.items() for changes in found], ids=str
)
def test_malformed_values_raise_a_typed_error_or_are_ignored(
    plain: Path, tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    directory = shutil.copytree(plain / "model", tmp_path / "model")
    edit(directory, name, **changes)
    with contextlib.suppress(UnsupportedModelError):
        LocalModel(directory, device="cpu")


def test_control_characters_in_messages_of_transformers_are_escaped(
    plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    directory = shutil.copytree(plain / "model", tmp_path / "model")
    tensors = load_file(directory / "model.safetensors")
    tensors["\x1b]0;mine\x07"] = tensors["model.norm.weight"].clone()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(logging.getLogger("transformers"), "handlers", [caplog.handler])
    LocalModel(directory, device="cpu")
    assert r"\u{1b}]0;mine\u{7}" in caplog.text
    assert "\x1b" not in caplog.text
    edit(directory, "config.json", model_type="\x1b]0;mine\x07", architectures=None)
    with pytest.raises(UnsupportedModelError) as caught:
        LocalModel(directory, device="cpu")
    assert "\x1b" not in "".join(traceback.format_exception(caught.value))


def test_pickled_weights_are_not_read(plain: Path, tmp_path: Path) -> None:
    import torch

    directory = shutil.copytree(plain / "model", tmp_path / "model")
    (directory / "model.safetensors").unlink()
    torch.save({}, directory / "pytorch_model.bin")
    with pytest.raises(UnsupportedModelError, match=rf"{re.escape(str(directory))} .*\*\.safetensors"):
        LocalModel(directory, device="cpu")
