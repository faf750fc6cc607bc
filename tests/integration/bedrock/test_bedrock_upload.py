"""Uploads to moto's S3: exactly the model's files, resumed by content, manifest last."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bedrock_scripted import finish_merged, scripted_aws
from sqlquarry.artifacts import MergedModel
from sqlquarry.bedrock.export.model_export import ModelExport
from sqlquarry.bedrock.upload import upload
from sqlquarry.errors import BedrockError, OutputInUseError
from sqlquarry.manifests import read_manifest

URI = "s3://models/runs/one"


@pytest.fixture(scope="module")
def merged_model(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> MergedModel:
    return finish_merged(tiny_llama, tmp_path_factory.mktemp("merged") / "model")


@pytest.fixture
def s3() -> Iterator[Any]:
    with scripted_aws() as aws:
        yield aws.s3


@pytest.fixture
def puts(s3: Any) -> list[str]:
    """Return a list that records the written keys in order."""
    written: list[str] = []
    s3.meta.events.register("before-parameter-build.s3.PutObject", lambda params, **_: written.append(params["Key"]))
    return written


def keys(s3: Any) -> dict[str, bytes]:
    listed = s3.list_objects_v2(Bucket="models").get("Contents", ())
    return {o["Key"]: s3.get_object(Bucket="models", Key=o["Key"])["Body"].read() for o in listed}


def test_exactly_the_models_files_with_the_manifest_last(s3: Any, puts: list[str], merged_model: MergedModel) -> None:
    export = ModelExport.of(merged_model)
    assert upload(export, URI, s3=s3) == sum(int(entry["bytes"]) for entry in export.manifest.files.values())
    assert sorted(key.removeprefix("runs/one/") for key in keys(s3)) == [
        "config.json",
        "generation_config.json",
        "manifest.json",
        "model.safetensors",
        "prompt.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert puts[-1] == "runs/one/manifest.json"


def test_the_uploaded_prefix_is_a_finished_artifact(s3: Any, merged_model: MergedModel, tmp_path: Path) -> None:
    export = ModelExport.of(merged_model)
    upload(export, URI, s3=s3)
    for key, content in keys(s3).items():
        (tmp_path / Path(key).name).write_bytes(content)
    manifest = read_manifest(tmp_path, "merged-model", verify=True)
    assert manifest.digest == export.manifest.digest
    assert manifest.provenance["exported_from"] == merged_model.manifest.digest
    weights = merged_model.path / "model.safetensors"
    assert (tmp_path / "model.safetensors").read_bytes() == weights.read_bytes()


def test_a_second_run_uploads_nothing(s3: Any, puts: list[str], merged_model: MergedModel) -> None:
    upload(ModelExport.of(merged_model), URI, s3=s3)
    puts.clear()
    assert upload(ModelExport.of(merged_model), URI + "/", s3=s3) == 0
    assert puts == []


def test_an_interrupted_run_resumes_with_the_missing_files(s3: Any, puts: list[str], merged_model: MergedModel) -> None:
    export = ModelExport.of(merged_model)
    upload(export, URI, s3=s3)
    s3.delete_object(Bucket="models", Key="runs/one/manifest.json")
    s3.delete_object(Bucket="models", Key="runs/one/config.json")
    # The size is the same, so only the SHA-256 in the metadata shows the other content.
    size = int(export.manifest.files["tokenizer.json"]["bytes"])
    s3.put_object(Bucket="models", Key="runs/one/tokenizer.json", Body=bytes(size))
    puts.clear()
    upload(export, URI, s3=s3)
    assert sorted(puts[:-1]) == ["runs/one/config.json", "runs/one/tokenizer.json"]
    assert puts[-1] == "runs/one/manifest.json"


def test_the_old_manifest_is_deleted_before_files_change(s3: Any, merged_model: MergedModel) -> None:
    export = ModelExport.of(merged_model)
    upload(export, URI, s3=s3)
    content = b"{}"
    entries = {**export.manifest.files, "config.json": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": 2}}
    changed = ModelExport({**export.files, "config.json": content}, dataclasses.replace(export.manifest, files=entries))

    def fail(params: dict[str, Any], **_: Any) -> None:
        if params["Key"].endswith("config.json"):
            raise KeyboardInterrupt

    s3.meta.events.register("before-parameter-build.s3.PutObject", fail)
    with pytest.raises(KeyboardInterrupt):
        upload(changed, URI, s3=s3)
    assert "runs/one/manifest.json" not in keys(s3)


def test_leftovers_of_another_model_are_refused_before_any_upload(
    s3: Any, puts: list[str], merged_model: MergedModel
) -> None:
    s3.meta.events.register("before-parameter-build.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=2))
    for i in range(7):  # more than one page of the listing
        s3.put_object(Bucket="models", Key=f"runs/one/checkpoint-{i}/optimizer.pt", Body=b"")
    puts.clear()
    with pytest.raises(BedrockError, match=r"7 file\(s\).*\(checkpoint-0/"):
        upload(ModelExport.of(merged_model), URI, s3=s3)
    assert puts == []


def test_neighboring_prefixes_and_folder_markers_are_ignored(s3: Any, merged_model: MergedModel) -> None:
    s3.put_object(Bucket="models", Key="runs/one/", Body=b"")
    s3.put_object(Bucket="models", Key="runs/one-more/config.json", Body=b"{}")
    assert upload(ModelExport.of(merged_model), URI, s3=s3) > 0


def test_a_missing_bucket_is_explained(s3: Any, merged_model: MergedModel) -> None:
    with pytest.raises(BedrockError, match=r"s3://nowhere/x.*NoSuchBucket"):
        upload(ModelExport.of(merged_model), "s3://nowhere/x", s3=s3)


def test_two_uploads_to_one_prefix_do_not_mix(s3: Any, merged_model: MergedModel) -> None:
    """Another upload replaces the weights while this one sends its metadata."""
    theirs = {"Bucket": "models", "Key": "runs/one/model.safetensors"}

    def other(params: dict[str, Any], **_: Any) -> None:
        if params["Key"].endswith("tokenizer.json"):
            s3.put_object(**theirs, Body=b"theirs", Metadata={"sha256": "0" * 64})

    s3.meta.events.register("before-parameter-build.s3.PutObject", other)
    with pytest.raises(OutputInUseError, match=r"model\.safetensors"):
        upload(ModelExport.of(merged_model), URI, s3=s3, show_progress=False)
    assert "runs/one/manifest.json" not in keys(s3)


def test_a_refused_file_is_explained(s3: Any, merged_model: MergedModel) -> None:
    def refuse(params: dict[str, Any], **_: Any) -> None:
        if params["Key"].endswith(".safetensors"):
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")

    s3.meta.events.register("before-parameter-build.s3.PutObject", refuse)
    with pytest.raises(
        BedrockError,
        match=r"s3://models/runs/one/model\.safetensors .*AccessDenied.*s3:PutObject",
    ):
        upload(ModelExport.of(merged_model), URI, s3=s3)
    assert "runs/one/manifest.json" not in keys(s3)


def test_the_exported_digest_follows_the_content(merged_model: MergedModel, tmp_path: Path) -> None:
    digest = ModelExport.of(merged_model).manifest.digest
    assert ModelExport.of(merged_model).manifest.digest == digest
    changed = Path(shutil.copytree(merged_model.path, tmp_path / "changed"))
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))
    assert ModelExport.of(MergedModel(changed, merged_model.manifest)).manifest.digest != digest
