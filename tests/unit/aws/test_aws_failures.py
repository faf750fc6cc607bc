"""AWS errors get their advice from one table and contain no secrets."""

from __future__ import annotations

import re

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, NoCredentialsError

from sqlquarry.aws.failures import aws_errors, bedrock_error, described, is_transient
from sqlquarry.aws.known_errors import KNOWN_ERRORS, KnownError
from sqlquarry.errors import BedrockError, DataError


def refusal(code: str, message: str = "words") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "CreateModelImportJob")


@pytest.mark.parametrize(
    ("code", "message", "fragment", "service"),
    [
        ("ValidationException", "The provided role ARN is invalid", "role arn is invalid", "bedrock"),
        (
            "ValidationException",
            "This action doesn't support the model that you provided",
            "doesn't support the model",
            "bedrock",
        ),
        (
            "ValidationException",
            "The provided model identifier is invalid.",
            "model identifier is invalid",
            "bedrock",
        ),
        (
            "ServiceQuotaExceededException",
            "quota increase for Concurrent model import jobs",
            "concurrent model import",
            "bedrock",
        ),
        ("ServiceQuotaExceededException", "Imported models per account", "", "bedrock"),
        ("ConflictException", "in use", "", "bedrock"),
        ("AccessDeniedException", "no", "", "bedrock"),
        ("ResourceNotFoundException", "gone", "", "bedrock"),
        ("ExpiredTokenException", "The security token included in the request is expired", "", None),
        ("UnrecognizedClientException", "The security token included in the request is invalid.", "", None),
        (
            "AccessDenied",
            "User x is not authorized to perform: iam:CreateRole",
            "not authorized to perform: iam:",
            None,
        ),
        ("NoSuchUpload", "gone", "", None),
        ("modelStreamErrorException", "broken", "", "bedrock"),
        ("ModelErrorException", "CUDA error", "", "bedrock"),
    ],
)
def test_a_refusal_gets_the_advice_of_its_row(code: str, message: str, fragment: str, service: str | None) -> None:
    (row,) = (
        row
        for row in KNOWN_ERRORS
        if code.lower() in map(str.lower, row.codes) and (row.fragment, row.service) == (fragment, service)
    )
    error = bedrock_error(refusal(code, message), "doing it")
    assert isinstance(error, BedrockError)
    text = f"An error occurred ({code}) when calling the CreateModelImportJob operation: {message.rstrip('.')}"
    assert str(error) == f"doing it failed: {text}. {row.advice}"


@pytest.mark.parametrize(
    ("code", "message", "remedy"),
    [
        ("ValidationException", "The provided role ARN is invalid", "aws:SourceAccount"),
        ("ValidationException", "This action doesn't support the model that you provided", "InvokeModel"),
        ("ServiceQuotaExceededException", "Imported models per account", "L-45B04988"),
        ("ConflictException", "in use", "job_name"),
        ("AccessDeniedException", "no", "iam:PassRole"),
        ("ResourceNotFoundException", "gone", "import_model"),
        ("ExpiredTokenException", "The security token included in the request is expired", "aws sso login"),
        ("ModelErrorException", "CUDA error", "probe_parity"),
    ],
)
def test_advice_names_the_remedy(code: str, message: str, remedy: str) -> None:
    assert remedy in str(bedrock_error(refusal(code, message), "doing it"))


def test_the_signed_request_is_not_repeated() -> None:
    signed = (
        "The request signature we calculated does not match. Check your AWS Secret Access Key.\n\n"
        "The Canonical String for this request should have been\n'POST\n/model\nx-amz-security-token:SECRET'"
    )
    text = str(bedrock_error(refusal("InvalidSignatureException", signed), "invoking"))
    (row,) = (row for row in KNOWN_ERRORS if "InvalidSignatureException" in row.codes)
    assert "SECRET" not in text
    assert "does not match" in text
    assert text.endswith(row.advice)


def test_temporary_errors_are_transient() -> None:
    url = "http://127.0.0.1:1"
    for error in (EndpointConnectionError(endpoint_url=url), ConnectTimeoutError(endpoint_url=url)):
        assert is_transient(error)
    assert is_transient(refusal("SlowDown"))
    assert not is_transient(refusal("AccessDenied"))
    assert not is_transient(refusal("ExpiredToken"))
    assert not is_transient(NoCredentialsError())


@pytest.mark.parametrize("row", KNOWN_ERRORS)
def test_no_row_is_hidden_by_an_earlier_one(row: KnownError) -> None:
    for code in row.codes:
        text = described(refusal(code, row.fragment or "words"), "doing it", service=row.service)
        assert text.endswith(row.advice)


def test_advice_for_one_service_is_given_for_that_service_only() -> None:
    bedrock, sagemaker, other = (
        described(refusal("ExpiredToken"), "doing it", service=service) for service in ("bedrock", "sagemaker", None)
    )
    assert "launcher.attach" in sagemaker
    assert bedrock == other
    assert "launcher.attach" not in other


def test_the_advice_of_the_caller_comes_first() -> None:
    advice = {"403": "Ask the owner."}
    with (
        pytest.raises(DataError, match=r"doing it failed: .*\. Ask the owner\. And more\.$"),
        aws_errors(DataError, "doing it", "And more.", advice=advice),
    ):
        raise refusal("403")
    (row,) = (row for row in KNOWN_ERRORS if "NoSuchBucket" in row.codes and row.service is None)
    with (
        pytest.raises(DataError, match=re.escape(row.advice) + "$"),
        aws_errors(DataError, "doing it", advice=advice),
    ):
        raise refusal("NoSuchBucket")


@pytest.mark.parametrize("secret", ["hf_" + "a1" * 10, "AKIA" + "A1" * 8, "X-Amz-Signature=0123456789abcdef"])
def test_secrets_are_not_repeated(secret: str) -> None:
    error = refusal("403", f"refused https://host/?a=1&{secret} here")
    assert secret not in described(error, "doing it")
    assert secret not in str(error)
