"""AWS without network: moto's S3 with one bucket, and a Bedrock client that answers from a script."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber
from moto import mock_aws

from sqlquarry.artifacts import MergedModel
from sqlquarry.manifests import write_manifest
from sqlquarry.prompt import PromptFormatter

JOB = "arn:aws:bedrock:us-east-1:123456789012:model-import-job/jobjobjobjob"
MODEL = "arn:aws:bedrock:us-east-1:123456789012:imported-model/modelmodelmo"
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def finish_merged(source: Path, directory: Path) -> MergedModel:
    """Copy a checkpoint from `source` to `directory`, with a prompt and a manifest like a merged model."""
    from transformers import AutoTokenizer

    shutil.copytree(source, directory)
    formatter = PromptFormatter().bind(AutoTokenizer.from_pretrained(directory))
    formatter.save(directory)
    provenance = {"base_model": {"name": "tiny"}, "prompt_fingerprint": formatter.fingerprint}
    write_manifest(directory, MergedModel.kind, provenance)
    return MergedModel.load(directory)


@functools.cache
def _session() -> Any:
    # All tests share a session, because it parses the services' models only once.
    return boto3.session.Session("testing", "testing", region_name="us-east-1")


class ScriptedSession:
    """A boto3 session whose bedrock client answers from a Stubber. All other clients are moto's."""

    region_name = "us-east-1"

    def __init__(self) -> None:
        self._session = _session()
        self.bedrock = self._session.client("bedrock")
        self.s3 = self._session.client("s3")
        self.configs: dict[str, Any] = {}  # configs of the requested clients

    def client(self, service: str, **options: Any) -> Any:
        self.configs[service] = options["config"]
        return self.bedrock if service == "bedrock" else self._session.client(service, **options)

    def objects(self) -> list[str]:
        """Return the keys in the bucket."""
        return [item["Key"] for item in self.s3.list_objects_v2(Bucket="models").get("Contents", ())]


@contextmanager
def scripted_aws() -> Iterator[ScriptedSession]:
    """Yield a session with the bucket "models"."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            patch.setenv(name, "testing")
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_REGION"):
            patch.delenv(name, raising=False)
        with mock_aws():
            session = ScriptedSession()
            session.s3.create_bucket(Bucket="models")
            yield session


class Script:
    """The expected calls to Bedrock in order. botocore checks requests and answers against its model."""

    def __init__(self, client: Any) -> None:
        self.stub = Stubber(client)
        self.stub.activate()
        self.played = self.stub.assert_no_pending_responses

    def models(self, *names: str) -> None:
        summaries = [{"modelArn": MODEL, "modelName": name, "creationTime": _NOW} for name in names]
        self.stub.add_response("list_imported_models", {"modelSummaries": summaries}, {"nameContains": "sql"})

    def running(self, *model_names: str) -> None:
        self._jobs({"statusEquals": "InProgress"}, [("other", name) for name in model_names])

    def taken(self, base: str, *job_names: str) -> None:
        self._jobs({"nameContains": base}, [(name, "sql") for name in job_names])

    def _jobs(self, expected: dict[str, str], jobs: list[tuple[str, str]]) -> None:
        summaries = [
            {"jobArn": JOB, "jobName": job, "importedModelName": name, "status": "InProgress", "creationTime": _NOW}
            for job, name in jobs
        ]
        self.stub.add_response("list_model_import_jobs", {"modelImportJobSummaries": summaries}, expected)

    def tags(self, arn: str, **tags: str) -> None:
        listed = [{"key": f"sqlquarry:{key}", "value": value} for key, value in tags.items()]
        self.stub.add_response("list_tags_for_resource", {"tags": listed}, {"resourceARN": arn})

    def until_create(self, base: str) -> None:
        """Script an account without this name, so that files are uploaded and a job is requested."""
        self.models()
        self.running()
        self.taken(base)

    def create(self, **expected: Any) -> None:
        names = ("jobName", "importedModelName", "roleArn", "modelDataSource", "jobTags", "importedModelTags")
        request = dict.fromkeys((*names, "clientRequestToken"), ANY) | expected
        self.stub.add_response("create_model_import_job", {"jobArn": JOB}, request)

    def create_fails(self, code: str, message: str, times: int = 1) -> None:
        for _ in range(times):
            self.stub.add_client_error("create_model_import_job", code, message)

    def job(self, status: str, **more: Any) -> None:
        answer = {"jobArn": JOB, "status": status, **more}
        self.stub.add_response("get_model_import_job", answer, {"jobIdentifier": JOB})

    def job_fails(self, code: str, message: str) -> None:
        self.stub.add_client_error("get_model_import_job", code, message)

    def completes(self, fingerprint: str) -> None:
        self.job("Completed", importedModelArn=MODEL)
        self.model(fingerprint)

    def model(self, fingerprint: str) -> None:
        self.tags(MODEL, prompt=fingerprint)
        answer = {"modelArn": MODEL, "modelName": "sql"}
        self.stub.add_response("get_imported_model", answer, {"modelIdentifier": MODEL})
