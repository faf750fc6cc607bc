"""The rows and the learning rate of each step: every row occurs once per epoch, in an order that the seed decides."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.training.steps.schedule import Schedule
from sqlquarry.training.steps.world import World

schedules = st.builds(
    Schedule,
    rows=st.integers(1, 40),
    rows_per_step=st.integers(1, 12),
    epochs=st.floats(0.1, 4),
    warmup_ratio=st.floats(0, 0.9),
    peak_rate=st.just(1e-3),
    seed=st.integers(0, 5),
)


@given(schedules)
def test_every_epoch_has_every_row_once(schedule: Schedule) -> None:
    for epoch in range(math.floor(schedule.epochs)):
        steps = range(epoch * schedule.steps_per_epoch, (epoch + 1) * schedule.steps_per_epoch)
        assert sorted(row for step in steps for row in schedule.rows_of(step)) == list(range(schedule.rows))
        assert [schedule.ends_epoch(step) for step in steps][-1]


@given(schedules)
def test_the_rate_rises_to_the_peak_and_never_reaches_zero(schedule: Schedule) -> None:
    rates = [schedule.rate(step) for step in range(schedule.steps)]
    warmup = math.ceil(schedule.steps * schedule.warmup_ratio)
    assert all(0 < rate <= schedule.peak_rate for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert math.isclose(max(rates), schedule.peak_rate)


def test_the_rate_rises_in_a_line_and_falls_as_a_cosine() -> None:
    schedule = Schedule(rows=100, rows_per_step=1, epochs=1, warmup_ratio=0.2, peak_rate=8e-4, seed=0)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(8e-4 / 20)
    assert rates[4] == pytest.approx(2e-4)  # a quarter of the warm-up
    assert rates[9] == pytest.approx(4e-4)  # half of it
    assert rates[19] == rates[20] == pytest.approx(8e-4)
    assert rates[40] == pytest.approx(8e-4 * (2 + math.sqrt(2)) / 4)  # a quarter of the fall: (1 + cos 45°) / 2
    assert rates[60] == pytest.approx(4e-4)  # half of it
    assert rates[80] == pytest.approx(8e-4 * (2 - math.sqrt(2)) / 4)  # three quarters of it


@pytest.mark.parametrize(
    ("epochs", "ends"), [(0.5, [4]), (1.0, [9]), (1.5, [9, 14]), (2.0, [9, 19]), (0.01, [0]), (2.31, [9, 19, 23])]
)
def test_epochs_end_after_all_rows_and_after_the_last_step(epochs: float, ends: list[int]) -> None:
    schedule = Schedule(rows=39, rows_per_step=4, epochs=epochs, warmup_ratio=0, peak_rate=1e-3, seed=0)
    assert [step for step in range(schedule.steps) if schedule.ends_epoch(step)] == ends


def test_the_order_depends_only_on_the_seed_and_the_epoch() -> None:
    one = Schedule(20, 5, 2, 0.1, 1e-3, seed=7)
    again = Schedule(20, 5, 2, 0.5, 1e-4, seed=7)
    epochs = [[row for step in steps for row in one.rows_of(step)] for steps in (range(4), range(4, 8))]
    assert epochs[0] != epochs[1]
    assert [again.rows_of(step) for step in range(8)] == [one.rows_of(step) for step in range(8)]
    assert Schedule(20, 5, 2, 0.1, 1e-3, seed=8).rows_of(0) != one.rows_of(0)


@given(st.lists(st.integers(), min_size=1, max_size=20, unique=True), st.integers(1, 6))
def test_processes_share_a_step_evenly_and_padding_does_not_count(items: list[int], size: int) -> None:
    shares = [World(rank, size, size, None).share(items) for rank in range(size)]  # type: ignore[arg-type]  # no device
    assert len({len(share) for share in shares}) == 1
    assert sorted(item for share in shares for item, counts in share if counts) == sorted(items)
