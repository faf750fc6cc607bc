"""Unmodified clients in other processes need only the environment variables of the emulator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from emulator_account import Parrot, sketch
from emulator_training import Jobs
from sqlquarry.emulator import LocalAWS

S3 = """
import os, sys, urllib.request
import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

bucket, large = sys.argv[1], os.urandom(11 << 20)
s3 = boto3.client("s3")
key = "a b/ü+c=&,'()*!~.sql"
s3.put_object(Bucket=bucket, Key=key, Body=b"SELECT 1", Metadata={"made_by": "us", "two": "a  b"})
got = s3.get_object(Bucket=bucket, Key=key)
assert (got["Body"].read(), got["Metadata"]) == (b"SELECT 1", {"made_by": "us", "two": "a  b"})
assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix="a b/", Delimiter="/")["Contents"]] == [key]
for options in ({}, {"request_checksum_calculation": "when_required"}, {"s3": {"payload_signing_enabled": False}}):
    with open("large", "wb") as file:
        file.write(large)
    client = boto3.client("s3", config=Config(**options))
    client.upload_file("large", bucket, "large", Config=TransferConfig(multipart_chunksize=5 << 20))
    client.download_file(bucket, "large", "back")
    assert open("back", "rb").read() == large, options
for version in (None, "s3v4"):  # by default, botocore presigns with Signature Version 2
    client = boto3.client("s3", config=Config(signature_version=version))
    url = client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key, "ResponseContentType": "text/sql"})
    with urllib.request.urlopen(url) as answer:
        assert (answer.read(), answer.headers["Content-Type"]) == (b"SELECT 1", "text/sql")
    parameters = {"Bucket": bucket, "Key": "put", "ContentType": "text/sql", "Metadata": {"a": "b"}}
    url = client.generate_presigned_url("put_object", parameters)
    headers = {"Content-Type": "text/sql", "x-amz-meta-a": "b"}
    urllib.request.urlopen(urllib.request.Request(url, b"SELECT 2", headers, method="PUT")).close()
    assert s3.get_object(Bucket=bucket, Key="put")["Body"].read() == b"SELECT 2"
    stale = client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key}, ExpiresIn=-1)
    for other, method in ((url, "DELETE"), (url.replace("/put?", "/large?"), "PUT"), (stale, "GET")):
        try:
            body = b"x" if method == "PUT" else None
            urllib.request.urlopen(urllib.request.Request(other, body, headers, method=method))
        except urllib.error.HTTPError as error:
            assert error.code == 403, error
        else:
            raise AssertionError(other)
s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}, {"Key": "put"}, {"Key": "large"}]})
"""

BEDROCK = """
import json, sys
import boto3

bucket, role = sys.argv[1:]
bedrock, runtime = boto3.client("bedrock"), boto3.client("bedrock-runtime")
source = {"s3DataSource": {"s3Uri": f"s3://{bucket}/model"}}
bedrock.create_model_import_job(jobName="job", importedModelName="m", roleArn=role, modelDataSource=source)
assert bedrock.get_model_import_job(jobIdentifier="job")["status"] == "Completed"
(model,) = bedrock.list_imported_models(nameContains="m")["modelSummaries"]
body = json.dumps({"prompt": "SELECT 1 ü", "max_tokens": 9})
answer = json.loads(runtime.invoke_model(modelId=model["modelArn"], body=body)["body"].read())
assert answer["choices"][0]["text"] == "SELECT 1 ü"
events = runtime.invoke_model_with_response_stream(modelId=model["modelArn"], body=body)["body"]
pieces = [json.loads(event["chunk"]["bytes"]) for event in events]
assert "".join(piece["choices"][0]["text"] for piece in pieces) == "SELECT 1 ü"
bedrock.delete_imported_model(modelIdentifier="m")
"""

ACCOUNT = """
import json, sys
import boto3

