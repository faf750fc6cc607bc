"""Invalid base models, jobs and checkpoints from others are typed errors before anything expensive starts."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqlquarry.errors import ConfigError, SQLQuarryError, UnsupportedModelError
from sqlquarry.training.base.base_model import check_base_model, resolve_base_model
from sqlquarry.training.base.gguf_file import check_gguf
from sqlquarry.training.base.shape import ModelShape
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.job import TrainingJobSpec
from sqlquarry.training.steps.checkpoint import Checkpoints
from training_bases import save_base

CONFIG = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 4}
NOT_A_SIZE = [-1, 0, True, 1.0, 8.5, float("nan"), float("inf"), "8", [8], {}, 10**40]


@pytest.mark.parametrize("key", CONFIG)
@pytest.mark.parametrize("value", [*NOT_A_SIZE, None])
def test_sizes_are_whole_numbers_in_range(key: str, value: object) -> None:
    assert ModelShape.of(CONFIG, {}).hidden == 8
    with pytest.raises(UnsupportedModelError, match=key):
        ModelShape.of(CONFIG | {key: value}, {})


@pytest.mark.parametrize("key", ["head_dim", "num_key_value_heads", "num_local_experts", "num_experts"])
@pytest.mark.parametrize("value", [v for v in NOT_A_SIZE if v != 0])
def test_optional_sizes_are_whole_numbers_too(key: str, value: object) -> None:
    assert ModelShape.of(CONFIG | {key: None}, {}) == ModelShape.of(CONFIG, {})
    with pytest.raises(UnsupportedModelError, match=key):
        ModelShape.of(CONFIG | {key: value}, {})


@pytest.mark.parametrize(
    "changes", [{"num_hidden_layers": 10**8}, {"num_attention_heads": 9}, {"num_hidden_layers": 10_001}]
)
def test_absurd_sizes_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(UnsupportedModelError):
        ModelShape.of(CONFIG | changes, {})


def test_more_active_experts_than_experts_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="3 of 2"):
        ModelShape.of(CONFIG | {"num_experts": 2, "num_experts_per_tok": 3, "moe_intermediate_size": 4}, {})


@pytest.mark.parametrize("shape", [(-1, 2), (2.0, 2), (True, 2), (float("inf"), 1), (10**30, 1), ("2", 2)])
def test_invalid_shapes_of_tensors_are_refused(shape: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=r"model\.layers\.0"):
        ModelShape.of(CONFIG, {"model.layers.0.q.weight": ("F32", shape)})


def base(directory: Path, **files: bytes | str) -> Path:
    directory.mkdir()
    contents: dict[str, bytes | str] = {
        "config.json": json.dumps(CONFIG | {"architectures": ["LlamaForCausalLM"]}),
        "tokenizer_config.json": "{}",
        "model.safetensors": struct.pack("<Q", 2) + b"{}",
    }
    for name, content in (contents | files).items():
        (directory / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return directory


@pytest.mark.parametrize(
    "config", ["[" * 100_000, "[]", "{", '{"architectures": {"0": "LlamaForCausalLM"}}', "null", "\ufeff{}"]
)
def test_a_config_that_is_not_a_valid_object_is_refused(tmp_path: Path, config: str) -> None:
    directory = base(tmp_path / "base", **{"config.json": config})
    for read in (check_base_model, ModelShape.read):
        with pytest.raises(UnsupportedModelError):
            read(directory)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/hostname", "sub/model.safetensors", 3])
def test_an_index_cannot_name_a_file_outside_the_folder(tmp_path: Path, shard: object) -> None:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    index = json.dumps({"weight_map": {"a": shard}})
    directory = base(tmp_path / "base", **{"model.safetensors.index.json": index})
    (directory / "model.safetensors").rename(directory / "other.safetensors")
    for read in (check_base_model, ModelShape.read):
        with pytest.raises(UnsupportedModelError, match="index"):
            read(directory)


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle ran",))


def test_pickled_weights_are_not_a_base(tmp_path: Path) -> None:
    directory = save_base(tmp_path / "base")
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Exploit()))
    (directory / "model.safetensors").rename(directory / "consolidated.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"model\.safetensors"):
        check_base_model(directory)


def test_a_checkpoint_that_is_not_safetensors_is_skipped(tmp_path: Path) -> None:
    import hashlib

    content = pickle.dumps(Exploit())
    name = f"step-00000001-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    (tmp_path / name).write_bytes(content)
    assert Checkpoints(tmp_path).latest() is None


# ------------------------------------------------------------------------------------------------------------ GGUF


def write_gguf(path: Path) -> bytes:
    import numpy as np

    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_token_list(["a", "b", "été"])
    writer.add_token_scores([0.0, 1.0, 2.0])
    writer.add_tensor("token_embd.weight", np.zeros((3, 8), dtype=np.float32))
    for layer in range(2):
        for name, shape in (("attn_q", (8, 8)), ("ffn_up", (16, 8))):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.zeros(shape, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf")


def test_a_valid_gguf_file_is_accepted(tmp_path: Path, gguf: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf)
    check_gguf(tmp_path / "m.gguf")


def pairs(*fields: bytes, tensors: bytes = b"", count: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, count, len(fields)) + b"".join(fields) + tensors + bytes(64)


def field(key: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


HUGE = struct.pack("<Q", 2**60)
BLOCKS = field(b"llama.block_count", 4, struct.pack("<I", 10**8))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"GGML" + bytes(60), id="magic"),
        pytest.param(b"GGUF" + struct.pack("<IQQ", 9, 0, 0), id="version"),
        pytest.param(b"GGUF" + struct.pack(">IQQ", 3, 0, 0), id="big-endian"),
        pytest.param(b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), id="too many tensors"),
        pytest.param(b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), id="too many pairs"),
        pytest.param(pairs(field(b"a", 8, HUGE)), id="a text that is longer than the file"),
        pytest.param(pairs(field(b"a", 9, struct.pack("<I", 4) + HUGE)), id="an array that is longer than the file"),
        pytest.param(pairs(field(b"a", 9, struct.pack("<IQ", 9, 1) * 40)), id="arrays of arrays"),
        pytest.param(pairs(field(b"a", 77, b"")), id="a type that does not exist"),
        pytest.param(pairs(field(b"a", 7, b"\1"), field(b"a", 7, b"\1")), id="a key twice"),
        pytest.param(pairs(field(b"\xff", 7, b"\1")), id="a key that is not UTF-8"),
        pytest.param(pairs(field(b"general.alignment", 4, struct.pack("<I", 0))), id="alignment"),
        pytest.param(pairs(BLOCKS), id="more layers than the file can contain"),
        pytest.param(pickle.dumps(Exploit()), id="a pickle"),
    ],
)
def test_an_invalid_gguf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=r"m\.gguf"):
        resolve_base_model(path, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


def test_an_error_of_the_converter_is_a_typed_error(tmp_path: Path, gguf: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf)  # valid, but without most of a Llama's tensors and fields
    check_gguf(path)
    with pytest.raises(UnsupportedModelError, match=r"m\.gguf"):
        resolve_base_model(path, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


@settings(max_examples=settings.default.max_examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_gguf_file_is_refused_or_readable(tmp_path: Path, gguf: bytes, data: st.DataObject) -> None:
    content = bytearray(gguf)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + 1] = data.draw(st.sampled_from([b"", b"\xff", b"\0", HUGE]) | st.binary(max_size=9))
    content = content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    try:
        check_gguf(path)
    except UnsupportedModelError:
        return
    try:
        GGUFReader(path)  # returns at once, even if it refuses the values
    except (ValueError, KeyError, IndexError, OverflowError):
        return


# ------------------------------------------------------------------------------------------------------------ jobs


def job(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_job_is_read(tmp_path: Path) -> None:
    text = "base_model: b\ntrain: t.jsonl\noutput_dir: o\nconfig:\n  lora_r: 8\n  target_modules: [q_proj]\n"
    read = TrainingJobSpec.read(job(tmp_path / "job.yaml", text))
    config = TrainingConfig(lora_r=8, target_modules=["q_proj"])
    assert read == TrainingJobSpec(base_model="b", train="t.jsonl", output_dir="o", config=config)
    assert (read.config.lora_r, read.config.target_modules) == (8, ("q_proj",))
    read.write(tmp_path / "job.json")
    assert TrainingJobSpec.read(tmp_path / "job.json") == read


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
GOOD = "base_model: b\ntrain: t\noutput_dir: o\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BOMB, id="aliases of aliases"),
        pytest.param("a: &a [*a]", id="an alias of itself"),
        pytest.param(GOOD + "config: " + "[" * 60_000, id="too deep"),
        pytest.param(GOOD + "config: " + "[" * 5000 + "]" * 5000, id="too deep, closed"),
        pytest.param(GOOD + "config:\n" + "".join(" " * i + "a:\n" for i in range(1, 200)), id="too deep, in blocks"),
        pytest.param("# " + "x" * 70_000, id="too long"),
        pytest.param("!!python/object/apply:os.system [echo]", id="a Python object"),
        pytest.param("a: !!python/name:os.system", id="a Python name"),
        pytest.param(GOOD + "config: [1, 2]", id="a list"),
        pytest.param(GOOD + "config: text", id="a text"),
        pytest.param(GOOD + "config: {lora_r: x}", id="a value of the wrong type"),
        pytest.param(GOOD + "config: {1: 2}", id="a key of the wrong type"),
        pytest.param(GOOD + "config: {? [a] : 2}", id="a list as a key"),
        pytest.param("base_model: [b]\ntrain: t\noutput_dir: o", id="a list as a path"),
        pytest.param(GOOD + "1: 2", id="a number as a key"),
        pytest.param("- a", id="a list of things"),
        pytest.param("a: \x00", id="NUL"),
        pytest.param("a: 2001-99-99", id="a date that does not exist"),
        pytest.param("a: !!binary x", id="binary that is not base64"),
        pytest.param("a: !!int x", id="a number without digits"),
        pytest.param("a: " + "9" * 50_000, id="a number with too many digits"),
        pytest.param("%YAML 9.9\n--- a", id="another version"),
    ],
)
def test_an_invalid_job_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"job\.yaml"):
        TrainingJobSpec.read(job(tmp_path / "job.yaml", text))


@settings(max_examples=settings.default.max_examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text("ab:-[]{}&*!?|>'\"%@#, \n0", max_size=60)
    | st.builds(
        lambda start, text, end: start + text + end, st.just(GOOD + "config: "), st.text(max_size=20), st.just("\n")
    )
)
def test_any_text_is_a_job_or_a_typed_error(tmp_path: Path, text: str) -> None:
    try:
        TrainingJobSpec.read(job(tmp_path / "job.yaml", text.encode("utf-8", "replace").decode()))
    except SQLQuarryError:
        return
