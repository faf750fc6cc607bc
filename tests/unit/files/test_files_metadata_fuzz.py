"""Test every reader of untrusted files with damaged and hostile files. It must return or raise a typed error in time.

For a longer run: pytest tests/unit/files/test_files_metadata_fuzz.py --hypothesis-profile=long
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqlquarry import AdapterCheckpoint, MergedModel, PromptFormatter, Report, load_records
from sqlquarry.bedrock.preflight import preflight, repair
from sqlquarry.emulator.bedrock.admission import ImportFailedError, admit
from sqlquarry.errors import SQLQuarryError
from sqlquarry.judging.journal import Journal
from sqlquarry.judging.synthesis import suite_files
from sqlquarry.manifests import MANIFEST, base_digest, write_manifest
from sqlquarry.merging.base_checkpoint import BaseCheckpoint
from sqlquarry.merging.carried_files import CarriedFiles
from sqlquarry.merging.lora_adapter import LoraAdapter
from sqlquarry.merging.output import MergeOutput
from sqlquarry.merging.storage.local import LocalDirectory
from sqlquarry.merging.tensor_file import TensorFile
from sqlquarry.merging.trained_adapters import TrainedAdapters
from sqlquarry.models.foundation.answers import read_answer
from sqlquarry.models.foundation.requests import PromptRequest, RequestStyle
from sqlquarry.models.imported.answers import parse_answer, parse_chunk
from sqlquarry.prompt import HUMAN_ASSISTANT, BoundTokens
from sqlquarry.training.base.base_model import check_base_model
from sqlquarry.training.base.shape import ModelShape

_CPU_S = 6.0
fuzz = settings(
    max_examples=settings.default.max_examples // 2,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
DEEP = "nested 3000 levels deep"  # `encoded` replaces this text by such a value
names = st.sampled_from(["../x", "/etc/hostname", "a/b", "..", "", "a\0b", "\ud800", "model.safetensors", DEEP])
numbers = st.integers(-3, 300) | st.floats() | st.sampled_from([2**31, 2**63, -(2**63), 10**40, 10**120])
any_json = st.recursive(
    st.none() | st.booleans() | numbers | names | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(names | st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """Replace, remove or add parts of a value."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        value = _change(draw, value)
    return value


