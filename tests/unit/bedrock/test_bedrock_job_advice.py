"""Every known reason for a failed import job has a cause and a fix, and every row has its own message."""

from __future__ import annotations

import pytest

from sqlquarry.bedrock import import_failures
from sqlquarry.bedrock.import_failures import job_advice

# Reported messages (Bedrock's own text if known), then a value in the cause and one in the fix.
JOB_FAILURES = [
    ("could not find the expected file config.json", "archive", "uncompressed prefix"),
    ("could not find s3://b/out/model.tar.gz/config.json", "archive", "uncompressed prefix"),
    ("Unsupported model architecture: NemotronHForCausalLM", "architecture", "base model"),
    ("model type qwen3_5 is not supported", "architecture", "base model"),
    ("could not find the expected file model.safetensors.index.json", "model.safetensors.index.json", "preflight"),
    ("size mismatch for model.layers.0.self_attn.q_proj.weight", "quantized weights", "16-bit"),
    ("config.json holds quantization_config", "quantized weights", "16-bit"),
    ("AccessDenied: role may not call s3:GetObject", "prefix", "aws:ResourceAccount"),
    ("The ciphertext refers to a KMS key that does not exist", "bucket's key", "kms:DescribeKey"),
    ("Tokenizer class TokenizersBackend does not exist", "transformers 4.51.3", "import_model"),
    ("'list' object has no attribute 'keys'", "transformers 4.51.3", "import_model"),
    ("adapter_config.json belongs to an adapter", "LoRA", "AdapterMerger"),
    ("model-00001.safetensors is truncated: it has 9 bytes", "incomplete", "SHA-256"),
]


@pytest.mark.parametrize(("message", "cause", "fix"), JOB_FAILURES)
def test_reasons_of_failed_jobs(message: str, cause: str, fix: str) -> None:
    advice = job_advice(message)
    before, after = advice.split(" Fix: ")
    assert cause in before
    assert fix in after


def test_every_row_of_the_table_has_a_message_above() -> None:
    found = {job_advice(message) for message, _, _ in JOB_FAILURES}
    # There is no public list of the rows, and a row without a test must not go unnoticed.
    assert found == {f"Cause: {row.cause}. Fix: {row.fix}." for row in import_failures._JOB_FAILURES}


def test_an_unknown_reason_gets_no_advice() -> None:
    assert job_advice("the moon is full") == ""
