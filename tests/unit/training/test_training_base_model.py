"""A base model that cannot be used is refused before anything expensive starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlquarry.errors import GatedModelError, UnsupportedModelError
from sqlquarry.training.base.base_model import resolve_base_model
from training_bases import save_base


def test_a_valid_directory_is_used_directly_and_its_path_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = save_base(tmp_path / "model")
    (tmp_path / "link").symlink_to(directory)
    monkeypatch.chdir(tmp_path)
    for name in (directory, "model", "./model/", "link", "model/../model"):
        assert resolve_base_model(name) == directory.resolve()


def test_missing_files_are_listed(tmp_path: Path) -> None:
    directory = save_base(tmp_path / "model")
    (directory / "model.safetensors").unlink()
    (directory / "tokenizer_config.json").unlink()
    with pytest.raises(UnsupportedModelError, match=r"tokenizer_config\.json, \*\.safetensors"):
        resolve_base_model(directory)


def test_an_architecture_that_bedrock_cannot_import_is_refused(tmp_path: Path) -> None:
    directory = save_base(tmp_path / "model", architectures=["Gemma3ForCausalLM"])
    with pytest.raises(UnsupportedModelError, match="Gemma3ForCausalLM"):
        resolve_base_model(directory)


def test_a_quantized_checkpoint_is_refused(tmp_path: Path) -> None:
    directory = save_base(tmp_path / "model", quantization_config={"quant_method": "awq"})
    with pytest.raises(UnsupportedModelError, match="awq"):
        resolve_base_model(directory)


def test_a_name_that_is_neither_a_path_nor_a_hub_id_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'\./no/such/model'.*\bowner/name\b"):
        resolve_base_model("./no/such/model")


@pytest.mark.parametrize(
    ("hub_error", "expected", "words"),
    [
        ("GatedRepoError", GatedModelError, "is gated.*HF_TOKEN"),  # `sagemaker.failures` recognizes "is gated"
        ("RepositoryNotFoundError", GatedModelError, "HF_TOKEN"),
        ("LocalEntryNotFoundError", UnsupportedModelError, "LocalEntryNotFoundError"),
    ],
)
def test_errors_of_the_hub_are_typed_errors(
    monkeypatch: pytest.MonkeyPatch, hub_error: str, expected: type[Exception], words: str
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*_: object, **__: object) -> str:
        kind = getattr(errors, hub_error)
        raise kind.__new__(kind)  # its constructor requires a real HTTP response

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(expected, match=words) as caught:
        resolve_base_model("meta-llama/some-model")
    assert "meta-llama/some-model" in str(caught.value)


def test_a_gguf_file_is_converted_without_other_files_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would load tokenizer, template, adapter and code from the folder, which the cache's key ignores."""
    seen: list[str] = []

    def convert(gguf: Path, target: Path) -> None:
        seen.extend(path.name for path in gguf.parent.iterdir())
        assert gguf.read_bytes() == (tmp_path / "m.gguf").read_bytes()
        save_base(target / "made")
        for path in (target / "made").iterdir():
            path.rename(target / path.name)

    (tmp_path / "evil.py").write_text("")
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.T", null]}}')
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("sqlquarry.training.base.base_model.check_gguf", lambda _: None)  # the file has no model
    # Private, because only a function in place of transformers can see the folder.
    monkeypatch.setattr("sqlquarry.training.base.base_model._convert", convert)
    assert resolve_base_model(tmp_path / "m.gguf", cache_dir=tmp_path / "cache").parent == tmp_path / "cache"
    assert seen == ["m.gguf"]


def test_a_converted_tokenizer_has_the_special_tokens_of_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_llama: Path
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    loaded = {kind: kind.from_pretrained(tiny_llama) for kind in (AutoConfig, AutoModelForCausalLM, AutoTokenizer)}
    tokenizer = loaded[AutoTokenizer]
    right = tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token
    tokenizer.eos_token = tokenizer.bos_token  # as in transformers 5.17
    for kind, value in loaded.items():
        monkeypatch.setattr(kind, "from_pretrained", lambda *_, value=value, **__: value)
    monkeypatch.setattr("sqlquarry.training.base.base_model.check_gguf", lambda _: None)  # the file has no model
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    directory = resolve_base_model(tmp_path / "m.gguf", cache_dir=tmp_path / "cache")
    monkeypatch.undo()
    saved = AutoTokenizer.from_pretrained(directory)
    assert (saved.bos_token, saved.eos_token, saved.pad_token) == right


def test_two_conversions_of_a_gguf_file_at_once_give_one_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf, conversions = tmp_path / "m.gguf", []

    def convert(_: Path, target: Path) -> None:
        conversions.append(target)
        if len(conversions) == 1:  # another process converts the file meanwhile
            resolve_base_model(gguf, cache_dir=tmp_path / "cache")
        save_base(target / "made")
        for path in (target / "made").iterdir():
            path.rename(target / path.name)

    gguf.write_bytes(b"GGUF")
    monkeypatch.setattr("sqlquarry.training.base.base_model.check_gguf", lambda _: None)  # the file has no model
    monkeypatch.setattr("sqlquarry.training.base.base_model._convert", convert)  # in place of transformers, as above
    directory = resolve_base_model(gguf, cache_dir=tmp_path / "cache")
    assert len(conversions) == 2
    assert list((tmp_path / "cache").iterdir()) == [directory]
