"""ImportedModel with the emulator: a tiny model's answers in every schema equal those of the model itself."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from bedrock_scripted import finish_merged
from sqlquarry import LocalModel, MergedModel, Record
from sqlquarry.aws.polling import Polling
from sqlquarry.bedrock import BedrockImporter
from sqlquarry.emulator import LocalAWS
from sqlquarry.errors import BedrockError
from sqlquarry.models import ImportedModel, RetryPolicy, probe_parity

from conftest import toy_examples

RECORDS = [Record(row["question"], row["schema"], sql=row["sql"]) for row in toy_examples(6)]
SCHEMAS = ["max_tokens", "max_gen_len", "messages", "converse"]
MAX_TOKENS = 12


@pytest.fixture(scope="module")
def merged(lively_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> MergedModel:
    return finish_merged(lively_llama, tmp_path_factory.mktemp("asking") / "merged")


@pytest.fixture(scope="module")
def local(merged: MergedModel) -> LocalModel:
    return LocalModel(merged, max_tokens=MAX_TOKENS, device="cpu")


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    with LocalAWS(import_polls=0, cold_start_calls=2) as running:
        yield running


@pytest.fixture(scope="module")
def model(merged: MergedModel, aws: LocalAWS) -> ImportedModel:
    importer = BedrockImporter(aws.role_arn, session=aws.session(), bucket=aws.bucket, polling=Polling(interval_s=0.01))
    imported = importer.import_model(merged, "asked")
    model = imported.with_options(max_tokens=MAX_TOKENS, retry=RetryPolicy(cold_start_interval_s=0))
    assert model.warm_up() >= 0
    return model


@pytest.mark.filterwarnings("ignore:.*answers were cut")
@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_schema_answers_as_the_weights_do(schema: str, model: ImportedModel, local: LocalModel) -> None:
    report = probe_parity(RECORDS, model.with_options(request_schema=schema), local)
    report.raise_for_disagreement()
    assert report.agreement == 1
    # The prompt has the same tokens whether it is rendered locally or by the server.
    assert report.bos == "same"
    assert len({comparison.served.text for comparison in report.comparisons}) > 1


@pytest.mark.filterwarnings("ignore:.*answers were cut")
@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_schema_streams_the_same_answer(schema: str, model: ImportedModel) -> None:
    asked = model.with_options(request_schema=schema)
    before = model.usage
    (answer,) = asked.generate(RECORDS[:1])
    assert "".join(asked.stream(RECORDS[0])) == answer.text
    usage = model.usage
    assert usage.requests - before.requests == 2
    assert usage.prompt_tokens - before.prompt_tokens == 2 * (answer.prompt_tokens or 0)
    assert usage.completion_tokens - before.completion_tokens == 2 * (answer.completion_tokens or 0)


@pytest.mark.filterwarnings("ignore:.*answers were cut")
def test_another_prompt_is_found_by_the_probe(model: ImportedModel, local: LocalModel) -> None:
    assert model.formatter is not None
    prompts = [model.formatter.prompt(record) for record in RECORDS]
    twice = ["<|endoftext|>" + prompt for prompt in prompts]  # BOS
    report = probe_parity(twice, model, local.generate(prompts))
    assert report.bos == "added"
    with pytest.raises(BedrockError, match="BOS: added"):
        report.raise_for_disagreement()


@pytest.mark.filterwarnings("ignore:.*answers were cut")
def test_stop_texts_end_the_answer(model: ImportedModel) -> None:
    (whole,) = model.generate(RECORDS[:1])
    stop = whole.text[4:6]
    (cut,) = model.with_options(stop=[stop]).generate(RECORDS[:1])
    assert cut.stop_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]


@pytest.mark.filterwarnings("ignore:.*answers were cut")
def test_async_and_sync_answers_are_equal(model: ImportedModel) -> None:
    without_gold = [dataclasses.replace(record, sql=None) for record in RECORDS]
    answers = asyncio.run(model.agenerate(RECORDS))
    assert [answer.text for answer in answers] == [answer.text for answer in model.generate(without_gold)]


def test_usage_is_priced_by_the_models_units(model: ImportedModel) -> None:
    usage = model.usage
    assert usage.requests >= 1
    assert usage.custom_model_units is not None
    assert usage.cost_usd == pytest.approx(usage.windows * 5 * usage.custom_model_units * 0.05718)


def test_the_error_for_a_deleted_model_contains_its_name(model: ImportedModel, aws: LocalAWS) -> None:
    gone = ImportedModel(model.arn[:-12] + "aaaaaaaaaaaa", formatter=model.formatter, session=aws.session())
    with pytest.raises(BedrockError, match="aaaaaaaaaaaa"):
        gone.generate(["x"])
