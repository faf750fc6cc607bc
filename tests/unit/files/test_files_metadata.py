"""Test that reading a file that describes a model gives a result or a typed error in bounded time."""

from __future__ import annotations

import json
import math
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import AdapterCheckpoint
from sqlquarry.errors import CorruptArtifactError, MetadataError
from sqlquarry.files.metadata import (
    MAX_DEPTH,
    MAX_VALUES,
    file_name,
    max_bytes,
    parse_json,
    parse_object,
    path_inside,
    read_bytes,
    read_object,
    relative_name,
)
from sqlquarry.manifests import MANIFEST, write_manifest


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"[1]", id="a list"),
        pytest.param(b'"x"', id="a text"),
        pytest.param(b'{"a": NaN}', id="NaN"),
        pytest.param(b'{"a": -Infinity}', id="infinity"),
        pytest.param(b'{"a": 1e999}', id="a float that overflows"),
        pytest.param(b'{"a": ' + b"9" * 101 + b"}", id="an integer of 101 digits"),
        pytest.param(b'{"a": ' + b"9" * 1_000_000 + b"}", id="an integer of a million digits"),
        pytest.param(b'{"a": ' + nested(MAX_DEPTH) + b"}", id="one level too deep"),
        pytest.param(b'{"a": ' + nested(100_000) + b"}", id="far too deep"),
        pytest.param(b'{"a":' * 100_000, id="deep objects, cut off"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param(b'{"a": "\xff"}', id="not UTF-8"),
        pytest.param("{}".encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"a": "\\ud800"}', id="half of a surrogate pair"),
        pytest.param(b'{"a": [' + b"[]," * MAX_VALUES + b"1]}", id="too many values"),
    ],
)
def test_invalid_metadata_is_refused(content: bytes) -> None:
    with pytest.raises(MetadataError, match=r"^x "):
        parse_object(content, "x")


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'{"a": ' + nested(MAX_DEPTH - 1) + b"}", None),
        (b'{"model_max_length": 1000000000000000019884624838656}', {"model_max_length": 10**30 + 19884624838656}),
        (b'{"a": "\\ud83d\\ude00", "b": "\xc3\xa9"}', {"a": "\U0001f600", "b": "é"}),
        (b' {"a": [1, 2.5, true, null]} ', {"a": [1, 2.5, True, None]}),
    ],
)
def test_valid_metadata_is_read(content: bytes, value: Any) -> None:
    assert value is None or parse_object(content, "x") == value
    parse_object(content, "x")


def test_lenient_parsing_accepts_all_that_python_writes() -> None:
    text = json.dumps({"a": [float("inf"), float("-inf")], "b": "\ud800", "c": float("nan")})
    value = parse_json(text, "x", lenient=True)
    assert math.isnan(value.pop("c"))
    assert value == {"a": [float("inf"), float("-inf")], "b": "\ud800"}
    for content in (nested(101), b"[" * 10**6, b"9" * 101):
        with pytest.raises(MetadataError):
            parse_json(content, "x", lenient=True)


@given(st.recursive(st.none() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False), st.lists))
def test_json_is_parsed_like_python_parses_it(value: Any) -> None:
    text = json.dumps({"a": value}, ensure_ascii=False)
    assert parse_object(text.encode(), "x") == json.loads(text)


def test_a_file_is_not_read_beyond_its_limit(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "anything.json"):
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(max_bytes(name) + 1)  # a sparse file, of which no byte is read
        with pytest.raises(MetadataError, match=rf"^{name} .* {max_bytes(name) + 1:,} .* {max_bytes(name):,}"):
            read_object(path)
        os.truncate(path, 10)
        assert len(read_bytes(path)) == 10
    assert max_bytes("models/x/config.json") == max_bytes("config.json") < max_bytes("tokenizer.json")


def test_pipes_devices_and_folders_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    (tmp_path / "tokenizer.json").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    outcomes: list[str] = []

    def read() -> None:
        for name in ("config.json", "tokenizer.json", "folder", "absent"):
            try:
                read_object(tmp_path / name)
            except (MetadataError, OSError) as error:
                outcomes.append(type(error).__name__)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(timeout=5)
    assert outcomes == ["MetadataError", "MetadataError", "IsADirectoryError", "FileNotFoundError"]


OUTSIDE = [
    "../x",
    "a/../../x",
    "/etc/hostname",
    "..",
    ".",
    "",
    "a//b",
    "a/",
    "./a",
    "C:x",
    "c:/x",
    "a\\..\\x",
    "\\\\host\\x",
]
OUTSIDE += ["a\0b", "a\nb", "\ud800", "x" * 300, "a/" * 600 + "a"]


@pytest.mark.parametrize("name", [*OUTSIDE, None, 3, True, ["a"], {"a": 1}])
def test_a_name_stays_inside_the_folder(tmp_path: Path, name: Any) -> None:
    for check in (
        lambda: relative_name(name, "m"),
        lambda: file_name(name, "m"),
        lambda: path_inside(tmp_path, name, "m"),
    ):
        with pytest.raises(MetadataError, match=rf"^m .*{re.escape(repr(name)[:80])}"):
            check()


