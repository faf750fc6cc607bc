"""Repairs fix mechanical findings once, keep every bit of the weights, and change nothing else."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_fakes import CHATML, TENSORS, old_dialect, safetensors, write_checkpoint, write_merged
from sqlquarry.bedrock.preflight import preflight, repair, reshard, tensors
from sqlquarry.checkpoints.safetensors_header import INDEX, read_header
from sqlquarry.errors import BedrockError, ConfigError

ONE = "model.safetensors"


def _snapshot(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def _weights(directory: Path) -> dict[str, bytes]:
    """Return the bytes of every tensor as a server reads them."""
    found = {}
    for path in directory.glob("*.safetensors"):
        content = path.read_bytes()
        for name, tensor in read_header(path).tensors.items():
            found[name] = content[tensor.start : tensor.end]
    return found


def _random_weights(directory: Path) -> None:
    for path in directory.glob("*.safetensors"):
        content = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(content[:8], "little")
        content[start:] = random.Random(path.name).randbytes(len(content) - start)
        path.write_bytes(content)


def test_a_checkpoint_of_transformers_5_is_repaired_in_place(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, files={"README.md": "words", "notes/x.txt": "more"})
    before = _snapshot(tmp_path)
    done = repair(tmp_path)
    assert sorted(item.where for item in done) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
    ]
    after = _snapshot(tmp_path)
    assert preflight(tmp_path).findings == ()
    assert json.loads(after["tokenizer_config.json"])["chat_template"] == CHATML
    assert "chat_template.jinja" not in after
    touched = {item.where for item in done}
    assert {n: c for n, c in after.items() if n not in touched} == {n: before[n] for n in after if n not in touched}
    assert repair(tmp_path) == []
    assert _snapshot(tmp_path) == after


def test_correct_files_are_not_changed(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, **old_dialect())
    before = _snapshot(tmp_path)
    assert repair(tmp_path) == []
    assert _snapshot(tmp_path) == before


def test_a_new_directory_gets_only_the_files_of_an_import(tmp_path: Path) -> None:
    debris = {"optimizer.pt": b"x", "README.md": "words", "checkpoint-1/model.safetensors": b"x", "vocab.json": {}}
    source = write_checkpoint(tmp_path / "in", files=debris)
    _random_weights(source)
    before = _snapshot(source)
    repair(source, output_dir=tmp_path / "out")
    assert _snapshot(source) == before
    assert sorted(_snapshot(tmp_path / "out")) == [
        "config.json",
        "generation_config.json",
        ONE,
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ]
    assert preflight(tmp_path / "out").findings == ()
    assert _weights(tmp_path / "out") == _weights(source)
    assert [path.name for path in tmp_path.iterdir()] in (["in", "out"], ["out", "in"])
    with pytest.raises(ConfigError, match=f"{re.escape(str(tmp_path / 'out'))} .*output_dir="):
        repair(source, output_dir=tmp_path / "out")


def test_torch_dtype_is_set_to_the_dtype_of_the_weights(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, config={"dtype": "float32"})
    repair(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert preflight(tmp_path).findings == ()


def test_a_missing_index_is_written(tmp_path: Path) -> None:
    names = list(TENSORS)
    halves = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    write_checkpoint(tmp_path, shards={shard: {n: TENSORS[n] for n in held} for shard, held in halves.items()})
    assert not preflight(tmp_path).ok
    repair(tmp_path)
    assert preflight(tmp_path).findings == ()
    assert repair(tmp_path) == []


@pytest.mark.parametrize("in_place", [True, False])
def test_large_shards_are_divided_and_every_bit_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    monkeypatch.setattr(tensors, "MAX_SHARD_BYTES", 1200)
    source = write_checkpoint(tmp_path / "in")
    _random_weights(source)
    before = _weights(source)
    assert "shard-size" in {finding.code for finding in preflight(source).findings}
    target = source if in_place else tmp_path / "out"
    options: dict[str, Any] = {} if in_place else {"output_dir": target}
    done = repair(source, max_shard_bytes=1200, **options)
    assert INDEX in {item.where for item in done}
    assert (target / ONE).exists() is False
    assert (source / ONE).exists() is not in_place
    assert _weights(target) == before
    assert all(path.stat().st_size <= 1200 for path in target.glob("*.safetensors"))
    assert preflight(target).findings == ()
    if in_place:
        assert repair(target, max_shard_bytes=1200) == []


def test_a_tensor_larger_than_a_shard_gets_its_own_shard(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    repair(tmp_path, max_shard_bytes=1)
    assert len(list(tmp_path.glob("*.safetensors"))) == len(TENSORS)
    assert repair(tmp_path, max_shard_bytes=1) == []


@pytest.mark.parametrize("killed_at", ["second shard", "index", "removal"])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_killed_repair_is_finished_by_running_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: str, indexed: bool
) -> None:
    index = dict.fromkeys(TENSORS, ONE) if indexed else None
    write_checkpoint(tmp_path, index=index)
    _random_weights(tmp_path)
    before = _weights(tmp_path)
    written: list[Path] = []
    # A kill between two shards can only be simulated at the function that writes one.
    write, write_index, unlink = reshard._write_shard, reshard.write_json, Path.unlink

    def kill(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def stop_at_the_second(path: Path, *args: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *args)

    def stop_at_removal(path: Path, **options: Any) -> None:
        if path.name == ONE:
            raise KeyboardInterrupt
        unlink(path, **options)

    with monkeypatch.context() as patched:
        if killed_at == "second shard":
            patched.setattr(reshard, "_write_shard", stop_at_the_second)
        elif killed_at == "index":
            patched.setattr(reshard, "write_json", kill)
        else:
            patched.setattr(Path, "unlink", stop_at_removal)
        with pytest.raises(KeyboardInterrupt):
            repair(tmp_path, max_shard_bytes=700)
    assert reshard.write_json is write_index
    repair(tmp_path, max_shard_bytes=700)
    assert _weights(tmp_path) == before
    assert preflight(tmp_path).findings == ()
    assert not (tmp_path / ONE).exists()
    assert repair(tmp_path, max_shard_bytes=700) == []


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, **old_dialect())
    before = _snapshot(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(BedrockError, match=f"{re.escape(str(tmp_path))} .* GB .*output_dir=") as caught:
        repair(tmp_path, max_shard_bytes=700)
    assert caught.value.__cause__ is None  # found before a write failed
    assert _snapshot(tmp_path) == before


def test_a_finished_merged_model_is_not_changed_in_place(tmp_path: Path) -> None:
    merged = write_merged(tmp_path / "merged")
    before = _snapshot(merged.path)
    with pytest.raises(ConfigError, match=f"{re.escape(str(merged.path))} .*manifest.*import_model.*output_dir="):
        repair(merged.path)
    assert _snapshot(merged.path) == before
    repair(merged.path, output_dir=tmp_path / "out")
    assert preflight(tmp_path / "out").findings == ()
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_unreadable_checkpoint_is_not_repaired(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / ONE).write_bytes(safetensors(TENSORS)[:-1])
    with pytest.raises(BedrockError, match=rf"\[weights\] {ONE}"):
        repair(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "none"))):
        repair(tmp_path / "none")


checkpoints = st.fixed_dictionaries(
    {
        "config": st.fixed_dictionaries(
            {},
            optional={
                "dtype": st.sampled_from(["bfloat16", "float16", None]),
                "torch_dtype": st.sampled_from(["bfloat16", "float32"]),
                "rope_theta": st.sampled_from([10000.0, 1e6]),
                "rope_parameters": st.sampled_from([None, {"rope_type": "default", "rope_theta": 1e6}]),
                "eos_token_id": st.sampled_from([1, 2, [2, 5], None]),
            },
        ),
        "tokenizer_config": st.fixed_dictionaries(
            {},
            optional={
                "tokenizer_class": st.sampled_from(["TokenizersBackend", "LlamaTokenizer", None]),
                "extra_special_tokens": st.sampled_from([[], ["<|extra|>"], {}]),
                "chat_template": st.sampled_from([CHATML, [{"name": "default", "template": CHATML}], "{{ x"]),
            },
        ),
        "template": st.sampled_from([None, CHATML, CHATML.replace("eos_token", "'<|extra|>'")]),
        "files": st.fixed_dictionaries(
            {},
            optional={
                "chat_template.json": st.just({"chat_template": CHATML}),
                "generation_config.json": st.sampled_from([{}, {"eos_token_id": 1}]),
                "special_tokens_map.json": st.just({"extra_special_tokens": ["<|extra|>"]}),
            },
        ),
    }
)


@settings(max_examples=40)
@given(checkpoints, st.sampled_from([500, 900, 10_000]))
def test_a_repaired_checkpoint_has_no_repairable_findings(
    tmp_path_factory: pytest.TempPathFactory, arguments: dict[str, Any], shard_bytes: int
) -> None:
    directory = write_checkpoint(tmp_path_factory.mktemp("x"), **arguments)
    before = _weights(directory)
    repair(directory, max_shard_bytes=shard_bytes)
    once = _snapshot(directory)
    assert [finding for finding in preflight(directory).findings if finding.repairable] == []
    assert _weights(directory) == before
    assert repair(directory, max_shard_bytes=shard_bytes) == []
    assert _snapshot(directory) == once
    assert (INDEX in once) == (ONE not in once)
