"""Preflight of an S3 prefix (moto) finds every defect with few requests and without downloading weights."""

from __future__ import annotations

import functools
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from sqlquarry.bedrock.preflight import PreflightReport, preflight, repair
from sqlquarry.checkpoints.tensor_shapes import expected_tensors
from sqlquarry.errors import BedrockError, ConfigError

BUCKET = "models"


class Traffic:
    """The requests to S3 and the bytes that it returned."""

    requests: list[str]
    bytes: int

    def count(self, parsed: dict[str, Any]) -> None:
        self.bytes += int(parsed.get("ContentLength", 0))


TRAFFIC = Traffic()


@functools.cache
def _session() -> Any:
    # All tests share a session, because it parses the services' models only once.
    session = boto3.session.Session("testing", "testing", region_name="us-east-1")
    events = session._session.get_component("event_emitter")  # boto3 has no public way to register for all clients
    events.register("before-send.s3", lambda request, **_: TRAFFIC.requests.append(request.method))
    events.register("after-call.s3", lambda parsed, **_: TRAFFIC.count(parsed))
    return session


class Prefix:
    """A prefix in moto's S3."""

    def __init__(self) -> None:
        TRAFFIC.requests, TRAFFIC.bytes = [], 0
        self.session = _session()
        self.s3 = self.session.client("s3")
        self.s3.create_bucket(Bucket=BUCKET)

    def put(self, directory: Path, prefix: str = "a/model/") -> str:
        for path in sorted(path for path in directory.iterdir() if path.is_file()):
            self.s3.put_object(Bucket=BUCKET, Key=prefix + path.name, Body=path.read_bytes())
        return f"s3://{BUCKET}/{prefix}"

    def etags(self, prefix: str = "a/model/") -> dict[str, str]:
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
        return {item["Key"].removeprefix(prefix): item["ETag"] for item in found}

    def check(self, uri: str, **options: Any) -> PreflightReport:
        """Run preflight without account checks, because moto lacks some of their services."""
        TRAFFIC.requests, TRAFFIC.bytes = [], 0
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("sqlquarry.bedrock.preflight.run.check_account", lambda *_, **__: [])
            return preflight(uri, account=True, session=self.session, **options)


@pytest.fixture
def world() -> Iterator[Prefix]:
    with mock_aws():
        yield Prefix()


CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "dtype": "bfloat16",
    "eos_token_id": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 32,
    "num_key_value_heads": 2,
    "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
    "tie_word_embeddings": False,
    "vocab_size": 512,
}
TEMPLATE = "{% for m in messages %}{{ '[' + m['content'] + ']' }}{% endfor %}{{ eos_token }}"
TOKENIZER = {
    "added_tokens": [{"id": 2, "content": "</s>", "special": True}],
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
}
SHARDS = [f"model-{number:05}-of-00004.safetensors" for number in range(1, 5)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a thin Llama with as many tensors as 8B, in four shards saved by transformers 5."""
    directory = tmp_path_factory.mktemp("tiny")
    shapes = expected_tensors("LlamaForCausalLM", CONFIG)
    assert shapes is not None
    index = {}
    for number, shard in enumerate(SHARDS):
        header, end = {}, 0
        for name in list(shapes)[number::4]:
            size = 2 * math.prod(shapes[name])
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [end, end + size]}
            end, index[name] = end + size, shard
        text = json.dumps(header).encode()
        (directory / shard).write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    for name, content in {
        "config.json": CONFIG,
        "model.safetensors.index.json": {"metadata": {}, "weight_map": index},
        "tokenizer.json": TOKENIZER,
        "tokenizer_config.json": {"eos_token": "</s>", "tokenizer_class": "TokenizersBackend"},
    }.items():
        (directory / name).write_text(json.dumps(content))
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return directory


@pytest.fixture(scope="module")
def saved(tiny: Path) -> Path:
    """Return the same model in the dialect of 4.51.3."""
    repair(tiny, output_dir=tiny / "saved")
    return tiny / "saved"


def codes(report: PreflightReport) -> list[str]:
    return [f"{finding.severity}:{finding.code}" for finding in report.findings]


def test_a_repaired_checkpoint_has_no_findings(world: Prefix, saved: Path) -> None:
    assert world.check(world.put(saved)).findings == ()
    assert world.check(world.put(saved, "other/").rstrip("/")).findings == ()


def test_the_new_dialect_of_a_foreign_prefix_is_an_error_that_repair_fixes(world: Prefix, tiny: Path) -> None:
    uri = world.put(tiny)
    report = world.check(uri)
    assert codes(report) == [
        "error:rope-parameters",
        "error:dtype-key",
        "error:tokenizer-class",
        "warning:chat-template",
    ]
    assert all(finding.repairable for finding in report.findings)
    before = {name: etag for name, etag in world.etags().items() if name.endswith(".safetensors")}
    TRAFFIC.bytes = 0
    done = {item.where for item in repair(Path(uri), session=world.session)}
    assert TRAFFIC.bytes < 4 * 2**18 + 100_000  # headers and small files
    assert {"config.json", "tokenizer_config.json", "chat_template.jinja"} <= done
    assert world.check(uri).findings == ()
    assert "chat_template.jinja" not in world.etags()
    assert before.items() <= world.etags().items()
    assert repair(uri, session=world.session) == []


def test_what_cannot_be_repaired_on_s3_is_refused_before_a_change(world: Prefix, tiny: Path, tmp_path: Path) -> None:
    uri = world.put(tiny)
    before = world.etags()
    with pytest.raises(BedrockError, match="max_shard_bytes"):
        repair(uri, session=world.session, max_shard_bytes=10_000)
    with pytest.raises(ConfigError):
        repair(uri, session=world.session, output_dir=tmp_path / "new")
    with pytest.raises(ConfigError):
        repair(tiny, output_dir=uri)
    with pytest.raises(BedrockError):
        repair(f"s3://{BUCKET}/none", session=world.session)
    world.s3.put_object(Bucket=BUCKET, Key="a/model/manifest.json", Body=b"{}")
    with pytest.raises(ConfigError, match="import_model"):
        repair(uri, session=world.session)
    assert before.items() <= world.etags().items()


def test_shards_without_an_index_get_one_on_s3(world: Prefix, saved: Path) -> None:
    uri = world.put(saved)
    world.s3.delete_object(Bucket=BUCKET, Key="a/model/model.safetensors.index.json")
    assert [item.where for item in repair(uri, session=world.session)] == ["model.safetensors.index.json"]
    assert world.check(uri).findings == ()


def test_four_shards_take_few_requests_and_no_weights(world: Prefix, saved: Path) -> None:
    uri = world.put(saved)
    total = sum(path.stat().st_size for path in saved.glob("*.safetensors"))
    report = world.check(uri)
    assert report.findings == ()
    assert len(TRAFFIC.requests) <= 15, TRAFFIC.requests  # the limit is 50
    assert Counter(TRAFFIC.requests).keys() <= {"GET", "HEAD"}
    assert TRAFFIC.bytes < 4 * 2**18 + 100_000 < total / 2  # the first 256 KiB of each shard, and small files


def test_each_defect_is_found_on_s3(world: Prefix, saved: Path) -> None:
    uri = world.put(saved)

    def after(change: str, name: str, content: bytes = b"") -> list[str]:
        """Return the codes with one object changed, and restore the object."""
        key = f"a/model/{name}"
        before = world.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() if change != "add" else None
        if change == "delete":
            world.s3.delete_object(Bucket=BUCKET, Key=key)
        else:
            world.s3.put_object(Bucket=BUCKET, Key=key, Body=content if change == "add" else (before or b"")[:-1])
        found = codes(world.check(uri))
        if before is None:
            world.s3.delete_object(Bucket=BUCKET, Key=key)
        else:
            world.s3.put_object(Bucket=BUCKET, Key=key, Body=before)
        return found

    shard = SHARDS[2]
    assert after("cut by one byte", shard) == ["error:weights"]
    assert after("delete", shard) == ["error:shard-missing"]
    assert after("delete", "config.json") == ["error:file"]
    assert after("delete", "model.safetensors.index.json") == ["error:index-missing"]
    assert after("cut", "tokenizer.json") == ["error:file"]
    assert after("add", "adapter_config.json", b"{}") == ["error:adapter"]
    assert after("add", "optimizer.pt") == ["warning:leftovers"]
    assert after("add", "chat_template.jinja", b"another") == [
        "error:chat-template",
        "error:template",
        "warning:stop-token",
    ]
    assert after("add", "prompt.json", b"{}") == ["error:unfinished"]
    manifest = {"files": {"config.json": {"bytes": 1}}}
    assert after("add", "manifest.json", json.dumps(manifest).encode()) == ["error:manifest"]
    assert codes(world.check(uri)) == []


def test_a_prefix_with_a_space_is_checked_and_refused(world: Prefix, saved: Path) -> None:
    uri = world.put(saved, "my model/")
    report = world.check(uri)
    assert codes(report) == ["error:s3-uri"]
    assert report.findings[0].where == "s3_uri"
    assert repr(uri.rstrip("/")) in report.findings[0].message
    assert "s3://bucket/prefix/" in report.findings[0].fix


def test_a_prefix_one_level_too_high_says_where_the_model_is(world: Prefix, saved: Path) -> None:
    world.put(saved)
    report = world.check(f"s3://{BUCKET}/a/")
    assert all("'model'" in finding.fix for finding in report.findings if finding.code == "file")
    assert "error:file" in codes(report)


def test_an_empty_prefix_and_an_impossible_bucket(world: Prefix) -> None:
    assert codes(world.check(f"s3://{BUCKET}/none/")) == ["error:s3-uri"]
    assert codes(world.check("s3://No Bucket/x/")) == ["error:s3-uri"]
    with pytest.raises(BedrockError, match=r"s3://not-there/x/.*NoSuchBucket"):
        world.check("s3://not-there/x/")


def test_without_a_session_the_default_credentials_are_used(
    world: Prefix, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = world.put(saved)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    assert codes(preflight(uri)) == []
    assert codes(preflight(uri, session=boto3.session.Session(region_name="us-west-2"))) == ["error:bucket-region"]


def refusing(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let S3 refuse one key with an error code."""
    from botocore.exceptions import ClientError

    from sqlquarry.bedrock.preflight.source import S3Source

    make = S3Source.__init__

    def refuse_one(self: S3Source, *args: Any, **options: Any) -> None:
        make(self, *args, **options)
        get = self.prefix.client.get_object

        def refused(**request: Any) -> Any:
            if request["Key"].endswith("tokenizer.json"):
                raise ClientError({"Error": {"Code": code, "Message": "no"}}, "GetObject")
            return get(**request)

        self.prefix.client.get_object = refused

    monkeypatch.setattr(S3Source, "__init__", refuse_one)


def test_access_denied_on_one_key_is_a_finding_that_names_it(
    world: Prefix, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = world.put(saved)
    refusing("AccessDenied", monkeypatch)
    report = world.check(uri)
    assert codes(report) == ["error:file"]
    assert "a/model/tokenizer.json" in str(report)
    assert re.search(r"s3:.*GetObject", str(report))  # the permission to grant


def test_expired_credentials_end_the_check_with_a_fix(
    world: Prefix, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = world.put(saved)
    refusing("ExpiredToken", monkeypatch)
    with pytest.raises(BedrockError, match=r"tokenizer\.json.*ExpiredToken.*aws sso login"):
        world.check(uri)


def test_a_prefix_with_thousands_of_objects_is_not_a_model(
    world: Prefix, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlquarry.bedrock.preflight.source._MAX_OBJECTS", 5)
    with pytest.raises(BedrockError, match=f"s3://{BUCKET}/.* 5 objects"):
        world.check(world.put(saved))
