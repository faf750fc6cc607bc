"""Every kind of failed import job is predicted by preflight and explained by the importer.

The names of the rows are those of the table in docs/import-failures.md.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bedrock_flows import Flow, flow
from bedrock_scripted import finish_merged
from sqlquarry.aws.failures import bedrock_error
from sqlquarry.bedrock.preflight import preflight, repair
from sqlquarry.emulator.bedrock.converse import UNSUPPORTED
from sqlquarry.emulator.faults import AccessDenied, Fault, Refused
from sqlquarry.errors import ImportJobError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def edited(name: str, **changes: Any) -> Callable[[Path], None]:
    """Return a function that changes keys of a JSON file."""

    def change(model: Path) -> None:
        path = model / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def archive(model: Path) -> None:
    with tarfile.open(model / "model.tar.gz", "w:gz") as tar:
        for path in sorted(model.iterdir()):
            if path.name != "model.tar.gz":
                tar.add(path, path.name)
                path.unlink()


def one_level_deeper(model: Path) -> None:
    (model / "checkpoint").mkdir()
    for path in [path for path in model.iterdir() if path.is_file()]:
        path.rename(model / "checkpoint" / path.name)


def two_shards(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / WEIGHTS)
    names = sorted(tensors)
    for shard, held in zip(SHARDS, (names[:3], names[3:]), strict=True):
        save_file({name: tensors[name] for name in held}, model / shard, metadata={"format": "pt"})
    (model / WEIGHTS).unlink()
    weight_map = {name: SHARDS[name not in names[:3]] for name in names}
    (model / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def no_index(model: Path) -> None:
    two_shards(model)
    (model / INDEX).unlink()


def lost_shard(model: Path) -> None:
    two_shards(model)
    (model / SHARDS[1]).unlink()


def leftovers(model: Path) -> None:
    two_shards(model)
    shutil.copy(model / SHARDS[0], model / "consolidated.safetensors")


def gguf(model: Path) -> None:
    (model / WEIGHTS).rename(model / "model.gguf")


def truncated(model: Path) -> None:
    (model / WEIGHTS).write_bytes((model / WEIGHTS).read_bytes()[:-1])


def adapter(model: Path) -> None:
    (model / WEIGHTS).rename(model / "adapter_model.safetensors")
    (model / "adapter_config.json").write_text("{}")


def unchanged(_: Path) -> None:
    pass


def missing(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).unlink()


READ = "Could not validate GetObject permissions to access Amazon S3 bucket"
# Row -> change to the files, preflight's code, the service's reason, values in cause and fix, and a denied permission.
ROWS: dict[str, tuple[Callable[[Path], None], str, str, str, *tuple[Fault, ...]]] = {
    "archive": (archive, "file", r"expected file config\.json", "archive.*uncompressed prefix"),
    "wrong-level": (one_level_deeper, "file", r"expected file config\.json", "archive.*uncompressed prefix"),
    "partial-upload": (missing("config.json"), "file", r"expected file config\.json", "partial upload.*preflight"),
    "no-tokenizer": (missing("tokenizer.json"), "file", r"tokenizer\.json", r"transformers 4\.51\.3.*import_model"),
    "architecture": (
        edited("config.json", architectures=["NemotronHForCausalLM"], model_type="nemotron_h"),
        "architecture",
        "unsupported model architecture NemotronHForCausalLM",
        "architecture.*base model.*preflight",
    ),
    "index-missing": (no_index, "index-missing", r"model\.safetensors\.index\.json", "shards.*preflight"),
    "shard-missing": (lost_shard, "shard-missing", rf"file {SHARDS[1]}", "shards.*preflight"),
    "quantized": (
        edited("config.json", quantization_config={"quant_method": "awq", "bits": 4}),
        "quantized",
        "quantized weights cannot be imported",
        "quantized weights.*16-bit.*empty prefix",
    ),
    "leftovers": (
        leftovers,
        "stray-shard",
        r"size mismatch for .*consolidated\.safetensors",
        "leftovers.*empty prefix",
    ),
    "gguf": (gguf, "weights", r"expected file model\.safetensors", "partial upload.*preflight"),
    "truncated": (truncated, "weights", r"model\.safetensors is truncated", "incomplete.*import_model.*SHA-256"),
    "role-may-not-list": (
        unchanged,
        "role-permissions",
        f"{READ}.*s3:ListBucket",
        "s3:GetObject and s3:ListBucket.*aws:ResourceAccount",
        AccessDenied(operation="s3:ListBucket"),
    ),
    "role-may-not-read": (
        unchanged,
        "role-permissions",
        f"{READ}.*s3:GetObject",
        "s3:GetObject and s3:ListBucket.*aws:ResourceAccount",
        AccessDenied(operation="s3:GetObject"),
    ),
    "role-may-not-decrypt": (
        unchanged,
        "role-permissions",
        f"{READ}.*kms:Decrypt",
        "bucket's key.*kms:Decrypt and kms:DescribeKey",
        AccessDenied(operation="kms:Decrypt"),
    ),
    "tokenizer-class": (
        edited("tokenizer_config.json", tokenizer_class="TokenizersBackend"),
        "tokenizer-class",
        "unsupported tokenizer class TokenizersBackend",
        r"transformers 4\.51\.3.*import_model",
    ),
    "special-tokens": (
        edited("tokenizer_config.json", extra_special_tokens=["<|im_end|>"]),
        "special-tokens",
        "'list' object has no attribute 'keys'",
        r"transformers 4\.51\.3.*import_model",
    ),
    "add-prefix-space": (
        edited("tokenizer_config.json", tokenizer_class="LlamaTokenizer", add_prefix_space=False),
        "tokenizer-load",
        "add_prefix_space",
        r"transformers 4\.51\.3.*import_model",
    ),
    "adapter": (adapter, "adapter", r"adapter_config\.json belongs to an adapter", "LoRA.*AdapterMerger"),
}


@pytest.fixture(scope="module")
def checkpoint(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint for which preflight has no findings."""
    directory = tmp_path_factory.mktemp("table") / "model"
    repair(tiny_llama, output_dir=directory)
    return directory


