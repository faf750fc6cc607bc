"""Every known failure has its cause and its fix; every row of the table is met by a message of its own."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, NoCredentialsError

from sqlquarry.aws import advice as failures
from sqlquarry.aws.advice import explained, is_transient, job_advice
from sqlquarry.errors import BedrockError

# Messages as reported (bedrock's own words where known), then a word of the cause and one of the fix.
JOB_FAILURES = [
    ("could not find the expected file config.json", "another level", "directly below"),
    ("could not find s3://b/out/model.tar.gz/config.json", "archive", "uncompressed prefix"),
    ("Unsupported model architecture: NemotronHForCausalLM", "does not serve this architecture", "base model"),
    ("model type qwen3_5 is not supported", "architecture", "preflight lists them"),
    ("could not find the expected file model.safetensors.index.json", "several shards", "preflight"),
    ("size mismatch for model.layers.0.self_attn.q_proj.weight", "quantised", "16-bit weights"),
    ("config.json holds quantization_config", "quantised", "empty prefix"),
    ("AccessDenied: role may not call s3:GetObject", "may not read the prefix", "aws:ResourceAccount"),
    ("The ciphertext refers to a KMS key that does not exist", "the bucket's key", "kms:DescribeKey"),
    ("Tokenizer class TokenizersBackend does not exist", "transformers 4.51.3", "rewrites them"),
    ("'list' object has no attribute 'keys'", "transformers 4.51.3", "rewrites them"),
    ("adapter_config.json belongs to an adapter", "LoRA adapter", "merge it"),
    ("model-00001.safetensors is truncated: it has 9 bytes", "did not arrive whole", "import_model again"),
]


@pytest.mark.parametrize(("message", "cause", "fix"), JOB_FAILURES)
def test_reasons_of_failed_jobs(message: str, cause: str, fix: str) -> None:
    advice = job_advice(message)
    before, after = advice.split(" To do: ")
    assert cause in before
    assert fix in after


def test_every_row_is_met_by_one_of_them() -> None:
    met = {job_advice(message) for message, _, _ in JOB_FAILURES}
    assert met == {f"Cause: {row.cause}. To do: {row.fix}." for row in failures._JOB_FAILURES}


def test_an_unknown_reason_gets_no_advice() -> None:
    assert job_advice("the moon is full") == ""


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
    told = explained(refusal(code, message), "doing it")
    assert isinstance(told, BedrockError)
    assert str(told).startswith("doing it failed: ")
    assert message.rstrip(".") in str(told)
    assert advice in str(told)


def test_what_was_signed_is_not_repeated() -> None:
    said = (
        "The request signature we calculated does not match. Check your AWS Secret Access Key.\n\n"
        "The Canonical String for this request should have been\n'POST\n/model\nx-amz-security-token:SECRET'"
    )
    text = str(explained(refusal("InvalidSignatureException", said), "invoking"))
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
