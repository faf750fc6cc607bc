"""Five-minute billing windows and their price."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_runtime_fakes import FakeTime
from sqlquarry.models import PriceTable, Usage
from sqlquarry.models.imported.cost import UsageMeter


def windows(*answer_times: float) -> int:
    time = FakeTime()
    meter = UsageMeter(time.clock)
    for moment in answer_times:
        time.now = moment
        meter.count(1, 2)
    return meter.usage("us-east-1", None, PriceTable()).windows


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((), 0),
        ((7,), 1),
        ((7, 8, 306), 1),
        ((7, 307), 2),  # The model is asleep, so a new window starts at 307.
        ((7, 200, 400), 2),  # The model is awake, so the next window starts at 307.
        ((7, 200, 400, 606), 2),
        ((7, 200, 400, 607), 3),
        ((0, 100, 400, 650), 2),  # asleep at 400, so the second window begins there
        ((0, 10_000), 2),
    ],
)
def test_number_of_windows(times: tuple[float, ...], expected: int) -> None:
    assert windows(*times) == expected


@given(st.lists(st.integers(0, 1500), min_size=1, max_size=60))
def test_windows_cover_all_answers_and_none_is_empty(gaps: list[int]) -> None:
    times = list(itertools.accumulate(gaps))
    # After five idle minutes the model sleeps. Until then, windows follow each other without a gap.
    awake: list[list[int]] = []
    for moment in times:
        if awake and moment - awake[-1][-1] < 300:
            awake[-1].append(moment)
        else:
            awake.append([moment])
    assert windows(*times) == sum(len({(moment - run[0]) // 300 for moment in run}) for run in awake)


@given(st.lists(st.floats(0, 1500), min_size=2, max_size=40))
def test_more_answers_never_cost_less(gaps: list[float]) -> None:
    times = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    assert windows(*times[:-1]) <= windows(*times) <= windows(*times[:-1]) + 1


def test_the_published_example_of_one_window() -> None:
    # 2 custom model units in us-east-1: 5 x 2 x 0.05718.
    assert PriceTable().inference_usd("us-east-1", units=2, windows=1) == pytest.approx(0.5718)


def test_unknown_regions_have_no_price_and_tables_can_be_replaced() -> None:
    assert PriceTable().inference_usd("us-east-2", 2, 1) is None
    assert PriceTable(usd_per_cmu_minute={"us-east-2": 0.1}).inference_usd("us-east-2", 2, 3) == pytest.approx(3.0)
    assert PriceTable(usd_per_cmu_month=2).storage_usd_per_month(8) == 16


def test_usage_without_units_has_no_price() -> None:
    time = FakeTime()
    meter = UsageMeter(time.clock)
    meter.count(None, None)
    meter.count(5, 6)
    assert meter.usage("us-east-1", None, PriceTable()) == Usage(2, 5, 6, 1)
    priced = meter.usage("eu-central-1", 1, PriceTable())
    assert priced == Usage(2, 5, 6, 1, 1, pytest.approx(5 * 0.07144), 1.95)