@pytest.fixture(scope="module")
def running(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    with flow(finish_merged(tiny_llama, tmp_path_factory.mktemp("table") / "merged"), import_s=0) as one:
        yield one


@pytest.fixture
def way(running: Flow) -> Flow:
    running.aws.reset()
    return running


@pytest.mark.parametrize("row", ROWS)
def test_a_failed_job_is_predicted_and_explained(row: str, way: Flow, checkpoint: Path, tmp_path: Path) -> None:
    change, code, reason, advice, *denied = ROWS[row]
    model = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    change(model)
    for path in (path for path in model.rglob("*") if path.is_file()):
        way.s3.upload_file(str(path), way.aws.bucket, f"flow/{path.relative_to(model).as_posix()}")
    if row == "role-may-not-decrypt":
        key = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "arn:aws:kms:us-east-1:123456789012:key/mine"}
        rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": key}]}
        way.s3.put_bucket_encryption(Bucket=way.aws.bucket, ServerSideEncryptionConfiguration=rules)
    way.aws.faults.add(*denied)

    report = preflight(way.uri, "flow", account=True, session=way.session, role_arn=way.aws.role_arn)
    assert code in {finding.code for finding in report.findings if finding.severity == "error"}

    source = {"s3DataSource": {"s3Uri": way.uri}}
    names = {"jobName": "flow", "importedModelName": "flow"}
    job = way.bedrock.create_model_import_job(**names, roleArn=way.aws.role_arn, modelDataSource=source)["jobArn"]
    with pytest.raises(ImportJobError, match=f"{job} .*{reason}.* Cause: .*{advice}"):
        way.importer.attach(job)


def test_the_unchanged_checkpoint_is_imported(way: Flow, checkpoint: Path) -> None:
    for path in checkpoint.iterdir():
        way.s3.upload_file(str(path), way.aws.bucket, f"flow/{path.name}")
    assert way.importer.import_model(way.uri, "flow").generate(["SELECT 1"])[0].text == "SELECT 1"


def test_converse_refuses_imported_models_and_the_advice_names_the_other_call(way: Flow) -> None:
    model = way.run()  # a Llama, for which AWS documents Converse, although users report that it is refused
    way.aws.faults.add(Refused(operation="Converse", code="ValidationException", message=UNSUPPORTED))
    message = {"role": "user", "content": [{"text": "SELECT 1"}]}
    with pytest.raises(ClientError) as caught:
        way.session.client("bedrock-runtime").converse(modelId=model.arn, messages=[message])
    described = str(bedrock_error(caught.value, "asking"))
    assert re.search("This action doesn't support the model that you provided.*InvokeModel.*Converse", described)


def test_the_limits_key_selects_the_answer_format_and_both_are_read(way: Flow) -> None:
    model = way.run()
    runtime = way.session.client("bedrock-runtime")
    for limit, key in (("max_gen_len", "generation"), ("max_tokens", "choices")):
        body = json.dumps({"prompt": "SELECT 1", limit: 8, "temperature": 0})
        answer = json.loads(runtime.invoke_model(modelId=model.arn, body=body)["body"].read())
        assert key in answer
        assert ("generation" in answer) != ("choices" in answer)
        assert model.with_options(request_schema=limit).generate(["SELECT 1"])[0].text == "SELECT 1"
