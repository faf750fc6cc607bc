"""Requests over real connections from programs without the key, and malformed requests with the key."""

from __future__ import annotations

import json
import re
import socket
import time
from datetime import UTC, datetime, timedelta

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emulator_account import Account, Parrot, send, signed
from emulator_training import Jobs
from sqlquarry.emulator import LocalAWS

JSON = "application/x-amz-json-1.1"
ANSWER_WITHIN_S = 10


@pytest.fixture(scope="module")
def aws():
    with LocalAWS(load_model=Parrot) as running:
        yield running


@pytest.fixture(scope="module")
def job(aws):
    """Return the body of a request that would run a program."""
    return json.dumps(Jobs(aws).request("attack", "print('here')")).encode()


@pytest.fixture(autouse=True)
def nothing_happened(aws):
    """Check after every test that the emulator still answers and has run nothing."""
    yield
    account = Account(aws)
    assert aws.session().client("sagemaker").list_training_jobs()["TrainingJobSummaries"] == []
    assert [bucket["Name"] for bucket in account.s3.list_buckets()["Buckets"]] == [aws.bucket]


HEADERS = {"Content-Type": JSON, "X-Amz-Target": "SageMaker.CreateTrainingJob"}


def create(aws, job, **changes):
    """Send a signed request whose headers are changed after signing, and return the status and code of the answer."""
    headers = signed(aws, "POST", "/", service="sagemaker", body=job, headers=HEADERS) | changes
    status, fields, body = send(aws, "POST", "/", body=job, headers=headers)
    assert not any(name.lower().startswith("access-control") for name in fields)
    return status, json.loads(body)["__type"]


def test_requests_without_the_key_are_refused(aws, job):
    assert create(aws, job, Authorization="")[0] == 403
    wrong = Credentials("AKIAIOSFODNN7EXAMPLE", "emulator")
    headers = signed(aws, "POST", "/", service="sagemaker", body=job, headers=HEADERS, key=wrong)
    assert create(aws, job, **headers) == (403, "UnrecognizedClientException")
    wrong = Credentials(aws.environment()["AWS_ACCESS_KEY_ID"], "emulator")
    headers = signed(aws, "POST", "/", service="sagemaker", body=job, headers=HEADERS, key=wrong)
    assert create(aws, job, **headers) == (403, "InvalidSignatureException")
    for method, path in (
        ("POST", "/moto-api/reset"),
        ("GET", "/moto-api/"),
        ("GET", f"/{aws.bucket}"),
        ("PUT", "/mine"),
    ):
        assert send(aws, method, path)[0] == 403


def test_no_representation_contains_the_secret(aws):
    secret = aws.environment()["AWS_SECRET_ACCESS_KEY"]
    assert secret not in f"{aws!r} {vars(aws)!r} {aws.session()!r}"
    assert LocalAWS().bucket != aws.bucket


def test_an_old_request_cannot_be_replayed(aws, job, monkeypatch):
    stock = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: stock() - timedelta(minutes=16))
    headers = signed(aws, "POST", "/", service="sagemaker", body=job, headers=HEADERS)
    monkeypatch.undo()
    assert create(aws, job, **headers) == (403, "InvalidSignatureException")
    headers["X-Amz-Date"] = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    assert create(aws, job, **headers)[0] == 403


def test_a_changed_body_or_target_is_refused(aws, job):
    headers = signed(aws, "POST", "/", service="sagemaker", body=job, headers=HEADERS)
    changed = job.replace(b"attack", b"attacked")
    assert send(aws, "POST", "/", body=changed, headers=headers)[0] == 403
    assert create(aws, job, **{"X-Amz-Target": "SageMaker.StopTrainingJob"})[0] == 403
    put = signed(aws, "PUT", f"/{aws.bucket}/key", service="s3", body=b"one")
    status, _, body = send(aws, "PUT", f"/{aws.bucket}/key", body=b"two", headers=put)
    assert (status, b"XAmzContentSHA256Mismatch" in body) == (400, True)
    assert "Contents" not in aws.session().client("s3").list_objects_v2(Bucket=aws.bucket, Prefix="key")


@pytest.mark.parametrize(
    "host", ["evil.example:{}", "127.0.0.1", "127.0.0.2:{}", "bucket.localhost:{}", "[::1]:{}", ""]
)
def test_another_host_name_is_refused(aws, job, host):
    assert create(aws, job, Host=host.format(aws.endpoint_url.rpartition(":")[2])) == (403, "AccessDeniedException")


