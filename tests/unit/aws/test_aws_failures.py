"""AWS errors get their advice from one table and contain no secrets."""

from __future__ import annotations

import itertools
import re

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, NoCredentialsError

from sqlquarry.aws.failures import aws_errors, bedrock_error, described, is_transient
from sqlquarry.aws.known_errors import KNOWN_ERRORS, KnownError, Service
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
        (
            "ValidationException",
            "The provided job name is currently in use.",
            "name is currently in use",
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
        if code.lower() in map(str.lower, row.codes)
        and (row.fragments, row.service) == ((fragment,) if fragment else (), service)
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
        ("ValidationException", "The provided model identifier is invalid.", "deleted"),
        ("ServiceQuotaExceededException", "quota increase for Concurrent model import jobs", "other job"),
        ("UnrecognizedClientException", "The security token included in the request is invalid.", "clock"),
        ("AccessDenied", "User x is not authorized to perform: iam:CreateRole", "IAM"),
        ("NoSuchUpload", "gone", "process"),
        ("modelStreamErrorException", "broken", "service"),
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
    for code, fragment in itertools.product(row.codes, row.fragments or ["words"]):
        assert described(refusal(code, fragment), "doing it", service=row.service).endswith(row.advice)


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ('No S3 objects found under S3 URL "s3://bucket/image-assumed/not found/"', "s3:PutObject"),
        ("Could not assume role arn:aws:iam::1:role/image. Please ensure that the role exists", "sts:AssumeRole"),
        ("Cannot find the requested image: 1.dkr.ecr.us-east-1.amazonaws.com/s3:latest", "ecr:BatchGetImage"),
        ("Requested image 1.dkr.ecr.us-east-1.amazonaws.com/train:1 not found", "ecr:BatchGetImage"),
        ("Access denied for repository: train in registry ID: 1", "ecr:BatchGetImage"),
        ("Requested resource not found.", "job's name"),
    ],
)
def test_a_refusal_of_sagemaker_gets_the_advice_for_its_cause(message: str, remedy: str) -> None:
    (row,) = (
        row
        for row in KNOWN_ERRORS
        if row.service == "sagemaker" and row.codes == ("ValidationException",) and remedy in row.advice
    )
    text = described(refusal("ValidationException", message), "doing it", service="sagemaker")
    assert text.endswith(row.advice)


@pytest.mark.parametrize(
    ("message", "service"),
    [
        ("1 validation error detected: Value 'a b' at 'jobName' failed to satisfy constraint", "bedrock"),
        ("messages.0: field username is not supported", "bedrock"),
        ("1 validation error detected: Value 'x' at 'outputDataConfig.s3OutputPath' is not valid", "sagemaker"),
        ("Value 'Pipe' at 'inputMode' is not valid for s3://bucket/images, as we assume a file", "sagemaker"),
        ("You must specify exactly one of TrainingImage and AlgorithmName", "sagemaker"),
    ],
)
def test_words_in_other_messages_do_not_draw_advice(message: str, service: Service) -> None:
    text = described(refusal("ValidationException", message), "doing it", service=service)
    assert text.endswith(f"operation: {message}.")


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
