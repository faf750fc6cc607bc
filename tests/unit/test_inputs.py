"""Checks of the arguments of every generator, which run before any request."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sqlquarry import Record, Records
from sqlquarry.errors import ConfigError
from sqlquarry.inputs import check_inputs, option_problems, stop_problems

RECORD = Record("How many?", "CREATE TABLE t (a)")
BAD: dict[str, Any] = {
    "one text": "How many?",
    "one record": RECORD,
    "bytes": b"How many?",
    "nothing": None,
    "a mapping": {"question": "How many?"},
    "a generator": (text for text in ["How many?"]),
    "rows": [{"question": "How many?"}],
    "a number among texts": ["a", 3],
    "texts and records": [RECORD, "How many?"],
    "records and texts": ["How many?", RECORD],
}


@pytest.mark.parametrize("kind", BAD)
def test_inputs_must_be_a_list_of_records_or_of_prompts(kind: str) -> None:
    with pytest.raises(ConfigError, match="complete"):
        check_inputs(BAD[kind], method="complete")


@pytest.mark.parametrize("inputs", [[], ["a", ""], ("a",), [RECORD, RECORD], Records([RECORD])])
def test_lists_of_records_or_of_prompts_are_accepted(inputs: Any) -> None:
    check_inputs(inputs)
    if any(isinstance(item, Record) for item in inputs):
        with pytest.raises(ConfigError, match=r"\b0\b.*Record"):
            check_inputs(inputs, records=False)


@pytest.mark.parametrize("value", [0, -3, 1.5, "8", None, True, math.nan])
def test_counts_must_be_whole_numbers_of_at_least_1(value: Any) -> None:
    (problem,) = option_problems({"fine": 1, "max_tokens": value}, {})
    assert problem.startswith(f"max_tokens is {value!r}")


@pytest.mark.parametrize("value", [-0.1, math.nan, "1", None, True, -math.inf])
def test_amounts_must_be_numbers_of_at_least_0(value: Any) -> None:
    (problem,) = option_problems({}, {"zero": 0, "endless": math.inf, "temperature": value})
    assert problem.startswith(f"temperature is {value!r}")


@pytest.mark.parametrize("stop", [";", b";", None, [""], [3], [["a"]]])
def test_stop_must_be_a_list_of_strings_that_are_not_empty(stop: Any) -> None:
    assert len(stop_problems(stop)) == 1
    assert stop_problems([";", "\n"]) == stop_problems(()) == []
