"""Training end to end on a tiny 4-bit Llama: learning, saving, refusing and resuming."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file
from transformers import MixtralConfig, MixtralForCausalLM

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import ConfigError, DeviceError, IncompleteArtifactError, RecordError, TrainingError
from sqlquarry.manifests import MANIFEST
from sqlquarry.pretrained import load_causal_lm
from sqlquarry.prompt import PromptFormatter
from sqlquarry.quantization import QuantizationRecipe
from sqlquarry.records import Record
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig
from sqlquarry.training.steps import adapted_model, loop

from conftest import tiny_tokenizer, toy_examples

RECORDS = [Record(**example) for example in toy_examples(24)]
CONFIG = TrainingConfig(num_train_epochs=1, records_per_step=6, max_length=320, learning_rate=3e-3, device="cpu")


@pytest.fixture(scope="module")
def trained(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterCheckpoint:
    output = tmp_path_factory.mktemp("run") / "adapter"
    return QLoRAFSDPTrainer(tiny_llama, config=CONFIG).train(RECORDS, output_dir=output)


def log_of(adapter: AdapterCheckpoint) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (adapter.path / "training_log.jsonl").read_text().splitlines()]


def test_the_loss_falls_and_every_step_is_logged(trained: AdapterCheckpoint) -> None:
    losses = [entry["loss"] for entry in log_of(trained) if "loss" in entry]
    assert len(losses) == trained.run.steps >= 4
    assert losses[-1] < losses[0]


def test_the_manifest_has_base_prompt_and_quantization(trained: AdapterCheckpoint, tiny_llama: Path) -> None:
    provenance = AdapterCheckpoint.load(trained.path, verify=True).manifest.provenance
    assert provenance["base_model"]["path"] == str(tiny_llama)
    assert provenance["prompt_fingerprint"] == PromptFormatter.load(trained.path).fingerprint
    assert provenance["quantization"]["quant_type"] == "nf4"
    assert provenance["quantization"]["load_dtype"] == "float32"
    assert len(provenance["quantization"]["modules"]) == 2 * 7
    assert "model.layers.0.mlp.up_proj" in provenance["quantization"]["modules"]


def test_adapter_weights_are_float32_and_updated(trained: AdapterCheckpoint) -> None:
    tensors = load_file(trained.path / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * 2
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all(tensor.abs().max() > 0 for name, tensor in tensors.items() if "lora_B" in name)


def test_training_with_evaluation_equals_training_without(tiny_llama: Path, tmp_path: Path) -> None:
    # bitsandbytes' CPU path repacks weights in evaluation mode, and then silently gives wrong gradients.
    config = TrainingConfig(num_train_epochs=2, records_per_step=6, max_length=320, learning_rate=3e-3, device="cpu")
    runs = {}
    for name, evaluation in {"without": None, "with": RECORDS[:4]}.items():
        runs[name] = QLoRAFSDPTrainer(tiny_llama, config=config).train(RECORDS, evaluation, output_dir=tmp_path / name)
    plain, evaluated = (load_file(run.path / "adapter_model.safetensors") for run in runs.values())
    assert all(torch.equal(plain[name], evaluated[name]) for name in plain)
    assert len([entry for entry in log_of(runs["with"]) if "eval_loss" in entry]) == 2


def test_4_bit_layers_do_not_use_the_path_that_ruins_gradients(tiny_llama: Path) -> None:
    model = load_causal_lm(tiny_llama, "cpu", QuantizationRecipe(load_dtype="float32"))
    layers = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 14
    assert all(layer.support_avx512bf16_for_cpu is False for layer in layers)


def test_a_finished_run_is_not_repeated(
    trained: AdapterCheckpoint, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapted_model, "load_causal_lm", lambda *_: pytest.fail("loaded the model again"))
    again = QLoRAFSDPTrainer(tiny_llama, config=CONFIG).train(RECORDS, output_dir=trained.path)
    assert again.manifest == trained.manifest


def test_another_run_does_not_overwrite_a_finished_one(trained: AdapterCheckpoint, tiny_llama: Path) -> None:
    with pytest.raises(TrainingError, match="data_sha256"):
        QLoRAFSDPTrainer(tiny_llama, config=CONFIG).train(RECORDS[:8], output_dir=trained.path)


def test_foreign_files_are_not_overwritten(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(TrainingError, match=f"{re.escape(str(tmp_path))} .* empty output_dir"):
        QLoRAFSDPTrainer(tiny_llama, config=CONFIG).train(RECORDS, output_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["thesis.tex"]
    assert (tmp_path / "thesis.tex").read_text() == "important"


def test_a_killed_run_does_not_count_as_finished(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainingConfig(num_train_epochs=0.5, max_length=320, device="cpu")
    output = tmp_path / "adapter"
    with monkeypatch.context() as patch:
        patch.setattr(
            "sqlquarry.training.local_run.write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            QLoRAFSDPTrainer(tiny_llama, config=config).train(RECORDS[:6], output_dir=output)
    assert not (output / MANIFEST).exists()
    with pytest.raises(IncompleteArtifactError):
        AdapterCheckpoint.load(output)
    QLoRAFSDPTrainer(tiny_llama, config=config).train(RECORDS[:6], output_dir=output)
    AdapterCheckpoint.load(output, verify=True)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "no records"),
        ([Record("q", "CREATE TABLE t (a)", id="r-7")], "r-7"),
        ([*RECORDS[:2], Record("long " * 400, "CREATE TABLE t (a)", "SELECT 1", id="r-9")], "r-9"),
    ],
)
def test_records_that_cannot_be_learned_are_refused_before_the_model_is_loaded(
    records: list[Record], words: str, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapted_model, "load_causal_lm", lambda *_: pytest.fail("loaded the model"))
    with pytest.raises(RecordError, match=words):
        QLoRAFSDPTrainer(tiny_llama, config=CONFIG).train(records, output_dir=tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_cuda_without_a_gpu_is_refused(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device='cuda'"):
        QLoRAFSDPTrainer(tiny_llama, config=TrainingConfig(device="cuda")).train(RECORDS, output_dir=tmp_path / "a")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB."), (DeviceError, "gradient_checkpointing=True")),
        (
            torch._dynamo.exc.TorchDynamoException("no C compiler"),  # it has no public name
            (TrainingError, "no C compiler.*torch_compile=False"),
        ),
    ],
)
def test_errors_of_the_device_say_what_to_do(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: Any
) -> None:
    def fails(_: Any) -> None:
        raise error

    monkeypatch.setattr(loop.Loop, "run", fails)
    with pytest.raises(expected[0], match=expected[1]):
        QLoRAFSDPTrainer(tiny_llama, config=CONFIG).train(RECORDS, output_dir=tmp_path / "a")


def test_experts_are_trained(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"num_hidden_layers": 1, "num_local_experts": 4, "num_experts_per_tok": 2}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    MixtralForCausalLM(MixtralConfig(vocab_size=len(tokenizer), **sizes, **ids)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    config = dataclasses.replace(CONFIG, num_train_epochs=4, learning_rate=2e-2)
    run = QLoRAFSDPTrainer(tmp_path / "base", config=config).train(RECORDS, output_dir=tmp_path / "run")
    losses = [entry["loss"] for entry in log_of(run)]
    assert losses[-1] < losses[0] - 0.1
    assert any(".experts." in name for name in load_file(run.path / "adapter_model.safetensors"))
    with pytest.raises(ConfigError, match=r"lora_dropout .*0\.1.*experts"):
        QLoRAFSDPTrainer(tmp_path / "base", config=dataclasses.replace(CONFIG, lora_dropout=0.1)).train(
            RECORDS, output_dir=tmp_path / "other"
        )
