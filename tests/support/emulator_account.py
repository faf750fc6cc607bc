"""Common calls of the emulator's tests, and models in the format that Bedrock documents."""

from __future__ import annotations

import http.client
import json
import shutil
import struct
from contextlib import ExitStack, closing, contextmanager

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from sqlquarry.answers import Generation
from sqlquarry.emulator import LocalAWS, ManualClock

IMPORT_SECONDS = 600
ONCE = Config(retries={"total_max_attempts": 1})


def to_4_51(source, target, *, keep_rope=False):
    """Copy a model that transformers 5 has saved, and convert its metadata to the format of transformers 4.51."""
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


def sketch(directory):
    """Write the files of a model that passes the checks of an import but that no library could load."""
    directory.mkdir()
    header = json.dumps({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(2))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 64}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (directory / "tokenizer.json").write_text("{}")
    return directory


class Words:
    """The part of a tokenizer that the emulator uses."""

    chat_template = "any"

    def __call__(self, text, **_):
        return {"input_ids": text.split()}

    def apply_chat_template(self, messages, **_):
        return messages[-1]["content"]


class Parrot:
    """A model that answers with the prompt's first words and records its batches."""

    tokenizer = Words()

    def __init__(self, _=None):
        self.batches = []

    def complete(self, prompts, options):
        self.batches.append(len(prompts))
        answers = []
        for prompt in prompts:
            words = prompt.split()
            written = words[: options.max_tokens]
            scores = tuple(-float(len(word)) for word in written) if options.logprobs else None
            reason = "length" if len(written) < len(words) else "stop"
            answers.append(Generation(" ".join(written), reason, len(words), len(written), logprobs=scores))
        return answers


class Account:
    """Common calls to one emulator."""

    def __init__(self, aws, clock=None):
        self.aws, self.clock = aws, clock
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
        if self.clock:
            self.clock.advance(IMPORT_SECONDS)
        while (answer := self.bedrock.get_model_import_job(jobIdentifier=job))["status"] == "InProgress":
            pass
        return answer

    def imported(self, name, prefix="model", **options):
        """Import a model and return its ARN."""
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
        """Check that a call fails, and return the code, message and HTTP status of its error."""
        with pytest.raises(ClientError) as caught:
            call(**parameters)
        answer = caught.value.response
        return answer["Error"]["Code"], answer["Error"]["Message"], answer["ResponseMetadata"]["HTTPStatusCode"]


def signed(aws, method, target, *, service, body=b"", headers=(), key=None):
    """Return the headers of any request to an emulator, signed by botocore."""
    environment = aws.environment()
    key = key or Credentials(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"])
    request = AWSRequest(method, aws.endpoint_url + target, headers=dict(headers), data=body)
    (S3SigV4Auth if service == "s3" else SigV4Auth)(key, service, aws.region).add_auth(request)
    return dict(request.headers)


def send(aws, method, target, *, body=b"", headers=()):
    """Send a request with only Host and Content-Length added, and return the status, headers and body of the answer."""
    connection = http.client.HTTPConnection(aws.endpoint_url.removeprefix("http://"), timeout=30)
    with closing(connection):
        connection.request(method, target, body=body, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()


@contextmanager
def emulators():
    """Yield a function that starts an emulator with options. All emulators end with the context."""
    with ExitStack() as running:
        yield lambda **options: Account(
            running.enter_context(LocalAWS(**{"import_polls": 0, "cold_start_calls": 0} | options))
        )


@contextmanager
def clocked(**options):
    """Yield an account with a manual clock, which `finish` advances by the ten minutes that an import job takes."""
    clock = ManualClock()
    timing = {"clock": clock, "sleep": clock.advance, "import_polls": 0, "import_s": IMPORT_SECONDS}
    with LocalAWS(**timing | {"cold_start_calls": 0} | options) as aws:
        yield Account(aws, clock)
