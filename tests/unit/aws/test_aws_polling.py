"""Settings for waiting: timeouts, invalid values and immutability."""

import dataclasses

import pytest

from sqlquarry.aws.polling import Polling
from sqlquarry.errors import ConfigError


def test_a_wait_is_over_at_its_timeout_but_never_without_a_timeout() -> None:
    assert [Polling(timeout_s=10.0).is_over(waited) for waited in (0.0, 9.9, 10.0)] == [False, False, True]
    assert not Polling(timeout_s=None).is_over(1e9)


def test_with_timeout_replaces_only_the_automatic_timeout() -> None:
    assert Polling(interval_s=5.0).with_timeout(60.0).is_over(60.0)
    assert not Polling(timeout_s=None).with_timeout(60.0).is_over(60.0)
    assert not Polling(timeout_s=100.0).with_timeout(60.0).is_over(60.0)


@pytest.mark.parametrize(
    "options",
    [
        {"interval_s": 0},
        {"interval_s": -1.0},
        {"timeout_s": 0.0},
        {"timeout_s": float("inf")},
        {"timeout_s": "long"},
        {"interval_s": float("nan")},
        {"interval_s": "1"},
        {"sleep": 3},
        {"interval": 3},
    ],
)
def test_invalid_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Polling(**options)  # type: ignore[arg-type] # wrong on purpose


def test_the_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Polling().interval_s = 1.0  # type: ignore[misc] # wrong on purpose
