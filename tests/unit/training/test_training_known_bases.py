"""Well-known bases can be planned from a table, whose sizes give the number of parameters on the hub."""

from __future__ import annotations

import pytest

from sqlquarry import QLoRAFSDPTrainer, TrainingConfig
from sqlquarry.errors import UnsupportedModelError
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.training.base.known_bases import known_shape
from sqlquarry.training.base.token_estimator import BYTES_PER_TOKEN, TokenEstimator
from sqlquarry.training.encoding.prepared import prepare

from conftest import toy_examples

RECORDS = [Record(**example) for example in toy_examples(60)]
# Parameters in the safetensors on the hub. Qwen3 0.6B and 1.7B contain the tied head twice; here it counts once.
PUBLISHED = {
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "meta-llama/Meta-Llama-3-70B-Instruct": 70_553_706_496,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Meta-Llama-3.1-70B": 70_553_706_496,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Llama-3.3-70B-Instruct": 70_553_706_496,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-Instruct-v0.2": 7_241_732_096,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-Coder-14B-Instruct": 14_770_033_664,
    "Qwen/Qwen2.5-32B": 32_763_876_352,
    "Qwen/Qwen2.5-72B-Instruct": 72_706_203_648,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B-Base": 1_720_574_976,
    "Qwen/Qwen3-4B-Instruct-2507": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-14B-Base": 14_768_307_200,
    "Qwen/Qwen3-32B": 32_762_123_264,
}


@pytest.mark.parametrize(("hub_id", "parameters"), PUBLISHED.items())
def test_sizes_give_the_published_number_of_parameters(hub_id: str, parameters: int) -> None:
    shape = known_shape(hub_id)
    assert shape is not None
    assert shape.parameters == parameters
    assert known_shape(hub_id.lower()) == shape


@pytest.mark.parametrize(
    "hub_id", ["meta-llama/Llama-3.2-8B", "Qwen/Qwen3-8B-GGUF", "me/Qwen3-8B", "Qwen/Qwen2x5-7B", "Qwen/Qwen3-30B-A3B"]
)
def test_a_similar_name_is_not_a_known_base(hub_id: str) -> None:
    assert known_shape(hub_id) is None


def test_a_known_base_is_planned_without_the_hub_from_estimated_tokens() -> None:
    plan = QLoRAFSDPTrainer("Qwen/Qwen2.5-7B-Instruct").plan(RECORDS, instance_type="ml.g5.2xlarge")
    assert plan.shape.parameters == PUBLISHED["Qwen/Qwen2.5-7B-Instruct"]
    assert "LocalEntryNotFoundError" in plan.estimated
    (line,) = (line for line in plan.summary().splitlines() if line.startswith("estimate"))
    assert "estimated" in line


def test_an_unknown_base_without_the_hub_is_a_typed_error() -> None:
    with pytest.raises(UnsupportedModelError, match=r"acme/private-9b .*LocalEntryNotFoundError"):
        QLoRAFSDPTrainer("acme/private-9b").plan(RECORDS, instance_type="ml.g5.2xlarge")


@pytest.mark.parametrize("template", ["human-assistant", "chat"])
def test_an_estimate_counts_bytes_and_shares_prefixes(template: str) -> None:
    shape = known_shape("meta-llama/Meta-Llama-3-8B")
    assert shape is not None
    shared, separate = (
        prepare(RECORDS, PromptFormatter(template=template), TokenEstimator(), config, shape=shape)
        for config in (TrainingConfig(), TrainingConfig(share_prefixes=False))
    )
    assert sum(size.tokens for size in shared.row_sizes) < sum(size.tokens for size in separate.row_sizes)
    formatter = PromptFormatter(template=template).bind(TokenEstimator())
    written = len((formatter.prompt(RECORDS[0]) + formatter.completion(RECORDS[0])).encode())
    assert 0 <= len(shared.examples[0].input_ids) - written / BYTES_PER_TOKEN < 2
    # A character outside ASCII has several bytes.
    assert len(TokenEstimator()("国" * 30)["input_ids"]) == 30
