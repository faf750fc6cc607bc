"""Authentication in front of a stub. Only signed requests pass, and all others get a valid error answer."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from botocore.auth import HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sqlquarry.emulator.requests.authentication import authenticate
from sqlquarry.emulator.requests.body import MAX_BODY_BYTES, MAX_UPLOAD_BYTES
from sqlquarry.emulator.requests.signature import AccessKey

HOST = "127.0.0.1:5000"
KEY = AccessKey("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
TEMPORARY = AccessKey("ASIATEMPORARY7EXAMPL", "another-secret", "a-token")
CORS = ("Access-Control-Allow-Origin", "*")
TARGET = "SageMaker.CreateTrainingJob"


class Stub:
    """An application that records the requests that reach it, and their bodies."""

    def __init__(self, *, status="200 OK", reads=True, raises=None):
        self.bodies, self.seen = [], []
        self.status, self.reads, self.raises = status, reads, raises

    def __call__(self, environ, start_response):
        self.seen.append(environ)
        if self.reads:
            self.bodies.append(environ["wsgi.input"].read())
        if self.raises:
            raise self.raises
        start_response(self.status, [CORS, ("Content-Type", "application/json")])
        return [b"{}"]


def environ_of(method, target, headers=(), body=b""):
    """Return the WSGI environment of a request."""
    path, _, query = target.partition("?")
    made = {
        "REQUEST_METHOD": method,
        "RAW_URI": target,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "HTTP_HOST": HOST,
    }
    for name, value in dict(headers).items():
        key = name.upper().replace("-", "_")
        made[key if key.startswith("CONTENT_") and key != "CONTENT_MD5" else f"HTTP_{key}"] = value
    return made


def answer(environ, stub=None, *, now=None, hosts=(HOST, "localhost:5000")):
    """Return the status, headers and body of the answer."""
    stub = stub or Stub()
    started = []
    application = authenticate(
        stub,
        hosts=hosts,
        find_key={key.id: key for key in (KEY, TEMPORARY)}.get,
        account="111122223333",
        now=lambda: now or datetime.now(UTC),
    )
    content = b"".join(application(environ, lambda status, headers: started.append((status, headers))))
    ((status, headers),) = started
    assert not any(name.lower().startswith("access-control") for name, _ in headers)
    return int(status[:3]), dict(headers), content


def signed(method, target, *, service="sagemaker", body=b"", headers=(), key=KEY):
    """Return the environment of a request that botocore has signed."""
    request = AWSRequest(method, f"http://{HOST}{target}", headers=dict(headers), data=body)
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(Credentials(key.id, key.secret, key.token), service, "us-east-1").add_auth(request)
    return environ_of(method, target, request.headers, body)


def create_job(**changes):
    headers = {"X-Amz-Target": TARGET, "Content-Type": "application/x-amz-json-1.1"}
    return signed("POST", "/", body=b'{"TrainingJobName": "job"}', headers=headers) | changes


def code(answered):
    _, headers, content = answered
    if headers["Content-Type"] == "application/xml":
        return content.decode().partition("<Code>")[2].partition("<")[0]
    return json.loads(content)["__type"]


def test_a_signed_request_passes_unchanged_and_in_the_emulators_account():
    stub = Stub()
    environ = create_job(HTTP_X_MOTO_ACCOUNT_ID="999999999999")
    assert answer(environ, stub) == (200, {"Content-Type": "application/json"}, b"{}")
    assert stub.bodies == [b'{"TrainingJobName": "job"}']
    assert stub.seen[0]["HTTP_X_MOTO_ACCOUNT_ID"] == "111122223333"
    assert answer(signed("GET", "/?b=2&a=1&b=1&c", key=TEMPORARY))[0] == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"HTTP_ORIGIN": "http://evil.example"},
        {"HTTP_ORIGIN": "null"},
        {"HTTP_ORIGIN": f"http://{HOST}"},
        {"HTTP_SEC_FETCH_SITE": "same-origin"},
        {"HTTP_SEC_FETCH_MODE": "no-cors"},
        {"HTTP_HOST": "evil.example:5000"},
        {"HTTP_HOST": "127.0.0.1"},
        {"HTTP_HOST": "127.0.0.1:80"},
        {"HTTP_HOST": "bucket.localhost:5000"},
        {"HTTP_HOST": f"{HOST},evil.example"},
        {"HTTP_HOST": ""},
        {"HTTP_AUTHORIZATION": ""},
        {"HTTP_AUTHORIZATION": "Bearer x"},
        {"HTTP_AUTHORIZATION": "AWS AKIAIOSFODNN7EXAMPLE:x"},
        {"HTTP_X_AMZ_DATE": "20261130"},
        {"HTTP_X_AMZ_TARGET": "SageMaker.DeleteTrainingJob"},
        {"HTTP_X_AMZ_META_A": "not signed"},
        {"HTTP_X_AMZ_SECURITY_TOKEN": "a-token"},
        {"REQUEST_METHOD": "PUT"},
        {"RAW_URI": "/moto-api/reset"},
        {"RAW_URI": "/?Action=x"},
        {"wsgi.input": io.BytesIO(b'{"TrainingJobName": "jot"}')},
        {"CONTENT_LENGTH": "25"},
        {"QUERY_STRING": "X-Amz-Signature=1"},
    ],
    ids=lambda changes: "-".join(changes) + "=" + ",".join(v for v in changes.values() if isinstance(v, str))[:40],
)
def test_requests_of_browsers_and_changed_requests_are_refused(changes):
    stub = Stub()
    status, headers, content = answer(create_job(**changes), stub)
    assert (status, stub.seen) == (403, [])
    assert int(headers["Content-Length"]) == len(content)
    assert KEY.secret.encode() not in content


def test_a_missing_host_is_refused():
    environ = create_job()
    del environ["HTTP_HOST"]
    assert answer(environ)[0] == 403


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (AccessKey("AKIAEMULATOREMULATOR", KEY.secret), "UnrecognizedClientException"),
        (AccessKey(KEY.id, "emulator"), "InvalidSignatureException"),
        (AccessKey(KEY.id, KEY.secret, "a-token"), "UnrecognizedClientException"),
        (AccessKey(TEMPORARY.id, TEMPORARY.secret), "UnrecognizedClientException"),
        (AccessKey(TEMPORARY.id, TEMPORARY.secret, "b-token"), "UnrecognizedClientException"),
    ],
    ids=repr,
)
def test_another_key_secret_or_token_is_refused(key, expected):
    stub = Stub()
    answered = answer(signed("GET", "/imported-models", service="bedrock", key=key), stub)
    assert (answered[0], code(answered), stub.seen) == (403, expected, [])


@pytest.mark.parametrize(("minutes", "status"), [(-16, 403), (-14, 200), (0, 200), (14, 200), (16, 403)])
def test_a_signature_is_valid_for_fifteen_minutes(minutes, status):
    assert answer(create_job(), now=datetime.now(UTC) + timedelta(minutes=minutes))[0] == status


@pytest.mark.parametrize(
    ("service", "content_type", "expected"),
    [
        ("s3", None, "AccessDenied"),
        ("iam", "application/x-www-form-urlencoded", "AccessDenied"),
        ("bedrock", None, "AccessDeniedException"),
        ("sagemaker", "application/x-amz-json-1.1", "AccessDeniedException"),
    ],
)
def test_an_error_has_the_code_of_its_service(service, content_type, expected):
    headers = {"Content-Type": content_type} if content_type else {}
    environ = signed("GET", "/b", service=service, headers=headers) | {"HTTP_ORIGIN": "null"}
    assert code(answer(environ)) == expected
    assert answer(environ | {"REQUEST_METHOD": "HEAD"})[2] == b""


# Examples of "Authenticating Requests: Using the Authorization Header", "Using Query Parameters" and "Signature
# Calculations … Multiple Chunks" (Amazon S3), and of "Create a signed AWS API request" (IAM). All use this key.
SHA256_EMPTY = hashlib.sha256().hexdigest()


def published(method, target, *, host, signature, headers, body=b""):
    scope = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
    date = headers.get("X-Amz-Date", "")
    names = ";".join(sorted(["host", *(name.lower() for name in headers)]))
    authorization = f"AWS4-HMAC-SHA256 Credential={scope},SignedHeaders={names},Signature={signature}"
    environ = environ_of(method, target, headers | {"Host": host, "Authorization": authorization}, body)
    return environ, datetime.strptime(date, "%Y%m%dT%H%M%S%z")


@pytest.mark.parametrize(
    ("environ", "now"),
    [
        published(
            "GET",
            "/test.txt",
            host="examplebucket.s3.amazonaws.com",
            signature="f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            headers={"Range": "bytes=0-9", "X-Amz-Content-Sha256": SHA256_EMPTY, "X-Amz-Date": "20130524T000000Z"},
        ),
        published(
            "PUT",
            "/test%24file.text",
            host="examplebucket.s3.amazonaws.com",
            signature="98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            headers={
                "Date": "Fri, 24 May 2013 00:00:00 GMT",
                "X-Amz-Content-Sha256": hashlib.sha256(b"Welcome to Amazon S3.").hexdigest(),
                "X-Amz-Date": "20130524T000000Z",
                "X-Amz-Storage-Class": "REDUCED_REDUNDANCY",
            },
            body=b"Welcome to Amazon S3.",
        ),
        published(
            "PUT",
            "/examplebucket/chunkObject.txt",
            host="s3.amazonaws.com",
            signature="4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
            headers={
                "Content-Encoding": "aws-chunked",
                "Content-Length": "66824",
                "X-Amz-Content-Sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
                "X-Amz-Date": "20130524T000000Z",
                "X-Amz-Decoded-Content-Length": "66560",
                "X-Amz-Storage-Class": "REDUCED_REDUNDANCY",
            },
            body=bytes(66824),
        ),
    ],
    ids=["get", "put", "chunks"],
)
def test_published_signatures_are_valid_and_others_are_not(environ, now):
    # WSGI uses this header without the prefix HTTP_.
    environ["CONTENT_ENCODING"] = environ["HTTP_CONTENT_ENCODING"] = environ.get("CONTENT_ENCODING", "")
    body = environ["wsgi.input"].getvalue()
    hosts = [environ["HTTP_HOST"]]
    assert answer(dict(environ), now=now, hosts=hosts)[0] == 200
    forged = environ["HTTP_AUTHORIZATION"][:-1] + ("0" if environ["HTTP_AUTHORIZATION"][-1] != "0" else "1")
    fresh = environ | {"HTTP_AUTHORIZATION": forged, "wsgi.input": io.BytesIO(body)}
    assert code(answer(fresh, now=now, hosts=hosts)) == "SignatureDoesNotMatch"


def test_the_published_presigned_url_is_valid_for_its_day_only():
    query = (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )
    host = "examplebucket.s3.amazonaws.com"
    begin = datetime(2013, 5, 24, tzinfo=UTC)

    def status(target=f"/test.txt?{query}", method="GET", *, hours=0.0):
        environ = environ_of(method, target, {"Host": host})
        return answer(environ, now=begin + timedelta(hours=hours), hosts=[host])[0]

    assert [status(hours=hours) for hours in (-1, 0, 23.9, 24.1)] == [403, 200, 200, 403]
    assert status(f"/test.text?{query}") == status(method="DELETE") == status(f"/test.txt?{query}&acl") == 403
    assert (
        status(f"/test.txt?{query}&X-Amz-Expires=9") == status(f"/test.txt?{query}".replace("86400", "999999")) == 403
    )


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ("", 200),
        ("&prefix=a&list-type=2", 200),
        ("&retention", 403),
        ("&legal-hold", 403),
        ("&encryption", 403),
        ("&Action=CreateRole", 403),
        ("&x-amz-acl=public-read", 403),
    ],
)
def test_a_url_of_version_2_cannot_be_used_for_another_operation(more, status):
    """The signature of Version 2 does not cover every field of the query."""
    request = AWSRequest("PUT", f"http://{HOST}/bucket/key")
    HmacV1QueryAuth(Credentials(KEY.id, KEY.secret)).add_auth(request)
    assert answer(environ_of("PUT", request.url.removeprefix(f"http://{HOST}") + more, {}))[0] == status


@pytest.mark.parametrize("headers", [{}, {"Authorization": ""}])
def test_moto_gets_the_service_that_a_presigned_url_was_signed_for(headers):
    request = AWSRequest("PUT", f"http://{HOST}/us_east/Action=AssumeRoleWithSAML")
    S3SigV4QueryAuth(Credentials(KEY.id, KEY.secret), "s3", "us-east-1", expires=60).add_auth(request)
    stub = Stub()
    environ = environ_of("PUT", request.url.removeprefix(f"http://{HOST}"), headers, b"Action=AssumeRoleWithSAML")
    assert answer(environ, stub)[0] == 200
    assert "/us-east-1/s3/aws4_request" in stub.seen[0]["HTTP_AUTHORIZATION"]


def upload(body=b"weights", *, signed_body=b"weights", **changes):
    headers = {"X-Amz-Content-Sha256": hashlib.sha256(signed_body).hexdigest()}
    environ = signed("PUT", "/bucket/key", service="s3", body=signed_body, headers=headers)
    return environ | {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)} | changes


class Chunked(io.BytesIO):
    """A chunked body whose third read finds an invalid chunk."""

    def read(self, size=-1):
        if self.tell() > 2 << 20:
            raise OSError("Invalid chunk header")
        return super().read(size)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (upload(b"weighty"), "XAmzContentSHA256Mismatch"),
        (upload(b"weight", CONTENT_LENGTH="7"), "IncompleteBody"),
        (upload(CONTENT_LENGTH="-1"), "InvalidRequest"),
        (upload(CONTENT_LENGTH="0x7"), "InvalidRequest"),
        (upload(CONTENT_LENGTH="9" * 5000), "InvalidRequest"),
        (upload(CONTENT_LENGTH=str(MAX_UPLOAD_BYTES + 1)), "EntityTooLarge"),
        (upload(HTTP_TRANSFER_ENCODING="chunked"), "InvalidRequest"),  # also has a Content-Length
        (upload(HTTP_TRANSFER_ENCODING="gzip, chunked", CONTENT_LENGTH=""), "InvalidRequest"),
        (upload(b"w" * 7, HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH=""), "XAmzContentSHA256Mismatch"),
        (
            upload(HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH="") | {"wsgi.input": Chunked(bytes(4 << 20))},
            "IncompleteBody",
        ),
    ],
)
def test_a_body_that_differs_from_the_signed_one_is_never_complete(environ, expected):
    stub = Stub()
    answered = answer(environ, stub)
    assert answered[0] in (400, 413)
    assert code(answered) == expected
    assert stub.bodies == []


def test_the_error_of_a_body_is_answered_even_if_the_application_catches_it():
    class Hiding(Stub):
        def __call__(self, environ, start_response):
            with pytest.raises(OSError):
                environ["wsgi.input"].read()
            start_response("200 OK", [])
            return [b"stored"]

    assert code(answer(upload(b"weighty"), Hiding())) == "XAmzContentSHA256Mismatch"


@pytest.mark.parametrize("content", [b"", b"w", b"w" * (3 << 20)])
def test_an_upload_is_streamed(content):
    stub = Stub()
    assert answer(upload(content, signed_body=content), stub)[0] == 200
    chunked = upload(content, signed_body=content) | {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
    assert answer(chunked, stub)[0] == 200
    assert stub.bodies == [content, content]


def test_the_size_of_other_bodies_is_limited():
    endless = create_job(CONTENT_LENGTH="") | {"HTTP_TRANSFER_ENCODING": "chunked"}
    endless["wsgi.input"] = io.BytesIO(bytes(MAX_BODY_BYTES + 1))
    for environ in (create_job(CONTENT_LENGTH=str(MAX_BODY_BYTES + 1)), endless):
        assert answer(environ)[0] == 413
    assert answer(signed("GET", "/?" + "&".join("a" * 1001)))[0] == 400


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (KeyError("TrainingJobName"), 400, "SerializationException"),
        (RecursionError("deep"), 400, "SerializationException"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), 400, "SerializationException"),
        (NotImplementedError("no_such_action"), 400, "UnknownOperationException"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_request_that_moto_cannot_parse_is_a_client_error_and_is_logged(error, status, expected, caplog):
    answered = answer(create_job(), Stub(raises=error))
    assert (answered[0], code(answered)) == (status, expected)
    assert (caplog.records != []) == (expected == "SerializationException")
    assert KEY.secret not in caplog.text


@pytest.mark.parametrize("error", [ConnectionResetError("a fault"), OSError("no space left on device")])
def test_errors_that_the_client_did_not_cause_are_raised(error):
    with pytest.raises(type(error)):
        answer(create_job(), Stub(raises=error))


def test_an_html_error_of_the_framework_becomes_an_error_of_the_service():
    class Lost(Stub):
        def __call__(self, _, start_response):
            start_response("405 METHOD NOT ALLOWED", [("Content-Type", "text/html; charset=utf-8")])
            return [b"<!doctype html>\n<html lang=en>"]

    answered = answer(create_job(), Lost())
    assert (answered[0], code(answered)) == (405, "UnknownOperationException")


def test_no_text_contains_the_secret(caplog):
    with caplog.at_level(logging.DEBUG):
        answer(create_job())
        answer(create_job(REQUEST_METHOD="PUT"))
    assert KEY.secret not in caplog.text
    assert KEY.secret not in repr(KEY)
    first, second = AccessKey.random(), AccessKey.random()
    assert len({first.id, second.id, first.secret, second.secret}) == 4
    assert len(first.secret) >= 43  # 32 bytes in base64


HEADER_NAMES = st.sampled_from(
    [
        "AUTHORIZATION",
        "X_AMZ_DATE",
        "DATE",
        "X_AMZ_TARGET",
        "X_AMZ_CONTENT_SHA256",
        "X_AMZ_SECURITY_TOKEN",
        "HOST",
        "TRANSFER_ENCODING",
        "EXPECT",
        "UPGRADE",
        "ACCESS_CONTROL_REQUEST_METHOD",
        "X_MOTO_ACCOUNT_ID",
        "COOKIE",
    ]
)
VALUES = st.one_of(
    st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=80),
    st.sampled_from(["chunked", "UNSIGNED-PAYLOAD", TARGET, HOST, "20261130T000000Z", "websocket"]),
    st.builds(
        "AWS4-HMAC-SHA256 Credential={}/{}/us-east-1/{}/aws4_request, SignedHeaders={}, Signature={}".format,
        st.sampled_from([KEY.id, TEMPORARY.id, "AKIA"]),
        st.sampled_from([datetime.now(UTC).strftime("%Y%m%d"), "20200101", "99999999"]),
        st.sampled_from(["s3", "sagemaker", "iam"]),
        st.sampled_from(["host", "host;x-amz-date", ";", "host;host"]),
        st.text("0123456789abcdef", min_size=60, max_size=64),
    ),
)
QUERIES = st.one_of(
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=80),
    st.builds(
        "AWSAccessKeyId={}&Signature={}&Expires={}".format,
        st.sampled_from([KEY.id, "x"]),
        st.text("ab%2B=", max_size=30),
        st.sampled_from(["9999999999", "1", "x", "٣", "9" * 5000]),
    ),
    st.builds(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}/20261130/us-east-1/s3/aws4_request&X-Amz-Date={}"
        "&X-Amz-Expires={}&X-Amz-SignedHeaders=host&X-Amz-Signature={}".format,
        st.sampled_from([KEY.id, "x"]),
        st.sampled_from([datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"), "20261130T000000Z", "x", "00000000T000000Z"]),
        st.sampled_from(["60", "-1", "", "9" * 5000]),
        st.text("0123456789abcdef", min_size=64, max_size=64),
    ),
)


@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "X"]),
    path=st.text(max_size=40).map("/".__add__),
    query=QUERIES,
    headers=st.dictionaries(HEADER_NAMES, VALUES, max_size=6),
    content_type=st.sampled_from(["", "text/plain", "application/x-amz-json-1.1", "application/x-www-form-urlencoded"]),
    length=st.one_of(st.none(), st.integers(-1, 1 << 70).map(str), VALUES),
    body=st.binary(max_size=60),
)
@example(method="POST", path="/moto-api/reset", query="", headers={}, content_type="", length=None, body=b"")
@settings(max_examples=300)
def test_no_unsigned_request_passes(*, method, path, query, headers, content_type, length, body):
    environ = environ_of(method, f"{path}?{query}", body=body) | {"CONTENT_TYPE": content_type}
    environ |= {f"HTTP_{name}": value for name, value in headers.items()}
    if length is not None:
        environ["CONTENT_LENGTH"] = length
    stub = Stub()
    status, *_ = answer(environ, stub)
    assert 400 <= status < 500
    assert stub.seen == []


@given(
    service=st.sampled_from(["s3", "sagemaker", "bedrock", "iam"]),
    path=st.text(st.sampled_from("ab/.~%20+=&ü"), max_size=12),
    query=st.text(st.sampled_from("ab=&-%20"), max_size=12),
    value=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    body=st.binary(max_size=30),
    data=st.data(),
)
@settings(max_examples=200)
def test_requests_signed_by_botocore_pass_and_changed_ones_do_not(*, service, path, query, value, body, data):
    target = f"/{quote(path, safe='/~%+=&')}?{query}"
    headers = HTTPHeaders()
    headers["X-Amz-Meta-A"] = value.strip()
    environ = signed("POST", target, service=service, body=body, headers=headers)
    stub = Stub()
    assert answer(dict(environ), stub)[0] == 200
    assert stub.bodies == [body]
    name = data.draw(st.sampled_from(["RAW_URI", "REQUEST_METHOD", "HTTP_X_AMZ_META_A", "HTTP_X_AMZ_DATE", "body"]))
    changed = body + b"x" if name == "body" else body
    forged = environ | {"wsgi.input": io.BytesIO(changed), "CONTENT_LENGTH": str(len(changed))}
    if name != "body":
        forged[name] += "x"
    assert answer(forged, Stub())[0] in (400, 403)
