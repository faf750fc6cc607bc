"""Token IDs of SentencePiece tokenizers in import, preflight and repair, with the emulated transformers 4.51.3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sqlquarry as sq
import tokenizer_shapes as shapes
from sqlquarry.aws.polling import Polling
from sqlquarry.bedrock import BedrockImporter
from sqlquarry.bedrock.export.model_export import ModelExport
from sqlquarry.bedrock.preflight import preflight, repair
from sqlquarry.emulator import LocalAWS
from sqlquarry.models.local.model import LocalModel

TOKENS = 560
# Tokenizer shape -> preflight code of its problem if the tokenizer is not repaired.
BROKEN = {
    "tinyllama": "served-tokens",
    "legacy": "served-tokens",
    "add_prefix_space False, legacy True": "tokenizer-load",
}
RECORDS = [
    sq.Record("How many users are there?", "CREATE TABLE users (id)"),
    sq.Record("What does </s>mean,  and <s> too?", "CREATE TABLE é (a)\n\n\tCREATE TABLE 漢 (b)"),
]


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    with LocalAWS(cold_start_calls=0) as aws:
        yield aws


@pytest.fixture(scope="module", params=BROKEN)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(shape: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny model as this library merges it, with weights, the base's own tokenizer files and the prompt."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    directory = tmp_path_factory.mktemp("model")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 1}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=TOKENS, bos_token_id=1, eos_token_id=2, **sizes)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    files = {name: content for name, content in shapes.SHAPES[shape].items() if name != "config.json"}
    shapes.write(files, directory)
    sq.PromptFormatter().bind(AutoTokenizer.from_pretrained(directory)).save(directory)
    return directory


def counts(aws: LocalAWS, model: Path, name: str) -> list[int]:
    """Return the number of prompt tokens that the server reports for each record."""
    importer = BedrockImporter(
        aws.role_arn, session=aws.session(), show_progress=False, polling=Polling(interval_s=0.01)
    )
    served = importer.import_model(model, name, s3_uri=f"s3://{aws.bucket}/{name}/")
    formatter = sq.PromptFormatter.load(model)
    with pytest.warns(UserWarning, match=r"\b1 tokens?\b"):
        answers = served.with_options(max_tokens=1).generate([formatter.prompt(record) for record in RECORDS])
    served.delete()
    return [answer.prompt_tokens for answer in answers]


def trained(model: Path) -> list[int]:
    local = LocalModel(model, formatter=sq.PromptFormatter.load(model), device="cpu")
    return [len(local.tokenizer(local.formatter.prompt(record))["input_ids"]) for record in RECORDS]


def label(shape: str) -> str:
    return "".join(letter for letter in shape if letter.isalpha())


def test_the_server_uses_the_trained_tokens(aws: LocalAWS, model: Path, shape: str) -> None:
    assert counts(aws, model, f"repaired-{label(shape)}") == trained(model)


def put(aws: LocalAWS, files: dict[str, Any], prefix: str) -> str:
    s3 = aws.session().client("s3")
    for name, content in files.items():
        body = content.read_bytes() if isinstance(content, Path) else content
        s3.put_object(Bucket=aws.bucket, Key=f"{prefix}/{name}", Body=body)
    return f"s3://{aws.bucket}/{prefix}/"


def unrepaired(model: Path) -> dict[str, Any]:
    """Return the files of an earlier version of the export, which did not repair the tokenizer."""
    kept = {"tokenizer.json": model / "tokenizer.json", "tokenizer_config.json": model / "tokenizer_config.json"}
    return {**ModelExport.of(model).files, **kept}


def codes(source: Any, **options: Any) -> list[str]:
    # A finished upload has a manifest, but here no manifest is uploaded.
    found = preflight(source, **options).findings
    return [one.code for one in found if one.severity == "error" and one.code != "unfinished"]


def test_an_unrepaired_model_on_s3_is_refused_and_can_be_repaired(
    aws: LocalAWS, model: Path, shape: str, tmp_path: Path
) -> None:
    files = unrepaired(model)
    report = preflight(put(aws, files, f"broken-{label(shape)}"), account=True, session=aws.session())
    (finding,) = [one for one in report.findings if one.severity == "error" and one.code != "unfinished"]
    assert (finding.code, finding.repairable) == (BROKEN[shape], True)

    local = tmp_path / "local"
    shapes.write({name: c.read_bytes() if isinstance(c, Path) else c for name, c in files.items()}, local)
    repair(local, output_dir=tmp_path / "repaired")
    assert codes(tmp_path / "repaired") == []
    mended = {path.name: path for path in (tmp_path / "repaired").iterdir()}
    assert codes(put(aws, mended, f"mended-{label(shape)}"), account=True, session=aws.session()) == []


def test_the_emulator_shows_the_served_ids_of_an_unrepaired_model(aws: LocalAWS, model: Path, shape: str) -> None:
    uri = put(aws, unrepaired(model), f"raw-{label(shape)}")
    bedrock = aws.session().client("bedrock")
    source = {"s3DataSource": {"s3Uri": uri}}
    job = bedrock.create_model_import_job(
        jobName=label(shape), importedModelName=label(shape), roleArn=aws.role_arn, modelDataSource=source
    )["jobArn"]
    while (state := bedrock.get_model_import_job(jobIdentifier=job))["status"] == "InProgress":
        pass
    if BROKEN[shape] == "tokenizer-load":
        assert (state["status"], "add_prefix_space" in state["failureMessage"]) == ("Failed", True)
        return
    prompt = sq.PromptFormatter.load(model).prompt(RECORDS[1])
    body = json.dumps({"prompt": prompt, "max_tokens": 1, "temperature": 0})
    answer = aws.session().client("bedrock-runtime").invoke_model(modelId=state["importedModelArn"], body=body)
    served = json.loads(answer["body"].read())["usage"]["prompt_tokens"]
    bedrock.delete_imported_model(modelIdentifier=state["importedModelArn"])

    assert served != trained(model)[1]


def test_preflight_warns_if_local_answers_of_an_old_checkpoint_may_differ(
    model: Path, shape: str, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    repair(model, output_dir=old)
    (old / "prompt.json").unlink()
    shapes.write({name: shapes.SHAPES[shape][name] for name in ("tokenizer.json", "tokenizer_config.json")}, old)
    warned = [finding.code for finding in preflight(old).findings if finding.severity == "warning"]
    assert codes(old) == []
    assert ("local-tokens" in warned) == (BROKEN[shape] == "served-tokens")
