"""Every public function with a path argument accepts ``s3://`` URIs, or refuses them with a typed error."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

import sqlquarry as sq
from sqlquarry.bedrock.preflight import preflight, repair
from sqlquarry.errors import (
    AdoptionError,
    ArtifactError,
    BedrockError,
    ConfigError,
    JudgingError,
    MergeError,
    UnsupportedModelError,
)
from sqlquarry.manifests import Manifest, base_digest, write_manifest
from sqlquarry.training.steps.checkpoint import Checkpoints

from conftest import toy_examples

ROLE = "arn:aws:iam::123456789012:role/import"
RECORDS = [sq.Record(**example, id=str(number)) for number, example in enumerate(toy_examples(2))]
REPORT = sq.Report(("exact",), ())


@pytest.fixture(scope="module")
def adapter(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> sq.AdapterCheckpoint:
    """Return an adapter that changes one matrix of the tiny model and was created without training."""
    import torch
    from safetensors.torch import save_file

    directory = tmp_path_factory.mktemp("adapter")
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {f"{module}.lora_A.weight": torch.ones(4, 128), f"{module}.lora_B.weight": torch.ones(128, 4)}
    save_file(tensors, directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    sq.PromptFormatter().save(directory)
    provenance = {
        "base_model": {"name": "base", "path": str(tiny_llama), "sha256": base_digest(tiny_llama)},
        "prompt_fingerprint": sq.PromptFormatter().fingerprint,
        "quantization": None,
    }
    return sq.AdapterCheckpoint(directory, write_manifest(directory, "adapter", provenance))


@pytest.fixture(scope="module")
def account() -> Iterator[Any]:
    """Yield a session with credentials and a bucket. Creating both takes longer than most tests, so they are shared."""
    with mock_aws(config={"core": {"mock_credentials": False}}):
        session = boto3.session.Session("testing", "testing", region_name="us-east-1")
        session.client("s3").create_bucket(Bucket="bucket")
        yield session


@pytest.fixture
def session(account: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return the session with one object in the bucket, in an environment without credentials."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    # moto does not support imported models. The checks of an account do not depend on the location.
    monkeypatch.setattr("sqlquarry.bedrock.preflight.run.check_account", lambda *_, **__: [])
    s3 = account.client("s3")
    for item in s3.list_objects_v2(Bucket="bucket").get("Contents", ()):
        s3.delete_object(Bucket="bucket", Key=item["Key"])
    s3.put_object(Bucket="bucket", Key="one/model.safetensors", Body=b"x")
    return account


def importer(session: Any) -> sq.BedrockImporter:
    return sq.BedrockImporter(ROLE, session=session, show_progress=False)


class _Silent:
    def generate(self, inputs: Any) -> list[sq.Generation]:
        return [sq.Generation("") for _ in inputs]


def _requirements(at: Any) -> object:
    from sqlquarry.sagemaker.packaging import job_requirements

    return job_requirements(at)


# Functions that read a location, with the error that they raise if it does not exist.
READERS: dict[str, tuple[Callable[[Any, Any, Any], object], type[Exception]]] = {
    "AdapterCheckpoint.load": (lambda at, s, _: sq.AdapterCheckpoint.load(at, session=s), ArtifactError),
    "MergedModel.load": (lambda at, s, _: sq.MergedModel.load(at, session=s), ArtifactError),
    "LocalModel": (lambda at, s, _: sq.LocalModel(at, session=s), UnsupportedModelError),
    "QLoRAFSDPTrainer": (
        lambda at, s, _: sq.QLoRAFSDPTrainer(at, session=s).train(RECORDS, output_dir="out"),
        UnsupportedModelError,
    ),
    "AdapterMerger": (
        lambda at, s, adapter: sq.AdapterMerger(base_model=at, session=s).merge(adapter, "merged"),
        MergeError,
    ),
    "AdapterMerger.verify": (
        lambda at, s, adapter: sq.AdapterMerger(session=s).verify(RECORDS, adapter, at),
        (MergeError, UnsupportedModelError),
    ),
    "repair": (lambda at, s, _: repair(at, session=s), BedrockError),
    "BedrockImporter.import_model": (lambda at, s, _: importer(s).import_model(at, "m"), BedrockError),
}


def files_of_peft(adapter: sq.AdapterCheckpoint) -> Path:
    """Return a directory with the files that PEFT wrote, because an adapter with a manifest is not adopted."""
    directory = adapter.path.parent / "peft"
    directory.mkdir(exist_ok=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapter.path / name, directory)
    return directory


READERS["adopt_adapter"] = (
    lambda at, s, adapter: sq.adopt_adapter(at, base_model=adapter.base_model_path, session=s),
    AdoptionError,
)
READERS["adopt_adapter.base_model"] = (
    lambda at, s, adapter: sq.adopt_adapter(files_of_peft(adapter), base_model=at, session=s),
    AdoptionError,
)
READERS["adopt_model"] = (
    lambda at, s, _: sq.adopt_model(at, formatter=sq.PromptFormatter(), session=s),
    AdoptionError,
)
READERS["LocalModel.base_model"] = (
    lambda at, s, adapter: sq.LocalModel(adapter, base_model=at, session=s),
    UnsupportedModelError,
)
# Functions that write to a prefix, or accept an empty prefix.
WRITERS: dict[str, Callable[[Any, Any, Any], object]] = {
    "AdapterMerger.merge": lambda at, s, adapter: sq.AdapterMerger(session=s).merge(adapter, at),
    "AdapterMerger.package_base": lambda at, s, adapter: sq.AdapterMerger(session=s).package_base(adapter, at),
    "QLoRAFSDPTrainer.train.checkpoint_dir": lambda at, s, _: Checkpoints(at, session=s).latest(),
    "preflight": lambda at, s, _: preflight(at, account=True, session=s),
    "BedrockImporter.preflight": lambda at, s, _: importer(s).preflight(at),
}
# Functions that accept local paths only.
LOCAL: dict[str, Callable[[Any], object]] = {
    "PromptFormatter.load": sq.PromptFormatter.load,
    "PromptFormatter.save": sq.PromptFormatter().save,
    "QLoRAFSDPTrainer.train": lambda at: sq.QLoRAFSDPTrainer("base").train(RECORDS, output_dir=at),
    "adopt_adapter.output_dir": lambda at: sq.adopt_adapter("adapter", base_model="base", output_dir=at),
    "repair.output_dir": lambda at: repair("model", output_dir=at),
    "run_pipeline": lambda at: sq.run_pipeline(
        RECORDS,
        RECORDS,
        trainer=sq.QLoRAFSDPTrainer("base"),
        importer=importer(None),
        judge=sq.SQLJudge([sq.ExactGrader()]),
        name="m",
        s3_uri="s3://bucket/m",
        output_dir=at,
    ),
    "sample_databases": sq.sample_databases,
    "Database": sq.Database,
    "ExecutionGrader": sq.ExecutionGrader,
    "Records.check": sq.Records(RECORDS).check,
    "Records.repair": sq.Records(RECORDS).repair,
    "SQLJudge": lambda at: sq.SQLJudge([sq.ExactGrader()], journal=at).evaluate(RECORDS, _Silent()),
    "SynthesizedDatabases": sq.SynthesizedDatabases,
    "SageMakerLauncher": _requirements,
    "Report.from_json": sq.Report.from_json,
    "Report.to_json": REPORT.to_json,
    "write_html": lambda at: sq.write_html(REPORT, at),
    "write_junit": lambda at: sq.write_junit(REPORT, at),
    "write_markdown": lambda at: sq.write_markdown(REPORT, at),
}
# Functions whose path arguments are not locations or are covered above. Those of records have their own tests.
OTHERS = {
    "AdapterCheckpoint",
    "AdapterMerger.published",
    "DataReport.to_html",
    "DataReport.to_json",
    "MergedModel",
    "SynthesizedDatabases.caveat",
    "load_records",
    "Records.quarantine",
    "Records.to_jsonl",
    "Records.to_messages",
    "Records.to_parquet",
    "Repair.to_json",
}


def functions_with_paths() -> Iterator[str]:
    """Yield the names of public functions and methods with an argument that may be a path."""
    seen: set[int] = set()
    for module in ("", ".bedrock", ".bedrock.preflight", ".merging", ".training", ".judging", ".data"):
        package = importlib.import_module(f"sqlquarry{module}")
        for name in package.__all__:
            public = getattr(package, name)
            if id(public) in seen or not callable(public):
                continue
            seen.add(id(public))
            methods = [key for key in dir(public) if not key.startswith("_")] if inspect.isclass(public) else []
            for path, function in [(name, public), *((f"{name}.{key}", getattr(public, key)) for key in methods)]:
                inherited = id(function) in seen and path != name
                seen.add(id(function))
                if callable(function) and not inherited and _takes_a_path(function):
                    yield path


def _takes_a_path(function: Any) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any("Path" in str(parameter.annotation) or parameter.annotation == "Source" for parameter in parameters)


def test_every_function_with_a_place_is_in_a_table() -> None:
    listed = {*READERS, *WRITERS, *LOCAL, *OTHERS}
    assert set(functions_with_paths()) <= listed


MISSING = ("s3://bucket/none", Path("s3://bucket/none"), "s3://absent-bucket/none", "s3://bucket/one/model.safetensors")


@pytest.mark.parametrize("place", MISSING, ids=str)
@pytest.mark.parametrize("name", READERS)
def test_a_reader_says_where_nothing_is(name: str, place: Any, session: Any, adapter: Any) -> None:
    call, kind = READERS[name]
    with pytest.raises(kind) as caught:
        call(place, session, adapter)
    assert str(place).replace("s3:/", "s3://").replace("///", "//") in str(caught.value)
    assert "s3:/b" not in str(caught.value)
    assert not list(Path().glob("s3:*"))


@pytest.mark.parametrize("place", ["s3://bucket/new", Path("s3://bucket/new")], ids=repr)
@pytest.mark.parametrize("name", WRITERS)
def test_a_prefix_is_accepted(name: str, place: Any, session: Any, adapter: Any) -> None:
    result = WRITERS[name](place, session, adapter)
    assert not list(Path().glob("s3:*"))
    if isinstance(result, sq.MergedModel):
        assert result.uri == "s3://bucket/new"
        assert sq.MergedModel.load(place, session=session, verify=True) == result
        with pytest.raises(ConfigError, match="s3://bucket/new"):
            _ = result.path


@pytest.mark.parametrize("place", ["s3://bucket/new", Path("s3://bucket/new")], ids=repr)
@pytest.mark.parametrize("name", LOCAL)
def test_a_local_function_refuses_s3(name: str, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises((ConfigError, JudgingError)):
        LOCAL[name](place)
    assert not list(tmp_path.glob("s3:*"))


@pytest.mark.parametrize("source", [None, 3, 2.5, b"model", object()])
def test_only_models_can_be_imported(source: Any, session: Any) -> None:
    with pytest.raises(ConfigError):
        importer(session).import_model(source, "m", s3_uri="s3://bucket/m")
    with pytest.raises(ConfigError):
        preflight(source)


def test_an_adapter_must_be_merged_first(session: Any, adapter: sq.AdapterCheckpoint) -> None:
    for call in (importer(session).import_model, preflight):
        with pytest.raises(ConfigError, match=r"AdapterMerger\(\)\.merge"):
            call(adapter, "m")  # type: ignore[arg-type] - wrong on purpose


@pytest.mark.parametrize("name", READERS)
def test_refusals_of_aws_name_the_location_and_a_remedy(name: str, session: Any, adapter: Any) -> None:
    """The cases are missing credentials and a missing permission."""
    from botocore.exceptions import ClientError

    call, kind = READERS[name]
    nobody = boto3.session.Session(region_name="us-east-1")
    denied = _Denied(session, ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "ListObjectsV2"))
    for other, remedy in ((nobody, "aws sso login"), (denied, "s3:ListBucket")):
        with pytest.raises(kind) as caught:
            call("s3://bucket/none", other, adapter)
        assert remedy in str(caught.value)
        assert "s3://bucket/none" in str(caught.value)


class _Denied:
    """A session whose S3 client refuses every request."""

    region_name = "us-east-1"

    def __init__(self, session: Any, error: Exception) -> None:
        self._session, self._error = session, error

    def client(self, service: str, **options: Any) -> Any:
        client = self._session.client(service, **options)
        if service == "s3":
            client.meta.events.register("before-call.s3", self._refuse)
        return client

    def _refuse(self, **_: Any) -> None:
        raise self._error


def test_an_artifact_knows_its_location() -> None:
    manifest = Manifest("merged-model", {}, {})
    assert sq.MergedModel(Path("s3://bucket/a"), manifest).uri == "s3://bucket/a"
    assert sq.MergedModel(Path("runs"), manifest).path == Path("runs")