def test_the_host_name_localhost_is_accepted(aws):
    port = aws.endpoint_url.rpartition(":")[2]
    local = LocalName(aws, f"http://localhost:{port}")
    headers = signed(local, "GET", f"/{aws.bucket}?list-type=2", service="s3")
    assert send(aws, "GET", f"/{aws.bucket}?list-type=2", headers=headers | {"Host": f"localhost:{port}"})[0] == 200


class LocalName:
    def __init__(self, aws, endpoint_url):
        self.environment, self.region, self.endpoint_url = aws.environment, aws.region, endpoint_url


RAW = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    "a line of 70,000 bytes": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "a header of 70,000 bytes": b"GET / HTTP/1.1\r\nHost: {host}\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    "200 headers": b"GET / HTTP/1.1\r\nHost: {host}\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    "an absolute URL": b"GET http://evil.example/ HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: {host}\r\nHost: evil.example\r\n\r\n",
    "bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "garbage in chunks": b"POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a huge chunk": b"POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 90 + b"\r\n",
    "an invalid length": b"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: many\r\n\r\n",
    "a body that never comes": b"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99999999999\r\n\r\n",
    "two requests in one": b"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", RAW)
def test_malformed_http_gets_one_error(aws, name):
    host = aws.endpoint_url.removeprefix("http://")
    begun = time.monotonic()
    with socket.create_connection(host.split(":"), timeout=ANSWER_WITHIN_S) as connection:
        connection.sendall(RAW[name].replace(b"{host}", host.encode()))
        answer = b""
        while b"</Error>" not in answer and (block := connection.recv(65536)):
            answer += block
    assert time.monotonic() - begun < ANSWER_WITHIN_S
    assert re.search(rb"<Code>\w+</Code>", answer)
    if answer.startswith(b"HTTP/"):  # http.server sends no status line to clients that do not use HTTP/1
        assert answer.split()[1][:1] == b"4"


def test_a_signed_upload_with_invalid_chunks_is_refused(aws):
    target, host = f"/{aws.bucket}/chunks", aws.endpoint_url.removeprefix("http://")
    for begin in (b"zz\r\n", b"5\r\nab", b"5\r\nabcdeXX"):
        lines = [f"{name}: {value}" for name, value in signed_unhashed(aws, target).items() if name != "Content-Length"]
        with socket.create_connection(host.split(":"), timeout=ANSWER_WITHIN_S) as connection:
            request = "\r\n".join([f"PUT {target} HTTP/1.1", f"Host: {host}", *lines, "Transfer-Encoding: chunked"])
            connection.sendall(request.encode() + b"\r\n\r\n" + begin)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 400"), answer
        assert b"<Code>IncompleteBody</Code>" in answer
    assert "Contents" not in aws.session().client("s3").list_objects_v2(Bucket=aws.bucket, Prefix="chunks")


