"""The export serves the right reading of a tokenizer, and preflight reports prompts that differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tokenizer_shapes as shapes
from bedrock_fakes import TENSORS, safetensors
from sqlquarry.bedrock.export import metadata_files
from sqlquarry.bedrock.export.metadata_files import export_files
from sqlquarry.bedrock.export.model_export import ModelExport
from sqlquarry.bedrock.export.token_parity import first_difference, formatter_prompts
from sqlquarry.bedrock.preflight import preflight
from sqlquarry.tokenizing.file_tokenizer import FileTokenizer
from sqlquarry.tokenizing.readings import served_reading, trained_reading
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

TEXT = "a\n</s> b </s>\n<s>"


def checkpoint(directory: Path, name: str = "tinyllama", *, model: dict[str, Any] | None = None) -> Path:
    files = shapes.SHAPES[name]
    return shapes.write(files | {"config.json": files["config.json"] | (model or {})}, directory)


def ids(files: TokenizerFiles, *, served: bool) -> list[int]:
    reading = served_reading(files) if served else trained_reading(files)
    return list(FileTokenizer(reading, files.config)(TEXT)["input_ids"])


@pytest.mark.parametrize("who", ["prompt.json", "formatter", "transformers 5", "older"])
def test_the_export_serves_the_reading_of_the_training(tmp_path: Path, who: str) -> None:
    newer = {"transformers_version": "5.24.0", "dtype": "bfloat16"} if who == "transformers 5" else {}
    directory = checkpoint(tmp_path, model=newer)
    own = TokenizerFiles.in_directory(directory)
    if who == "prompt.json":
        shapes.FORMATTER.save(directory)
    exported = export_files(directory, shapes.FORMATTER if who == "formatter" else None)
    after = ids(TokenizerFiles.in_directory(directory, exported), served=True)

    assert ids(own, served=True) != ids(own, served=False)
    assert after == ids(own, served=who == "older")
    assert ("tokenizer.json" in exported) == (who != "older")


def test_a_rewritten_tokenizer_replaces_the_original_in_the_upload(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path)
    (directory / "model.safetensors").write_bytes(safetensors(TENSORS))
    export = ModelExport.of(directory, shapes.FORMATTER)
    content = export.files["tokenizer.json"]
    assert isinstance(content, bytes)
    assert export.manifest.files["tokenizer.json"]["bytes"] == len(content)
    assert json.loads(content)["pre_tokenizer"]["prepend_scheme"] == "first"


def test_a_tokenizer_with_equal_readings_is_uploaded_unchanged(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path, "qwen 3")
    (directory / "model.safetensors").write_bytes(safetensors(TENSORS))
    assert ModelExport.of(directory, shapes.FORMATTER).files["tokenizer.json"] == directory / "tokenizer.json"


@pytest.mark.parametrize("name", ["tinyllama", "legacy", "chatml", "stripping tokens", "smollm", "prefix space", "eos"])
def test_a_differing_prompt_is_found_without_a_formatter(name: str, tmp_path: Path) -> None:
    files = TokenizerFiles.in_directory(checkpoint(tmp_path, name))
    served, trained = served_reading(files), trained_reading(files)
    found = first_difference(files, served, trained)
    assert found is not None
    assert found.served != found.trained
    assert str(len(found.served)) in str(found)
    assert str(len(found.trained)) in str(found)
    assert first_difference(files, trained, trained) is None


def test_an_unrepairable_tokenizer_is_refused_with_a_prompt_and_both_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_files, "repaired", lambda files, *_, **__: files)
    directory = checkpoint(tmp_path)
    (directory / "model.safetensors").write_bytes(safetensors(TENSORS))
    shapes.FORMATTER.save(directory)
    (finding,) = [one for one in preflight(directory).findings if one.code == "served-tokens"]
    files = TokenizerFiles.in_directory(directory)
    difference = first_difference(
        files, served_reading(files), trained_reading(files), formatter_prompts(shapes.FORMATTER)
    )
    assert difference is not None
    assert finding.severity == "error"
    assert finding.message == str(difference)
    assert repr(difference.prompt[-20:])[1:-1] in finding.message


@pytest.mark.parametrize("passed", [None, shapes.FORMATTER])
def test_an_older_checkpoint_gets_a_warning_about_local_answers(tmp_path: Path, passed: Any) -> None:
    directory = checkpoint(tmp_path)
    (directory / "model.safetensors").write_bytes(safetensors(TENSORS))
    codes = {(one.severity, one.code) for one in preflight(directory, formatter=passed).findings}
    assert (("warning", "local-tokens") in codes) == (passed is None)
    assert ("error", "served-tokens") not in codes


def test_the_formatters_prompts_contain_special_tokens() -> None:
    prompts = formatter_prompts(shapes.FORMATTER)
    assert len(prompts) > 2
    assert any("a</s>b" in prompt for prompt in prompts)
