"""An emulator per test, and a tiny model in the dialect that Bedrock documents."""

from __future__ import annotations

import json
import shutil

import pytest
from botocore.config import Config

from sqlquarry.emulator import LocalAWS

ONCE = Config(retries={"total_max_attempts": 1})


def to_4_51(source, target, *, keep_rope=False):
    """Copy a model as transformers 5 saved it and rewrite its metadata as transformers 4.51 has it."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")
    if not keep_rope:
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    (target / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((target / "tokenizer_config.json").read_text())
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    tokenizer["chat_template"] = (target / "chat_template.jinja").read_text()
    (target / "chat_template.jinja").unlink()
    (target / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return target


class Account:
    """The calls that nearly every test makes, against one emulator."""

    def __init__(self, aws):
        self.aws = aws
        session = aws.session()
        self.s3 = session.client("s3")
        self.bedrock = session.client("bedrock", config=ONCE)
        self.runtime = session.client("bedrock-runtime", config=ONCE)

    def upload(self, directory, prefix="model"):
        for path in directory.iterdir():
            self.s3.upload_file(str(path), self.aws.bucket, f"{prefix}/{path.name}")

    def create(self, name, prefix="model", **options):
        parameters = {
            "jobName": f"job-{name}",
            "importedModelName": name,
            "roleArn": self.aws.role_arn,
            "modelDataSource": {"s3DataSource": {"s3Uri": f"s3://{self.aws.bucket}/{prefix}"}},
        }
        return self.bedrock.create_model_import_job(**parameters | options)["jobArn"]

    def finish(self, job):
        while (answer := self.bedrock.get_model_import_job(jobIdentifier=job))["status"] == "InProgress":
            pass
        return answer

    def imported(self, name, prefix="model", **options):
        """The ARN of a model, imported to its end."""
        job = self.finish(self.create(name, prefix, **options))
        assert job["status"] == "Completed", job["failureMessage"]
        return job["importedModelArn"]

    def ask(self, model, **body):
        answer = self.runtime.invoke_model(modelId=model, body=json.dumps({"temperature": 0} | body))
        return json.loads(answer["body"].read())

    def stream(self, model, **body):
        answer = self.runtime.invoke_model_with_response_stream(
            modelId=model, body=json.dumps({"temperature": 0} | body)
        )
        return [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]

    def error(self, call, **parameters):
        """Code and message of the error that a call must end with, and the HTTP status."""
        from botocore.exceptions import ClientError

        with pytest.raises(ClientError) as caught:
            call(**parameters)
        answer = caught.value.response
        return answer["Error"]["Code"], answer["Error"]["Message"], answer["ResponseMetadata"]["HTTPStatusCode"]


@pytest.fixture(scope="session", name="to_4_51")
def _to_4_51():
    return to_4_51


@pytest.fixture(scope="session")
def exported(tiny_llama, tmp_path_factory):
    """The tiny model, as it must be uploaded."""
    return to_4_51(tiny_llama, tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture
def start():
    """Start an emulator with options; it ends with the test."""
    running = []

    def enter(**options):
        running.append(LocalAWS(**{"import_polls": 0, "cold_calls": 0} | options).__enter__())
        return Account(running[-1])

    yield enter
    for aws in running:
        aws.close()
