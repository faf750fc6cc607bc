"""Errors of AWS are explained by one table, without secrets."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, NoCredentialsError

from sqlquarry.aws.failures import aws_errors, bedrock_error, described, is_transient
from sqlquarry.aws.known_errors import KNOWN_ERRORS, KnownError
from sqlquarry.errors import BedrockError, DataError


def refusal(code: str, message: str = "words") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "CreateModelImportJob")


@pytest.mark.parametrize(
    ("code", "message", "advice"),
    [
        ("ValidationException", "The provided role ARN is invalid", "aws:SourceAccount"),
        ("ValidationException", "This action doesn't support the model that you provided", "InvokeModel, not Converse"),
        ("ValidationException", "The provided model identifier is invalid.", "deleted meanwhile"),
        ("ServiceQuotaExceededException", "quota increase for Concurrent model import jobs", "wait for the other one"),
        ("ServiceQuotaExceededException", "Imported models per account", "L-45B04988"),
        ("ConflictException", "in use", "unique per account and region"),
        ("AccessDeniedException", "no", "iam:PassRole"),
        ("ResourceNotFoundException", "gone", "deleted"),
        ("ExpiredTokenException", "The security token included in the request is expired", "Renew the credentials"),
        ("UnrecognizedClientException", "The security token included in the request is invalid.", "Log in again"),
        ("AccessDenied", "User x is not authorized to perform: iam:CreateRole", "may manage IAM"),
        ("NoSuchUpload", "gone", "Another process"),
        ("modelStreamErrorException", "broken", "Ask again later"),
        ("ModelErrorException", "CUDA error", "prompt's length"),
    ],
)
def test_refusals(code: str, message: str, advice: str) -> None:
    told = bedrock_error(refusal(code, message), "doing it")
    assert isinstance(told, BedrockError)
    assert str(told).startswith("doing it failed: ")
    assert message.rstrip(".") in str(told)
    assert advice in str(told)


def test_what_was_signed_is_not_repeated() -> None:
    said = (
        "The request signature we calculated does not match. Check your AWS Secret Access Key.\n\n"
        "The Canonical String for this request should have been\n'POST\n/model\nx-amz-security-token:SECRET'"
    )
    text = str(bedrock_error(refusal("InvalidSignatureException", said), "invoking"))
    assert "SECRET" not in text
    assert "does not match" in text
    assert "check the clock" in text


def test_transient_or_not() -> None:
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
        told = described(refusal(code, row.fragment or "words"), "doing it", service=row.service)
        assert told.endswith(row.advice)


def test_advice_for_one_service_is_given_for_that_one_alone() -> None:
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
    with pytest.raises(DataError, match=r"Check the bucket's name"), aws_errors(DataError, "doing it", advice=advice):
        raise refusal("NoSuchBucket")


@pytest.mark.parametrize("secret", ["hf_" + "a1" * 10, "AKIA" + "A1" * 8, "X-Amz-Signature=0123456789abcdef"])
def test_secrets_are_not_repeated(secret: str) -> None:
    error = refusal("403", f"refused https://host/?a=1&{secret} here")
    assert secret not in described(error, "doing it")
    assert secret not in str(error)
