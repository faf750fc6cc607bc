"""A base model that cannot work is refused before anything long starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlquarry.errors import GatedModelError, UnsupportedModelError
from sqlquarry.training.base.base_model import resolve_base_model
from training_bases import save_base


def test_a_good_directory_is_taken_as_it_is_and_its_path_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = save_base(tmp_path / "model")
    (tmp_path / "link").symlink_to(directory)
    monkeypatch.chdir(tmp_path)
    for name in (directory, "model", "./model/", "link", "model/../model"):
        assert resolve_base_model(name) == directory.resolve()


def test_missing_files_are_named(tmp_path: Path) -> None:
    directory = save_base(tmp_path / "model")
    (directory / "model.safetensors").unlink()
    (directory / "tokenizer_config.json").unlink()
    with pytest.raises(UnsupportedModelError, match=r"lacks tokenizer_config\.json, \*\.safetensors"):
        resolve_base_model(directory)


def test_an_architecture_that_bedrock_cannot_import(tmp_path: Path) -> None:
    directory = save_base(tmp_path / "model", architectures=["Gemma3ForCausalLM"])
    with pytest.raises(UnsupportedModelError, match="Gemma3ForCausalLM, which Bedrock cannot import"):
        resolve_base_model(directory)


def test_a_quantised_checkpoint(tmp_path: Path) -> None:
    directory = save_base(tmp_path / "model", quantization_config={"quant_method": "awq"})
    with pytest.raises(UnsupportedModelError, match=r"already quantised \(awq\)"):
        resolve_base_model(directory)


def test_neither_path_nor_hub_id() -> None:
    with pytest.raises(UnsupportedModelError, match="neither a directory"):
        resolve_base_model("./no/such/model")


@pytest.mark.parametrize(
    ("hub_error", "expected", "words"),
    [
        ("GatedRepoError", GatedModelError, "accept its licence"),
        ("RepositoryNotFoundError", GatedModelError, "check the spelling"),
        ("LocalEntryNotFoundError", UnsupportedModelError, "hub cannot be reached"),
    ],
)
def test_what_the_hub_refuses(
    monkeypatch: pytest.MonkeyPatch, hub_error: str, expected: type[Exception], words: str
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*_: object, **__: object) -> str:
        kind = getattr(errors, hub_error)
        raise kind.__new__(kind)  # its constructor wants a real HTTP response

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(expected, match=words):
        resolve_base_model("meta-llama/some-model")


def test_a_gguf_is_converted_without_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers reads tokenizer, template, adapter and code from a GGUF's folder, which the cache's key ignores."""
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
    monkeypatch.setattr("sqlquarry.training.base.base_model.check_gguf", lambda _: None)  # it holds no model
    monkeypatch.setattr("sqlquarry.training.base.base_model._convert", convert)
    assert resolve_base_model(tmp_path / "m.gguf", cache_dir=tmp_path / "cache").parent == tmp_path / "cache"
    assert seen == ["m.gguf"]
