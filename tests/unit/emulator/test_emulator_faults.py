"""Selection, number and duration of faults, and the cold starts of a model."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.emulator import faults as kinds
from sqlquarry.emulator.bedrock.timing import IDLE_S, ColdStart
from sqlquarry.emulator.clock import ManualClock
from sqlquarry.emulator.faults import (
    AccessDenied,
    ExpiredToken,
    Faults,
    InternalError,
    NoText,
    NotReady,
    RateLimit,
    RoleUnknown,
    Throttled,
)
from sqlquarry.errors import ConfigError


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def faults(clock):
    return Faults(clock)


@given(times=st.integers(1, 20))
def test_a_fault_happens_the_given_number_of_times(times):
    faults = Faults()
    faults.add(NoText(times=times))
    assert [faults.take(NoText) is not None for _ in range(times + 2)] == [True] * times + [False] * 2
    assert faults.pending() == []


def test_a_fault_with_a_duration_ends_after_it(faults, clock):
    faults.add(NotReady(duration_s=90))
    for _ in range(3):
        clock.advance(29)
        assert faults.refusal("InvokeModel").code == "ModelNotReadyException"
    clock.advance(3)
    assert faults.refusal("InvokeModel") is None


def test_the_fault_that_was_added_first_happens_first(faults):
    faults.add(Throttled(times=2), InternalError())
    codes = [faults.refusal("InvokeModelWithResponseStream").code for _ in range(3)]
    assert codes == ["ThrottlingException", "ThrottlingException", "InternalServerException"]


def test_operations_and_keys_select_the_requests(faults):
    faults.add(AccessDenied(operation="UploadPart", key="model/*.safetensors"), RoleUnknown())
    assert faults.refusal("UploadPart", "model/config.json") is None
    assert faults.refusal("PutObject", "model/a.safetensors") is None
    assert faults.refusal("UploadPart", "model/a.safetensors").code == "AccessDeniedException"
    assert faults.refusal("CreateModelImportJob").message == "The provided role ARN is invalid"


def test_a_rate_limit_allows_one_request_per_interval(faults, clock):
    faults.add(RateLimit(per_second=2))
    passed = []
    for _ in range(12):
        passed.append(faults.refusal("InvokeModel") is None)
        clock.advance(0.25)
    assert passed == [True, False] * 6


def test_clear_ends_all_faults(faults):
    faults.add(ExpiredToken(), NoText(times=math.inf))
    faults.clear()
    assert faults.refusal("GetRole") is None
    assert faults.take(NoText) is None


@pytest.mark.parametrize(
    ("operation", "denied"), [("GetObject", True), ("s3:Get*", True), ("PutObject", False), ("iam:GetObject", False)]
)
def test_denies_follows_the_faults(faults, operation, denied):
    faults.add(AccessDenied(operation=operation))
    assert faults.denies("s3:GetObject") is denied
    assert len(faults.pending()) == 1  # `denies` does not count as a use


@pytest.mark.parametrize(
    "make",
    [
        lambda: NoText(times=0),
        lambda: NotReady(duration_s=0),
        lambda: Throttled(times=math.nan),
        lambda: RateLimit(per_second=0),
    ],
)
def test_invalid_numbers_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_every_fault_has_a_docstring():
    classes = [kind for kind in vars(kinds).values() if isinstance(kind, type) and issubclass(kind, kinds.Fault)]
    assert len(classes) > 15
    assert all(kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(") for kind in classes)


def test_a_model_is_cold_at_first_and_after_five_idle_minutes():
    cold_start = ColdStart(calls=2, duration_s=0)
    assert [cold_start.refuses(0), cold_start.refuses(1), cold_start.refuses(2)] == [True, True, False]
    assert not cold_start.refuses(2 + IDLE_S - 1)  # this call keeps the model loaded
    assert not cold_start.refuses(2 + 2 * (IDLE_S - 1))
    asleep = 2 + 2 * (IDLE_S - 1) + IDLE_S
    assert [cold_start.refuses(asleep), cold_start.refuses(asleep), cold_start.refuses(asleep)] == [True, True, False]


def test_a_cold_start_may_take_longer_than_the_idle_time():
    cold_start = ColdStart(calls=0, duration_s=1000)
    assert [cold_start.refuses(t) for t in (0, 400, 999, 1000, 1001)] == [True, True, True, False, False]


def test_without_cold_options_a_model_is_always_warm():
    cold_start = ColdStart(calls=0, duration_s=0)
    assert not any(cold_start.refuses(t) for t in (0, 1, 1000, 5000))
