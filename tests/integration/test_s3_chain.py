"""The path from a base model on S3 to an imported model, with a session and without credentials in the environment."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sqlquarry as sq
from sqlquarry.aws.polling import Polling
from sqlquarry.bedrock.preflight import preflight
from sqlquarry.bedrock.stored_merge import STATE
from sqlquarry.emulator import LocalAWS
from sqlquarry.errors import BedrockError, ConfigError, CorruptArtifactError, IncompleteArtifactError

from conftest import toy_examples

RECORDS = sq.Records(sq.Record(**example, id=f"toy-{number}") for number, example in enumerate(toy_examples(12)))
CONFIG = sq.TrainingConfig(num_train_epochs=1, records_per_step=12, max_length=1024, learning_rate=1e-3, device="cpu")


class Chain(NamedTuple):
    """A running emulator, its session, and the artifacts that were created in it."""

    aws: LocalAWS
    session: Any
    adapter: sq.AdapterCheckpoint
    merged: sq.MergedModel

    def objects(self, prefix: str = "runs/merged/") -> dict[str, str]:
        """Return name -> ETag of the objects below a prefix."""
        found = self.session.client("s3").list_objects_v2(Bucket=self.aws.bucket, Prefix=prefix).get("Contents", ())
        return {item["Key"].removeprefix(prefix): item["ETag"] for item in found}

    def copy(self, prefix: str) -> str:
        """Copy the unchanged merged model to another prefix, and return its URI."""
        s3 = self.session.client("s3")
        for name in self.objects("runs/kept/"):
            source = {"Bucket": self.aws.bucket, "Key": f"runs/kept/{name}"}
            s3.copy_object(Bucket=self.aws.bucket, Key=f"{prefix}/{name}", CopySource=source)
        return f"s3://{self.aws.bucket}/{prefix}"

    def importer(self, session: Any = None) -> sq.BedrockImporter:
        return sq.BedrockImporter(
            self.aws.role_arn, session=session or self.session, polling=Polling(interval_s=0.01), show_progress=False
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a separate home directory, and remove the AWS variables from the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield Path.home()


@pytest.fixture(scope="module")
def chain(home: Path, lively_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with LocalAWS(import_polls=0, cold_start_calls=0) as aws:
        session = aws.session()
        for path in lively_llama.iterdir():
            session.client("s3").upload_file(str(path), aws.bucket, f"models/base/{path.name}")
        base = f"s3://{aws.bucket}/models/base"
        trainer = sq.QLoRAFSDPTrainer(base, config=CONFIG, session=session)
        output = tmp_path_factory.mktemp("runs") / "adapter"
        checkpoints = f"s3://{aws.bucket}/checkpoints/one"
        # processes=1 trains in a separate process, which must reach S3 too.
        adapter = trainer.train(RECORDS, output_dir=output, checkpoint_dir=checkpoints, processes=1)
        shutil.rmtree(home / ".cache")
        merger = sq.AdapterMerger(session=session)  # the copy of the base is deleted, so it reads the base on S3
        merged = merger.merge(adapter, f"s3://{aws.bucket}/runs/merged")
        made = Chain(aws, session, adapter, merged)
        for name in made.objects():
            source = {"Bucket": aws.bucket, "Key": f"runs/merged/{name}"}
            session.client("s3").copy_object(Bucket=aws.bucket, Key=f"runs/kept/{name}", CopySource=source)
        yield made


def test_from_a_base_on_s3_to_served_answers(chain: Chain, home: Path) -> None:
    merged = sq.MergedModel.load(chain.merged.uri, session=chain.session)
    assert merged == chain.merged
    assert merged.uri == f"s3://{chain.aws.bucket}/runs/merged"
    assert preflight(merged, account=True, session=chain.session).ok
    before = chain.objects()
    model = chain.importer().import_model(merged, "chain").with_options(max_tokens=24)
    assert not list(home.rglob("*.safetensors"))  # no weights were copied to this machine
    after = chain.objects()
    assert {name for name in before if before[name] == after.get(name)} >= {"model.safetensors", "tokenizer.json"}
    assert STATE not in after
    rewritten = sq.MergedModel.load(Path(merged.uri), session=chain.session, verify=True)
    assert rewritten.exported_from == merged.manifest.digest
    local = sq.LocalModel(rewritten, session=chain.session, device="cpu", max_tokens=24)
    questions = [dataclasses.replace(record, sql=None) for record in RECORDS[:4]]
    answers = [answer.text for answer in local.generate(questions)]
    assert [answer.text for answer in model.generate(questions)] == answers
    assert len(set(answers)) > 1
    # The same content is the same model, given as an object, URI or path, from the merger or from the import.
    for source in (merged, rewritten, merged.uri, Path(merged.uri)):
        assert chain.importer().import_model(source, "chain").arn == model.arn
    assert chain.objects() == after
    assert sq.AdapterMerger(session=chain.session).merge(chain.adapter, merged.uri) == rewritten


def test_checkpoints_are_deleted_after_training(chain: Chain) -> None:
    assert chain.objects("checkpoints/") == {}
    assert chain.adapter.base_model == f"s3://{chain.aws.bucket}/models/base"


def test_a_local_merge_has_the_same_digest_as_the_merge_on_s3(chain: Chain, tmp_path: Path) -> None:
    merger = sq.AdapterMerger(base_model=Path(f"s3://{chain.aws.bucket}/models/base"), session=chain.session)
    local = merger.merge(chain.adapter, tmp_path / "merged")
    there = sq.MergedModel.load(chain.copy("digests"), session=chain.session, verify=True)
    assert local.manifest.digest == there.manifest.digest


@pytest.mark.parametrize("survives", range(7))
def test_an_interrupted_import_is_resumed(chain: Chain, survives: int) -> None:
    """The next import gives the same result, for any number of changes that succeeded before the interruption."""
    uri = chain.copy(f"broken-{survives}")
    merged = sq.MergedModel.load(uri, session=chain.session)
    changes: list[str] = []

    def refuse(model: Any, **_: Any) -> None:
        changes.append(model.name)
        if len(changes) > survives:
            raise KeyboardInterrupt

    interrupted = chain.aws.session()
    for operation in ("PutObject", "DeleteObject"):
        interrupted.events.register(f"before-call.s3.{operation}", refuse)
    with pytest.raises(KeyboardInterrupt):
        chain.importer(interrupted).import_model(uri, "broken")
    assert len(changes) > survives
    try:
        assert sq.MergedModel.load(uri, session=chain.session, verify=True).manifest.digest == merged.manifest.digest
    except IncompleteArtifactError:
        assert survives > 1  # a manifest, if there is one, is always correct
    model = chain.importer().import_model(merged if survives % 2 else uri, f"again-{survives}")
    chain.importer().delete(model.arn)
    finished = sq.MergedModel.load(uri, session=chain.session, verify=True).manifest
    assert finished.provenance["exported_from"] == merged.manifest.digest
    names = set(chain.objects(f"broken-{survives}/"))
    assert STATE not in names
    assert "chat_template.jinja" not in names


def test_a_changed_file_on_s3_is_refused(chain: Chain) -> None:
    uri = chain.copy("changed")
    merged = sq.MergedModel.load(uri, session=chain.session)
    s3, target = chain.session.client("s3"), {"Bucket": chain.aws.bucket, "Key": "changed/config.json"}
    content = s3.get_object(**target)["Body"].read()
    s3.put_object(**target, Body=content.replace(b"2048", b"1024"))
    with pytest.raises(CorruptArtifactError):
        sq.MergedModel.load(uri, session=chain.session, verify=True)
    with pytest.raises(BedrockError, match=r"config\.json"):
        chain.importer().import_model(merged, "changed")
    s3.delete_object(**target)
    with pytest.raises(CorruptArtifactError):
        sq.MergedModel.load(uri, session=chain.session)


def test_an_adapter_on_s3_is_copied_and_verified(chain: Chain) -> None:
    s3, uri = chain.session.client("s3"), f"s3://{chain.aws.bucket}/job/output/adapter"
    for path in chain.adapter.path.rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), chain.aws.bucket, f"job/output/adapter/{path.relative_to(chain.adapter.path)}")
    adapter = sq.AdapterCheckpoint.load(uri, session=chain.session)
    assert adapter.manifest == chain.adapter.manifest
    assert adapter.path != chain.adapter.path
    model = sq.LocalModel(adapter, session=chain.session, device="cpu", max_tokens=4)
    assert model.generate([RECORDS[0].asked])[0].completion_tokens
    target = {"Bucket": chain.aws.bucket, "Key": "job/output/adapter/adapter_model.safetensors"}
    content = bytearray(s3.get_object(**target)["Body"].read())
    content[-1] ^= 1
    s3.put_object(**target, Body=bytes(content))
    with pytest.raises(CorruptArtifactError):
        sq.AdapterCheckpoint.load(uri, session=chain.session)
    with pytest.raises(ConfigError, match=r"AdapterMerger"):
        chain.importer().import_model(chain.adapter, "adapter")  # type: ignore[arg-type] - wrong on purpose
