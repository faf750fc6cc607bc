"""Manifests: only a finished and unchanged directory is accepted as an artifact."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import AdapterCheckpoint, MergedModel
from sqlquarry.errors import CorruptArtifactError, IncompleteArtifactError, MetadataError, PromptMismatchError
from sqlquarry.files.digests import sha256_file
from sqlquarry.files.writing import write_atomically, write_json
from sqlquarry.manifests import MANIFEST, MANIFEST_VERSION, base_digest, read_manifest, write_manifest

PROVENANCE = {"prompt_fingerprint": "f00d", "base_model": {"name": "base"}}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    directory = tmp_path / "adapter"
    (directory / "sub").mkdir(parents=True)
    (directory / "adapter_model.safetensors").write_bytes(bytes(3_000_000))
    (directory / "sub" / "prompt.json").write_text("{}")
    write_manifest(directory, "adapter", PROVENANCE)
    return directory


def test_a_finished_directory_is_accepted(adapter: Path):
    manifest = read_manifest(adapter, "adapter", verify=True)
    checkpoint = AdapterCheckpoint.load(str(adapter), verify=True)

    assert sorted(manifest.files) == ["adapter_model.safetensors", "sub/prompt.json"]
    assert manifest.files["adapter_model.safetensors"]["bytes"] == 3_000_000
    assert manifest.files["sub/prompt.json"]["sha256"] == sha256_file(adapter / "sub" / "prompt.json")
    assert manifest.provenance == PROVENANCE
    assert checkpoint.manifest == manifest
    assert (checkpoint.base_model, checkpoint.prompt_fingerprint) == ("base", "f00d")


def test_temporary_files_of_killed_writers_are_ignored(adapter: Path):
    (adapter / ".adapter.1.tmp").write_text("half")

    assert write_manifest(adapter, "adapter", PROVENANCE).files.keys() == read_manifest(adapter, "adapter").files.keys()
    assert ".adapter.1.tmp" not in read_manifest(adapter, "adapter").files


def test_the_manifest_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "weights").write_text("w")
    seen: list[bool] = []
    monkeypatch.setattr(
        "sqlquarry.files.digests.sha256_file", lambda _: seen.append((tmp_path / MANIFEST).exists()) or "0" * 64
    )

    write_manifest(tmp_path, "adapter", {})

    assert seen == [False]
    assert (tmp_path / MANIFEST).is_file()


def test_no_manifest_means_not_finished(adapter: Path):
    (adapter / MANIFEST).unlink()

    with pytest.raises(IncompleteArtifactError, match=MANIFEST):
        AdapterCheckpoint.load(adapter)
    with pytest.raises(IncompleteArtifactError, match="nowhere") as caught:
        AdapterCheckpoint.load(adapter / "nowhere")
    assert MANIFEST not in str(caught.value)  # the directory does not exist, which is another mistake


def test_another_kind_is_refused(adapter: Path):
    with pytest.raises(CorruptArtifactError, match=r"'adapter'.*'merged-model'"):
        MergedModel.load(adapter)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"version": 1, "kind": "adapter", "fil',
        '{"version": 1, "kind": "adapter", "files": {}}',
        '{"version": 1, "kind": "adapter", "files": [], "provenance": {}}',
        '{"version": 1, "kind": "adapter", "files": {"a": {"sha256": "x"}}, "provenance": {}}',
    ],
)
def test_an_invalid_manifest_is_refused(adapter: Path, content: str):
    (adapter / MANIFEST).write_text(content)

    with pytest.raises(CorruptArtifactError) as caught:
        read_manifest(adapter, "adapter")
    assert isinstance(caught.value.__cause__, MetadataError)


def test_another_version_is_refused(adapter: Path):
    content = json.loads((adapter / MANIFEST).read_text())
    (adapter / MANIFEST).write_text(json.dumps(content | {"version": 4711}))

    with pytest.raises(CorruptArtifactError, match=rf"\b4711\b.*\b{MANIFEST_VERSION}\b"):
        read_manifest(adapter, "adapter")


@pytest.mark.parametrize("damage", ["missing", "truncated", "longer", "a directory"])
@pytest.mark.parametrize("verify", [False, True])
def test_missing_and_resized_files_are_found_without_hashing(adapter: Path, damage: str, verify: bool):
    file = adapter / "sub" / "prompt.json"
    file.unlink()
    if damage == "a directory":
        file.mkdir()
    elif damage != "missing":
        file.write_text({"truncated": "{", "longer": "{ }"}[damage])

    with pytest.raises(CorruptArtifactError, match=r"sub/prompt\.json") as caught:
        read_manifest(adapter, "adapter", verify=verify)
    assert "SHA-256" not in str(caught.value)


def test_only_verify_finds_changed_files_of_the_same_size(adapter: Path):
    weights = adapter / "adapter_model.safetensors"
    with weights.open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"\1")

    # Hashing all weights takes minutes, so nobody pays for it by default.
    assert AdapterCheckpoint.load(adapter).manifest == read_manifest(adapter, "adapter")
    for load in (
        AdapterCheckpoint.load,
        lambda directory, *, verify: read_manifest(directory, "adapter", verify=verify),
    ):
        with pytest.raises(CorruptArtifactError, match=r"adapter_model\.safetensors .*SHA-256"):
            load(adapter, verify=True)


def test_the_digest_depends_only_on_names_and_contents(adapter: Path, tmp_path: Path):
    before = read_manifest(adapter, "adapter").digest
    shutil.copytree(adapter, tmp_path / "copy")
    assert write_manifest(tmp_path / "copy", "merged-model", {"other": 1}).digest == before

    (tmp_path / "copy" / "sub" / "prompt.json").rename(tmp_path / "copy" / "sub" / "renamed.json")
    renamed = write_manifest(tmp_path / "copy", "adapter", {}).digest
    (tmp_path / "copy" / "sub" / "renamed.json").write_text("[]")
    changed = write_manifest(tmp_path / "copy", "adapter", {}).digest

    assert len({before, renamed, changed}) == 3


def test_the_base_digest_depends_only_on_config_and_weights(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("w")
    before = base_digest(tmp_path)
    (tmp_path / "README.md").write_text("new")
    assert base_digest(tmp_path) == before

    (tmp_path / "model.safetensors").write_text("v")
    assert base_digest(tmp_path) != before


def test_another_prompt_is_refused(adapter: Path):
    manifest = read_manifest(adapter, "adapter")

    manifest.require_prompt("f00d")
    with pytest.raises(PromptMismatchError, match=r"'f00d'.*'beef'"):
        manifest.require_prompt("beef")
    with pytest.raises(PromptMismatchError, match="None"):
        write_manifest(adapter, "adapter", {}).require_prompt("f00d")


@given(before=st.binary(), after=st.binary())
def test_atomic_writes_replace_the_complete_file(tmp_path_factory, before: bytes, after: bytes):
    path = tmp_path_factory.mktemp("atomic") / "file"
    for content in (before, after):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str):
    path = tmp_path / "file.json"
    write_json(path, {"old": True})

    def crash(*_: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(step, crash)
    with pytest.raises(OSError, match="power cut"):
        write_json(path, {"new": True})

    assert json.loads(path.read_text()) == {"old": True}
    assert [file.name for file in tmp_path.iterdir()] == ["file.json"]


def test_a_crash_before_the_manifest_leaves_the_directory_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "weights").write_text("w")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("power cut")))
    with pytest.raises(OSError, match="power cut"):
        write_manifest(tmp_path, "adapter", {})

    with pytest.raises(IncompleteArtifactError):
        read_manifest(tmp_path, "adapter")
