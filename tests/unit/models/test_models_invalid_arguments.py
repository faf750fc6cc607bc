"""Models on Bedrock refuse bad inputs and options before they send anything."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from bedrock_runtime_fakes import RECORD, FakeSession, foundation, imported
from sqlquarry.errors import ConfigError
from sqlquarry.models import RetryPolicy


@pytest.mark.parametrize("make", [imported, foundation])
@pytest.mark.parametrize("inputs", ["hi", RECORD, [RECORD, "hi"], ["hi", 3], None, {"question": "hi"}])
def test_inputs_must_be_a_list_of_one_kind(make: Any, inputs: Any) -> None:
    session = FakeSession()
    with pytest.raises(ConfigError):
        make(session).generate(inputs)
    assert session.bodies == []


@pytest.mark.parametrize("inputs", ["hi", [RECORD]])
def test_generate_json_accepts_only_a_list_of_texts(inputs: Any) -> None:
    with pytest.raises(ConfigError, match="generate_json"):
        foundation(FakeSession()).generate_json(inputs, {"type": "object"})


def retrying(session: FakeSession, **options: Any) -> Any:
    return imported(session, retry=RetryPolicy(**options))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (imported, {"max_tokens": 0}),
        (imported, {"max_tokens": 2.5}),
        (imported, {"stop": ";"}),
        (retrying, {"cold_start_budget_s": math.nan}),
        (foundation, {"max_tokens": True}),
        (foundation, {"temperature": math.nan}),
        (foundation, {"temperature": -0.5}),
        (foundation, {"stop": [""]}),
        (foundation, {"concurrency": 0}),
    ],
)
def test_options_out_of_range(make: Any, options: dict[str, Any]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ConfigError, match=rf"\b{name}\b.*{re.escape(repr(value))}"):
        make(FakeSession(), **options)