bucket, role = sys.argv[1:]
iam, sts = boto3.client("iam"), boto3.client("sts")
who = {"Service": "bedrock.amazonaws.com"}
trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": who, "Action": "sts:AssumeRole"}]}
made = iam.create_role(RoleName="of-client", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
assert made.split(":")[4] == sts.get_caller_identity()["Account"] == role.split(":")[4]
iam.delete_role(RoleName="of-client")
# Keys that the emulated services create are valid until they are deleted.
iam.create_user(UserName="u")
key = iam.create_access_key(UserName="u")["AccessKey"]
of_user = boto3.client("sts", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
assert of_user.get_caller_identity()["Arn"].endswith(":user/u")
iam.delete_access_key(UserName="u", AccessKeyId=key["AccessKeyId"])
try:
    of_user.get_caller_identity()
except of_user.exceptions.ClientError as error:
    assert error.response["Error"]["Code"] == "InvalidClientTokenId"
else:
    raise AssertionError("a key that was deleted")
key = sts.assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
names = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
assumed = boto3.client("s3", **names, aws_session_token=key["SessionToken"])
assert [found["Name"] for found in assumed.list_buckets()["Buckets"]] == [bucket]
try:
    boto3.client("s3", **names, aws_session_token="other").list_buckets()
except assumed.exceptions.ClientError as error:
    assert error.response["Error"]["Code"] == "InvalidToken"
else:
    raise AssertionError("a token that is not the key's")
"""

TRAINING = """
import json, sys
import boto3

sagemaker = boto3.client("sagemaker")
request = json.loads(sys.argv[3])
sagemaker.create_training_job(**request)
name = request["TrainingJobName"]
sagemaker.get_waiter("training_job_completed_or_stopped").wait(TrainingJobName=name, WaiterConfig={"Delay": 0.2})
assert sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "Completed"
found = boto3.client("s3").get_object(Bucket=sys.argv[1], Key=f"output/{name}/output/model/found")
print(found["Body"].read().decode())
"""

OF_SHELL = """
import boto3, os
(bucket,) = boto3.client("s3").list_buckets()["Buckets"]
print(bucket["Name"] == os.environ["SQLQUARRY_EMULATOR_BUCKET"])
"""


@pytest.fixture(scope="module")
def aws():
    with LocalAWS(import_polls=0, cold_start_calls=0, load_model=Parrot) as running:
        yield running


@pytest.fixture
def client(aws, tmp_path):
    """Return a function that runs a script with only the emulator's environment.

    The arguments of the script are bucket, role and the arguments of the function.
    """

    def run(script, *arguments):
        command = [sys.executable, "-W", "error::ResourceWarning", "-c", script, aws.bucket, aws.role_arn, *arguments]
        done = subprocess.run(
            command, env=aws.environment(), cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_boto3_stores_and_presigns(client):
    client(S3)


def test_boto3_imports_and_invokes(client, aws, tmp_path):
    for path in sketch(tmp_path / "model").iterdir():
        aws.session().client("s3").upload_file(str(path), aws.bucket, f"model/{path.name}")
    client(BEDROCK)


def test_boto3_can_create_and_use_more_keys(client):
    client(ACCOUNT)


def test_boto3_trains_and_the_job_itself_reaches_the_emulator(client, aws):
    script = """
        import boto3
        (MODEL / "found").write_text(boto3.client("s3").list_buckets()["Buckets"][0]["Name"])
    """
    request = Jobs(aws).request("stock", script)
    assert client(TRAINING, json.dumps(request)).strip() == aws.bucket


def test_the_printed_script_sets_the_environment_of_a_shell(tmp_path):
    """The steps are those of the documentation: print to a file, read the file in a shell, reset with curl."""
    # A user's own environment may contain these variables.
    own = {
        "AWS_PROFILE": "work",
        "AWS_SESSION_TOKEN": "a-token",
        "AWS_ACCESS_KEY_ID": "mine",
        "PATH": os.environ["PATH"],
    }
    printed = tmp_path / "emulator.env"
    with (
        printed.open("w") as file,
        subprocess.Popen([sys.executable, "-m", "sqlquarry.emulator"], stdout=file) as server,
    ):
        try:
            for _ in range(300):
                if "SQLQUARRY_EMULATOR_BUCKET" in printed.read_text():
                    break
                with pytest.raises(subprocess.TimeoutExpired):
                    server.wait(0.1)
            script = f". {printed}\n{sys.executable} -c '{OF_SHELL}'\n"
            if shutil.which("curl"):
                script += (
                    'curl -sS --fail -X POST --aws-sigv4 "aws:amz:us-east-1:moto" '
                    '--user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" "$AWS_ENDPOINT_URL/moto-api/reset"\n'
                )
            done = subprocess.run(
                ["sh", "-ec", script], env=own, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.split("\n")[0] == "True"
        finally:
            server.terminate()
            server.wait(20)
