"""Every known reason of a failed import job has its cause and its fix, and every row a message of its own."""

from __future__ import annotations

import pytest

from sqlquarry.bedrock import import_failures
from sqlquarry.bedrock.import_failures import job_advice

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
    assert met == {f"Cause: {row.cause}. To do: {row.fix}." for row in import_failures._JOB_FAILURES}


def test_an_unknown_reason_gets_no_advice() -> None:
    assert job_advice("the moon is full") == ""
