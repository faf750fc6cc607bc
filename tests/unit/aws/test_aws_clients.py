"""Clients, and the expected bucket owner in every S3 request. Only `sqlquarry.aws` creates clients."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

import sqlquarry
from sqlquarry.aws import aws_client, expect_bucket_owners
from sqlquarry.aws.clients import transfer_config
from sqlquarry.errors import ConfigError

OURS, THEIRS = "123456789012", "210987654321"
EXPECTED = "x-amz-expected-bucket-owner"
PACKAGE = Path(sqlquarry.__file__).parent


class Session:
    """A boto3 session of one account that records its calls of GetCallerIdentity."""

    region_name = "us-east-1"

    def __init__(self, failing: Exception | None = None) -> None:
        self.real = boto3.session.Session("AKIDEXAMPLE", "secret", region_name=self.region_name)
        self.failing, self.identity_calls = failing, list[dict[str, Any]]()

    def client(self, service: str, **options: Any) -> Any:
        if service != "sts":
            return self.real.client(service, **options)
        self.identity_calls.append(options)

        def get_caller_identity() -> dict[str, str]:
            if self.failing:
                raise self.failing
            return {"Account": OURS}

        return SimpleNamespace(get_caller_identity=get_caller_identity)


def sent_by(client: Any, *, status: int = 200, body: bytes = b"<a/>") -> list[Any]:
    """Return a list that collects the requests of a client, each of which is answered with `status`."""
    requests: list[Any] = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        requests.append(request)
        return AWSResponse(request.url, status, {}, SimpleNamespace(stream=lambda: iter([body]), read=lambda *_: body))

    client.meta.events.register("before-send.s3", answer)
    return requests


_VALUES = {"integer": 1, "long": 1, "boolean": True, "timestamp": 0, "map": {}, "blob": b"x"}


def example(shape: Any, name: str = "") -> Any:
    """Return the smallest value of a botocore shape."""
    if name in ("Bucket", "CopySource"):
        return {"Bucket": "models", "CopySource": "source/key"}[name]
    if shape.type_name == "structure":
        members = shape.required_members or list(shape.members)[: getattr(shape, "is_tagged_union", False)]
        return {key: example(shape.members[key], key) for key in members}
    if shape.type_name == "list":
        return [example(shape.member)]
    if shape.type_name == "string":
        return shape.enum[0] if shape.enum else "x" * shape.metadata.get("min", 1)
    return _VALUES[shape.type_name]


def operations() -> dict[str, str]:
    """Return method -> operation for all operations that accept an expected owner."""
    meta = boto3.session.Session("x", "x", region_name="us-east-1").client("s3").meta
    shapes = {name: meta.service_model.operation_model(name).input_shape for name in meta.service_model.operation_names}
    with_owner = {name for name, shape in shapes.items() if shape and "ExpectedBucketOwner" in shape.members}
    methods = {method: name for method, name in meta.method_to_api_mapping.items() if name in with_owner}
    assert set(methods.values()) == with_owner
    return methods


@pytest.fixture(scope="module")
def client() -> Any:
    return aws_client("s3", Session())


@pytest.mark.parametrize(("method", "operation"), operations().items())
def test_every_s3_operation_names_the_owner(client: Any, method: str, operation: str) -> None:
    shape = client.meta.service_model.operation_model(operation).input_shape
    requests = sent_by(client)
    getattr(client, method)(**example(shape))
    assert requests[0].headers[EXPECTED] == OURS.encode()
    if "ExpectedSourceBucketOwner" in shape.members:
        assert requests[0].headers["x-amz-source-expected-bucket-owner"] == OURS.encode()


def test_transfers_pages_and_presigned_urls_name_the_owner(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"w")
    requests = sent_by(client)
    client.upload_file(str(path), "models", "key", Config=transfer_config())
    list(client.get_paginator("list_parts").paginate(Bucket="models", Key="key", UploadId="1"))
    assert [request.headers[EXPECTED] for request in requests] == [OURS.encode()] * 2
    assert f"{EXPECTED}={OURS}" in client.generate_presigned_url("get_object", {"Bucket": "models", "Key": "key"})


def test_a_session_requests_its_account_once() -> None:
    session = Session()
    for _ in range(2):
        client = aws_client("s3", session)
        sent_by(client)
        client.head_bucket(Bucket="models")
        client.head_object(Bucket="models", Key="key")
    assert len(session.identity_calls) == 1


@pytest.mark.parametrize(
    ("variable", "endpoint"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),  # all services, for example an emulator
        ("AWS_ENDPOINT_URL_S3", "https://sts.us-east-1.amazonaws.com"),  # S3 only, for example a VPC endpoint
        ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1"),
    ],
)
def test_sts_is_called_at_its_own_endpoint(monkeypatch: pytest.MonkeyPatch, variable: str, endpoint: str) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    session = boto3.session.Session("AKIDEXAMPLE", "secret", region_name="us-east-1")
    urls: list[str] = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        urls.append(request.url)
        identity = f"<a><GetCallerIdentityResult><Account>{OURS}</Account></GetCallerIdentityResult></a>".encode()
        return AWSResponse(request.url, 200, {}, SimpleNamespace(stream=lambda: iter([identity]), read=lambda *_: b""))

    session.events.register("before-send.sts", answer)
    client = aws_client("s3", session)
    requests = sent_by(client)
    client.head_bucket(Bucket="models")
    assert [url.rstrip("/") for url in urls] == [endpoint]
    assert requests[0].headers[EXPECTED] == OURS.encode()


def test_options_that_are_not_given_are_the_defaults_of_the_session() -> None:
    core = botocore.session.Session()
    core.set_default_client_config(
        Config(read_timeout=300, max_pool_connections=30, s3={"addressing_style": "virtual"})
    )
    session = boto3.session.Session("AKIDEXAMPLE", "secret", region_name="us-east-1", botocore_session=core)
    kept = aws_client("s3", session).meta.config
    assert (kept.read_timeout, kept.max_pool_connections, kept.s3["addressing_style"]) == (300, 30, "virtual")
    assert (kept.connect_timeout, kept.retries["total_max_attempts"]) == (60, 2)
    given = aws_client("s3", session, attempts=4, connect_timeout_s=5, read_timeout_s=7, max_pool_connections=9)
    config = given.meta.config
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (5, 7, 9)
    assert config.retries["total_max_attempts"] == 4
    assert aws_client("s3", session, sign_payloads=False).meta.config.s3["payload_signing_enabled"] is False


def test_an_owner_that_was_set_replaces_the_account() -> None:
    session = Session(failing=AssertionError("GetCallerIdentity was called"))
    client = aws_client("s3", session)
    requests = sent_by(client)
    expect_bucket_owners({"shared": THEIRS, "public": None}, session=session)
    client.head_bucket(Bucket="shared")
    client.head_bucket(Bucket="public")
    client.copy_object(Bucket="shared", Key="b", CopySource={"Bucket": "public", "Key": "a"})
    owners = [request.headers.get(EXPECTED) for request in requests]
    assert owners == [THEIRS.encode(), None, THEIRS.encode()]
    assert "x-amz-source-expected-bucket-owner" not in requests[2].headers


def test_owners_of_one_session_do_not_affect_other_sessions() -> None:
    mine, other = Session(), Session()
    expect_bucket_owners({"shared": THEIRS}, session=mine)
    client = aws_client("s3", other)
    requests = sent_by(client)
    client.head_bucket(Bucket="shared")
    assert requests[0].headers[EXPECTED] == OURS.encode()


def test_an_owner_in_the_request_is_kept(client: Any) -> None:
    requests = sent_by(client)
    client.head_bucket(Bucket="models", ExpectedBucketOwner=THEIRS)
    assert requests[0].headers[EXPECTED] == THEIRS.encode()


@pytest.mark.parametrize("owner", ["1", "12345678901a", "any", 123456789012, ""])
def test_an_owner_must_be_an_account_id(owner: Any) -> None:
    with pytest.raises(ConfigError, match="shared"):
        expect_bucket_owners({"shared": owner}, session=Session())


@given(bucket=st.sampled_from(["", "s3://shared", "s3://shared/prefix", "shared/"]))
def test_a_uri_is_not_a_bucket_name(bucket: str) -> None:
    with pytest.raises(ConfigError):
        expect_bucket_owners({bucket: THEIRS}, session=Session())


def test_a_refusal_names_the_bucket_the_account_and_the_remedy() -> None:
    client = aws_client("s3", Session())
    sent_by(client, status=403, body=b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
    with pytest.raises(ClientError) as caught:
        client.get_object(Bucket="models", Key="key")
    for value in ("bucket models ", OURS, "expect_bucket_owners({'models': "):
        assert value in str(caught.value)


def test_nothing_is_sent_if_the_account_is_unknown() -> None:
    client = aws_client("s3", Session(failing=EndpointConnectionError(endpoint_url="https://sts")))
    requests = sent_by(client)
    with pytest.raises(EndpointConnectionError, match="expect_bucket_owners"):
        client.put_object(Bucket="models", Key="key", Body=b"weights")
    assert requests == []


def calls(names: set[str], *, skip: tuple[str, ...] = ()) -> Iterator[tuple[str, ast.Call]]:
    """Yield the method calls in the package with their locations.

    The emulator is skipped because it is AWS, and `bootstrap` because it runs before the library is installed.
    """
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(("emulator/", *skip)) or name == "sagemaker/bootstrap.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names:
                yield f"{name}:{node.lineno}", node


def test_only_aws_creates_sessions_and_clients() -> None:
    constructors = {"client", "resource", "create_client", "Session"}
    assert [location for location, _ in calls(constructors, skip=("aws/",))] == []


def test_every_transfer_uses_the_classic_client() -> None:
    transfers = list(calls({"upload_file", "download_file", "upload_fileobj", "download_fileobj"}))
    assert {location.partition(":")[0] for location, _ in transfers} == {"aws/prefix.py"}
    assert [location for location, call in transfers if "Config" not in {word.arg for word in call.keywords}] == []


def test_a_profile_name_is_not_a_session() -> None:
    with pytest.raises(ConfigError, match="profile_name"):
        aws_client("s3", "default")