def _change(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict | list) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(list(value) if isinstance(value, dict) else list(range(len(value)))))
        if draw(st.integers(0, 7)):
            value[key] = _change(draw, value[key])
        else:
            del value[key]
        return value
    if isinstance(value, dict) and draw(st.booleans()):
        return value | {draw(names | st.text(max_size=5)): draw(any_json)}
    return draw(any_json)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode().replace(json.dumps(DEEP).encode(), b"[" * 3000 + b"]" * 3000)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Replace some bytes, and perhaps cut off the end."""
    new = bytearray(content)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(new)))
        new[place : place + draw(st.integers(0, 4))] = draw(
            st.binary(max_size=4) | st.sampled_from([b"[" * 3000, b"9" * 5000])
        )
    return bytes(new[: draw(st.just(len(new)) | st.integers(0, len(new)))])


def files(draw: Callable[[st.SearchStrategy[Any]], Any], directory: Path, contents: dict[str, Any]) -> None:
    """Write JSON files, one of them changed or damaged. Contents that are bytes are written as such."""
    bad = draw(st.sampled_from(sorted(contents)))
    for name, content in contents.items():
        if isinstance(content, bytes):
            raw = draw(damaged(content)) if name == bad else content
        elif name == bad:
            raw = draw(st.builds(encoded, changed(content)) | damaged(encoded(content)))
        else:
            raw = encoded(content)
        (directory / name).write_bytes(raw)


def holds(call: Callable[[], object], *also: type[Exception]) -> None:
    """Check that a call ends soon, with a result or a typed error."""
    started, message = time.process_time(), "a result"
    try:
        call()
    except (SQLQuarryError, *also) as error:
        message = str(error)
    assert time.process_time() - started < _CPU_S
    assert 0 < len(message) < 20_000


# ---------------------------------------------------------------------------------------------------------- models

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "dtype": "bfloat16",
    "eos_token_id": 2,
    "hidden_size": 4,
    "intermediate_size": 8,
    "max_position_embeddings": 64,
    "model_type": "llama",
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_key_value_heads": 1,
    "rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0},
    "tie_word_embeddings": True,
    "vocab_size": 6,
}
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [{"id": 2, "content": "</s>", "special": True}],
    "model": {"type": "BPE", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3}, "merges": []},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}]},
}
TOKENIZER_CONFIG = {
    "bos_token": "<s>",
    "eos_token": {"content": "</s>"},
    "backend": "tokenizers",
    "extra_special_tokens": ["<x>"],
    "tokenizer_class": "PreTrainedTokenizerFast",
    "chat_template": [{"name": "default", "template": "{{ messages[0]['content'] }}{{ eos_token }}"}],
}
LAYER = {
    **{f"self_attn.{name}_proj": [4, 4] for name in "qo"},
    **{f"self_attn.{name}_proj": [2, 4] for name in "kv"},
    "mlp.gate_proj": [8, 4],
    "mlp.up_proj": [8, 4],
    "mlp.down_proj": [4, 8],
    "input_layernorm": [4],
    "post_attention_layernorm": [4],
}
SHAPES = {"model.embed_tokens.weight": [6, 4], "model.norm.weight": [4]}
SHAPES |= {f"model.layers.0.{name}.weight": shape for name, shape in LAYER.items()}
INDEX = "model.safetensors.index.json"


def header(shapes: dict[str, list[int]]) -> dict[str, Any]:
    content: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        content[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    return content


def packed(fields: bytes, body: int) -> bytes:
    return struct.pack("<Q", len(fields)) + fields + bytes(body)


def weights(shapes: dict[str, list[int]]) -> bytes:
    return packed(encoded(header(shapes)), sum(2 * math.prod(shape) for shape in shapes.values()))


def model(draw: Callable[[st.SearchStrategy[Any]], Any], directory: Path) -> Path:
    contents: dict[str, Any] = {
        "config.json": CONFIG,
        "tokenizer_config.json": TOKENIZER_CONFIG,
        "tokenizer.json": TOKENIZER,
        "generation_config.json": {"eos_token_id": [2]},
        "special_tokens_map.json": {"eos_token": {"content": "</s>"}},
        "chat_template.json": {"chat_template": "{{ messages[0]['content'] }}"},
        "model.safetensors": weights(SHAPES),
        INDEX: {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(SHAPES, "model.safetensors")},
    }
    files(draw, directory, contents)
    return directory


@fuzz
@given(st.data())
def test_a_base_model(tmp_path: Path, data: st.DataObject) -> None:
    directory = model(data.draw, tmp_path)
    holds(lambda: check_base_model(directory))
    holds(lambda: ModelShape.read(directory).adapter_parameters("all-linear", 8))
    holds(lambda: BaseCheckpoint.open(LocalDirectory(directory)).tied)
    holds(lambda: CarriedFiles(LocalDirectory(directory), {}).tokenizer()("a"))


@fuzz
@given(st.data())
def test_a_model_to_import(tmp_path: Path, data: st.DataObject) -> None:
    directory = model(data.draw, tmp_path)
    holds(lambda: preflight(directory).ok)
    shutil.rmtree(directory / "repaired", ignore_errors=True)
    holds(lambda: repair(directory, output_dir=directory / "repaired"))
    holds(lambda: admit(directory), ImportFailedError)


@fuzz
@given(st.data())
def test_the_header_of_weights(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "model.safetensors"
    fields, body = header(SHAPES), sum(2 * math.prod(shape) for shape in SHAPES.values())
    raw = data.draw(changed(fields).map(lambda new: packed(encoded(new), body)) | damaged(weights(SHAPES)))
    path.write_bytes(raw)
    holds(lambda: TensorFile.open(path))


# ------------------------------------------------------------------------------------------------------- artifacts

FORMATTER = PromptFormatter(tokens=BoundTokens(HUMAN_ASSISTANT, "<s>", "</s>", adds_bos=True, stop="</s>"))
Q = "model.layers.0.self_attn.q_proj"
ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "alpha_pattern": {"q_proj": 4}, "target_parameters": ["x"]}
ADAPTER |= {"trainable_token_indices": {"embed_tokens": [1]}, "use_rslora": True, "init_lora_weights": True}
FACTORS = {f"base_model.model.{Q}.lora_A.weight": [2, 4], f"base_model.model.{Q}.lora_B.weight": [4, 2]}
RECIPE = {"quant_type": "nf4", "modules": [Q], "offsets": [0.1]}


def whole_model(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_bytes(encoded(CONFIG))
    (directory / "model.safetensors").write_bytes(weights(SHAPES))
    return directory


@fuzz
@given(st.data())
def test_an_adapter(tmp_path: Path, data: st.DataObject) -> None:
    base, directory = whole_model(tmp_path / "base"), tmp_path / "adapter"
    directory.mkdir(exist_ok=True)
    contents = {"adapter_config.json": ADAPTER, "adapter_model.safetensors": weights(FACTORS)}
    files(data.draw, directory, contents)
    targets = BaseCheckpoint.open(LocalDirectory(base)).tensors
    holds(lambda: LoraAdapter.open(directory).changes(targets))


@fuzz
@given(st.data())
def test_the_manifest_of_an_adapter(tmp_path: Path, data: st.DataObject) -> None:
    base, directory = whole_model(tmp_path / "base"), tmp_path / "adapter"
    directory.mkdir(exist_ok=True)
    FORMATTER.save(directory)
    origin = {"base_model": {"name": "x/y", "path": str(base), "sha256": base_digest(base)}, "quantization": RECIPE}
    write_manifest(directory, AdapterCheckpoint.kind, origin | {"prompt_fingerprint": FORMATTER.fingerprint})
    files(data.draw, directory, {MANIFEST: json.loads((directory / MANIFEST).read_text())})

    def use() -> None:
        adapter = AdapterCheckpoint.load(directory, verify=True)
        TrainedAdapters.open(adapter)
        assert adapter.base_model
        assert adapter.prompt_fingerprint

    holds(use)


@fuzz
@given(st.data(), st.booleans())
def test_an_existing_merge(tmp_path: Path, data: st.DataObject, finished: bool) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / "model.safetensors").write_bytes(b"w")
    if finished:
        write_manifest(tmp_path, MergedModel.kind, {"merge": {"dtype": None}})
        files(data.draw, tmp_path, {MANIFEST: json.loads((tmp_path / MANIFEST).read_text())})
        holds(lambda: MergedModel.load(tmp_path))
        holds(lambda: preflight(tmp_path).ok)
    else:
        receipt = {"sha256": "0" * 64, "source_sha256": None, "relative_updates": {"a": 0.5}}
        files(
            data.draw, tmp_path, {".merge.json": {"inputs": {"dtype": None}, "shards": {"model.safetensors": receipt}}}
        )
    holds(lambda: MergeOutput(LocalDirectory(tmp_path), tmp_path).finished({"dtype": None}))


@fuzz
@given(st.data())
def test_a_prompt(tmp_path: Path, data: st.DataObject) -> None:
    FORMATTER.save(tmp_path)
    path = tmp_path / "prompt.json"
    files(data.draw, tmp_path, {"prompt.json": json.loads(path.read_text())})
    try:  # add a matching fingerprint, which anybody can compute
        fields = json.loads(path.read_text())
        canonical = json.dumps({key: fields[key] for key in fields if key != "fingerprint"}, sort_keys=True)
        fields["fingerprint"] = hashlib.sha256(canonical.encode()).hexdigest()[:16]
        path.write_text(json.dumps(fields))
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    holds(lambda: PromptFormatter.load(tmp_path).chat_template)


# ------------------------------------------------------------------------------------- reports, journals and records

ROW = {"question": "q", "schema": "CREATE TABLE t (a)", "sql": "SELECT 1", "alternatives": ["SELECT 2"], "id": "r"}
REPORT = {
    "version": 3,
    "graders": ["execution"],
    "entries": [
        {
            "record": ROW | {"database": None, "dialect": "sqlite"},
            "answer": "SELECT 1",
            "sql": "SELECT 1",
            "truncated": False,
            "judgements": [{"grader": "execution", "verdict": "correct", "reason": "", "details": {"rows": [[1]]}}],
        }
    ],
    "info": {"duration_s": 1.5, "cost_usd": 0.0, "stopped": "", "records_left": 0},
}


@fuzz
@given(st.data())
def test_a_report(tmp_path: Path, data: st.DataObject) -> None:
    files(data.draw, tmp_path, {"report.json": REPORT})
    holds(lambda: str(Report.from_json(tmp_path / "report.json")))
    holds(lambda: Report.from_json(tmp_path / "report.json").to_json(tmp_path / "copy.json"))


@fuzz
@given(st.data())
def test_a_journal(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "journal.jsonl"
    files(data.draw, tmp_path, {path.name: {"key": "k", "value": {"verdict": "correct"}}})
    path.write_bytes(path.read_bytes() + b"\n")
    holds(lambda: Journal(path).get("k"))


@fuzz
@given(st.data())
def test_a_suite(tmp_path: Path, data: st.DataObject) -> None:
    (tmp_path / "0.sqlite").write_bytes(b"x")
    suite = {"databases": [hashlib.sha256(b"x").hexdigest()], "killed": 1, "survivors": ["SELECT 1"]}
    files(data.draw, tmp_path, {"suite.json": suite})
    holds(lambda: suite_files.load(tmp_path))


@fuzz
@given(st.data(), st.sampled_from([".json", ".jsonl", ".csv"]))
def test_records(tmp_path: Path, data: st.DataObject, suffix: str) -> None:
    name = f"records{suffix}"
    content: Any = b'question,schema,sql,alternatives\nq,s,x,"[""y""]"\n' if suffix == ".csv" else ROW
    files(data.draw, tmp_path, {name: [content] if suffix == ".json" else content})
    holds(lambda: load_records(tmp_path / name))


# -------------------------------------------------------------------------------------------------- answers from AWS

ANSWERS = [
    {"generation": "x", "stop_reason": "stop", "prompt_token_count": 1, "generation_token_count": 1},
    {
        "choices": [{"text": "x", "finish_reason": "stop", "logprobs": {"token_logprobs": [-0.5]}}],
        "usage": {"prompt_tokens": 1},
    },
    {"choices": [{"message": {"content": "x"}, "delta": {"content": "y"}}], "logprobs": [{"5": -0.5}]},
]
CONVERSE = {
    "output": {"message": {"content": [{"text": "x"}, {"toolUse": {"input": {"a": 1}}}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 1, "outputTokens": 2, "cacheReadInputTokens": 3},
}


@fuzz
@given(st.sampled_from(ANSWERS).flatmap(lambda answer: st.builds(encoded, changed(answer)) | damaged(encoded(answer))))
def test_an_answer_of_an_imported_model(body: bytes) -> None:
    holds(lambda: parse_answer(body))
    holds(lambda: parse_chunk(body))


@fuzz
@given(changed(CONVERSE).filter(lambda answer: isinstance(answer, dict)), st.sampled_from([None, {"type": "object"}]))
def test_an_answer_of_a_foundation_model(answer: dict[str, Any], schema: dict[str, Any] | None) -> None:
    request = PromptRequest((("user", "q"),), schema=schema)
    holds(lambda: read_answer(answer, request, RequestStyle(10), "model"))