@given(st.text(max_size=12) | st.text("./\\:ab", max_size=12))
def test_any_accepted_name_leads_inside_the_folder(name: str) -> None:
    folder = Path("/folder/of/the/model")
    try:
        path = path_inside(folder, name, "m")
    except MetadataError:
        return
    assert folder in path.parents
    assert os.path.normpath(path) == str(path)


def test_a_plain_name_is_accepted(tmp_path: Path) -> None:
    assert file_name("model-00001-of-00002.safetensors", "m") == "model-00001-of-00002.safetensors"
    assert relative_name("logs/été 1.jsonl", "m") == "logs/été 1.jsonl"
    assert path_inside(tmp_path, "logs/a", "m") == tmp_path / "logs" / "a"
    with pytest.raises(MetadataError, match=r"^m .*'logs/a'"):
        file_name("logs/a", "m")


def artifact(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "weights").write_text("w")
    write_manifest(directory, "adapter", {"prompt_fingerprint": "f"})
    return directory


def name_also(directory: Path, name: str, size: int) -> None:
    """Add a file to a manifest."""
    content = json.loads((directory / MANIFEST).read_text())
    content["files"][name] = {"sha256": "0" * 64, "bytes": size}
    (directory / MANIFEST).write_text(json.dumps(content))


def test_a_link_out_of_the_folder_is_not_a_file_of_an_artifact(tmp_path: Path) -> None:
    directory = artifact(tmp_path / "a")
    (tmp_path / "secret").write_text("secret")
    (directory / "link").symlink_to(tmp_path / "secret")
    (directory / "folder").symlink_to(tmp_path)
    (directory / "loop").symlink_to("loop")
    for name in ("link", "folder/secret", "loop", "../secret", str(tmp_path / "secret")):
        write_manifest(directory, "adapter", {})
        assert set(AdapterCheckpoint.load(directory, verify=True).manifest.files) == {"weights"}
        name_also(directory, name, 6)
        with pytest.raises(CorruptArtifactError, match=rf"manifest\.json .*{re.escape(repr(name)[:80])}"):
            AdapterCheckpoint.load(directory)


def test_links_inside_the_folder_and_into_the_hub_cache_are_followed(tmp_path: Path) -> None:
    directory = artifact(tmp_path / "a")
    (directory / "link").symlink_to("weights")
    write_manifest(directory, "adapter", {})
    assert set(AdapterCheckpoint.load(directory, verify=True).manifest.files) == {"link", "weights"}

    # https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    repository = tmp_path / "hub" / "models--me--adapter"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for file in ("weights", MANIFEST):
        (directory / file).rename(repository / "blobs" / file)
        (snapshot / file).symlink_to(f"../../blobs/{file}")
    (snapshot / "link").symlink_to("../../blobs/weights")
    assert set(AdapterCheckpoint.load(snapshot, verify=True).manifest.files) == {"link", "weights"}
    (tmp_path / "secret").write_text("w")
    (snapshot / "link").unlink()
    (snapshot / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(CorruptArtifactError):
        AdapterCheckpoint.load(snapshot)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"weights": {"sha256": "0" * 63, "bytes": 1}}},
        {"files": {"weights": {"sha256": "G" * 64, "bytes": 1}}},
        {"files": {"weights": {"sha256": "0" * 64, "bytes": -1}}},
        {"files": {"weights": {"sha256": "0" * 64, "bytes": True}}},
        {"files": {"weights": {"sha256": "0" * 64, "bytes": 1.0}}},
        {"files": {"weights": {"sha256": None, "bytes": 1}}},
        {"files": {"weights": 1}},
        {"kind": ["adapter"]},
        {"version": [1]},
        {"version": "1"},
        {"provenance": None},
    ],
)
def test_invalid_fields_of_a_manifest_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    directory = artifact(tmp_path / "a")
    content = json.loads((directory / MANIFEST).read_text())
    (directory / MANIFEST).write_text(json.dumps(content | changes))
    with pytest.raises(CorruptArtifactError, match=r"manifest\.json"):
        AdapterCheckpoint.load(directory)


@pytest.mark.parametrize("provenance", [{}, {"base_model": "x"}, {"base_model": {"name": 3}}, {"base_model": None}])
def test_missing_provenance_is_an_error_when_it_is_used(tmp_path: Path, provenance: dict[str, Any]) -> None:
    (tmp_path / "weights").write_text("w")
    write_manifest(tmp_path, "adapter", provenance)
    adapter = AdapterCheckpoint.load(tmp_path)
    for get in (lambda: adapter.base_model, lambda: adapter.base_model_path, lambda: adapter.prompt_fingerprint):
        with pytest.raises(CorruptArtifactError, match=r"manifest\.json .*(base_model|prompt_fingerprint)"):
            get()


def test_a_manifest_may_contain_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("w")
    write_manifest(tmp_path, "adapter", {"run": {"loss": float("inf")}})
    assert AdapterCheckpoint.load(tmp_path).manifest.provenance == {"run": {"loss": float("inf")}}