@pytest.mark.parametrize("body", [b"", b"zz\r\n", b"5;chunk-signature=x\r\nab", b"5\r\nabcde", b"\xff" * 9])
def test_a_signed_upload_with_an_invalid_chunk_encoding_is_not_a_server_error(aws, body):
    target = f"/{aws.bucket}/encoded"
    headers = signed_unhashed(aws, target, checksum={"request_algorithm": {"in": "trailer"}})
    assert headers["X-Amz-Content-SHA256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    assert send(aws, "PUT", target, body=body, headers=headers)[0] < 500
    aws.session().client("s3").delete_object(Bucket=aws.bucket, Key="encoded")


def signed_unhashed(aws, target, **context):
    environment = aws.environment()
    request = AWSRequest("PUT", aws.endpoint_url + target)
    request.context |= context
    request.context["client_config"] = Config(s3={"payload_signing_enabled": False})
    key = Credentials(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"])
    botocore.auth.S3SigV4Auth(key, "s3", aws.region).add_auth(request)
    return dict(request.headers)


DEEP = b"[" * 200_000
BODIES = st.one_of(
    st.binary(max_size=50),
    st.sampled_from(
        [b"", DEEP, b'{"a":' * 100_000, b"null", b"[]", b'"text"', b"1e999", b"{", b"\xff\xfe", b"<a", b"a=b&a"]
    ),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    ["TrainingJobName", "AlgorithmSpecification", "RoleArn", "Tags", "jobName", "MaxResults"]
                ),
                inner,
                max_size=3,
            )
        ),
        max_leaves=5,
    ).map(lambda value: json.dumps(value).encode()),
)
TARGETS = st.sampled_from(
    [f"SageMaker.{name}" for name in ("CreateTrainingJob", "ListTrainingJobs", "AddTags", "NoSuchOperation", "")]
    + [
        "Logs_20140328.CreateLogGroup",
        "ServiceQuotasV20190624.GetServiceQuota",
        ".",
        "a.b.c",
        "DynamoDB",
        "",
    ]
)
PLACES = st.sampled_from(
    [
        ("sagemaker", "POST", "/"),
        ("sagemaker", "PUT", "/x"),
        ("logs", "POST", "/"),
        ("servicequotas", "POST", "/"),
        ("iam", "POST", "/"),
        ("iam", "POST", "/?Action=CreateRole&Version=2010-05-08"),
        ("iam", "POST", "/?Action=NoSuchAction"),
        ("sts", "POST", "/?Action=AssumeRole"),
        ("bedrock", "POST", "/model-import-jobs"),
        ("bedrock", "GET", "/model-import-jobs?maxResults=x"),
        ("bedrock", "POST", "/model/x/invoke"),
        ("bedrock", "POST", "/no/such/operation"),
        ("bedrock", "DELETE", "/imported-models/x"),
        ("s3", "POST", "/{bucket}?delete"),
        ("s3", "POST", "/{bucket}/key?uploadId=x"),
        ("s3", "POST", "/{bucket}?lifecycle"),
        ("s3", "PUT", "/{bucket}?cors"),
        ("s3", "PUT", "/{bucket}?tagging"),
        ("s3", "GET", "/{bucket}?list-type=2&max-keys=x"),
        ("s3", "GET", "/{bucket}/none?partNumber=x"),
        ("s3", "OPTIONS", "/{bucket}"),
        ("s3", "PATCH", "/{bucket}/key"),
        ("dynamodb", "POST", "/"),
        ("nosuchservice", "POST", "/"),
        ("moto", "POST", "/moto-api/none"),
        ("moto", "POST", "/moto-api/seed"),
    ]
)
TYPES = st.sampled_from(
    [JSON, "application/json", "application/x-www-form-urlencoded", "application/xml", "text/plain"]
)


@given(place=PLACES, target=TARGETS, content_type=TYPES, body=BODIES)
@example(place=("sagemaker", "POST", "/"), target="SageMaker.CreateTrainingJob", content_type=JSON, body=DEEP)
@example(place=("bedrock", "POST", "/model-import-jobs"), target="", content_type="application/json", body=DEEP)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_malformed_request_with_a_valid_signature_is_a_client_error(aws, place, target, content_type, body):
    service, method, path = place
    path = path.format(bucket=aws.bucket)
    headers = {"Content-Type": content_type} | ({"X-Amz-Target": target} if target else {})
    made = signed(aws, method, path, service=service, body=body, headers=headers)
    begun = time.monotonic()
    status, fields, content = send(aws, method, path, body=body, headers=made)
    assert status < 500, (status, content)
    assert time.monotonic() - begun < ANSWER_WITHIN_S
    assert content.strip()[:14].lower() not in (b"", b"<!doctype html") or status == 200
    assert not any(name.lower().startswith("access-control") for name in fields)


@pytest.mark.parametrize(
    "body",
    [
        DEEP,
        b"{}",
        b"[]",
        b"\xff",
        b'{"TrainingJobName": 5}',
        b'{"TrainingJobName": "x", "Tags": {"a": 1}}',
        b'{"RoleArn": null}',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_training_job_with_wrong_types_is_refused_with_sagemakers_codes(aws, body):
    headers = signed(aws, "POST", "/", service="sagemaker", body=body, headers=HEADERS)
    status, _, content = send(aws, "POST", "/", body=body, headers=headers)
    assert (status, json.loads(content)["__type"]) in ((400, "ValidationException"), (400, "SerializationException"))


@pytest.mark.parametrize("value", ["garbage", "", "2026-13-01", "1e400", "nan"])
def test_a_bound_of_a_list_that_is_not_a_time_is_refused(aws, value):
    target = f"/imported-models?creationTimeAfter={value}"
    body = json.dumps({"CreationTimeAfter": value}).encode()
    listing = HEADERS | {"X-Amz-Target": "SageMaker.ListTrainingJobs"}
    for method, path, content, headers, service in (
        ("GET", target, b"", {}, "bedrock"),
        ("POST", "/", body, listing, "sagemaker"),
    ):
        made = signed(aws, method, path, service=service, body=content, headers=headers)
        status, _, answer = send(aws, method, path, body=content, headers=made)
        assert (status, json.loads(answer)["__type"]) == (400, "SerializationException")
