"""LocalModel checks inputs, options and the length of prompts before it computes anything."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import Any

import pytest

from sqlquarry.errors import ConfigError
from sqlquarry.models.local.decoding import DecodingOptions
from sqlquarry.models.local.model import LocalModel
from sqlquarry.models.local.sampling import Sampling
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record

from conftest import save_tiny_llama

RECORD = Record("How many users are there?", "CREATE TABLE users (id)")


@pytest.fixture(scope="module")
def model(lively_llama: Path) -> LocalModel:
    return LocalModel(lively_llama, formatter=PromptFormatter(), device="cpu", max_tokens=2)


@pytest.mark.parametrize("inputs", ["How many?", RECORD, [RECORD, "How many?"], None, [3]])
def test_generate_accepts_only_a_list_of_one_kind(model: LocalModel, inputs: Any) -> None:
    with pytest.raises(ConfigError):
        model.generate(inputs)


@pytest.mark.parametrize("prompts", ["How many?", [RECORD], ["a", ""], [""]])
def test_complete_accepts_only_a_list_of_texts_with_tokens(model: LocalModel, prompts: Any) -> None:
    with pytest.raises(ConfigError):
        model.complete(prompts)
    assert model.complete([]) == model.generate([]) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 2.5),
        ("min_tokens", -1),
        ("min_tokens", math.nan),
        ("stop", ";"),
        ("stop", [""]),
        ("min_tokens", 1.5),
        ("min_tokens", 300),
        ("sampling", "greedy"),
        ("seed", "1"),
        ("seed", 2**70),
        ("stop_token_ids", "5"),
        ("stop_token_ids", [10**9]),
        ("stop_token_ids", [-1]),
        ("constraint", "a+"),
    ],
)
def test_options_of_complete(model: LocalModel, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"\b{name}\b.*{re.escape(repr(value))}"):
        model.complete(["SELECT"], DecodingOptions(**{name: value}))


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("batch_size", "8"), ("max_tokens", -1)])
def test_options_of_the_model(lively_llama: Path, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"\b{name}\b.*{value!r}"):
        LocalModel(lively_llama, device="cpu", **{name: value})


def test_tokens_and_characters_that_do_not_exist(model: LocalModel) -> None:
    with pytest.raises(ConfigError, match=r"logit_bias\b.*\b1000000\b"):
        model.complete(["SELECT"], DecodingOptions(sampling=Sampling(logit_bias={10**6: 1.0})))
    for ask in (model.complete, model.generate):
        with pytest.raises(ConfigError, match=r"\b1\b.*\\udc80"):
            ask(["SELECT", "caf\udc80"])


def test_an_answer_ends_with_the_context_and_a_prompt_that_fills_it_is_refused(tmp_path: Path) -> None:
    base = save_tiny_llama(tmp_path / "base", initializer_range=0.3)
    config = base / "config.json"
    config.write_text(config.read_text().replace('"max_position_embeddings": 2048', '"max_position_embeddings": 24'))
    model = LocalModel(base, device="cpu")
    words = model.tokenizer("a b c d e f g h i j k l m n o p q r s t u v w x y z")["input_ids"]
    fitting, full = (model.tokenizer.decode(words[:count]) for count in (20, 24))
    with pytest.raises(ConfigError, match=r"\b1\b.*\b24\b.*\b24\b.*max_position_embeddings"):
        model.complete(["a", full])
    short, long = model.complete(["a", fitting], DecodingOptions(max_tokens=30))
    assert (long.stop_reason, long.completion_tokens) == ("length", 4)
    assert (short.stop_reason, short.completion_tokens) == ("length", 23)


def test_special_tokens_in_records_are_logged_once(model: LocalModel, caplog: pytest.LogCaptureFixture) -> None:
    record = Record("What does <|im_start|> mean?", "CREATE TABLE users (id)")
    with caplog.at_level(logging.WARNING, "sqlquarry"):
        model.generate([RECORD])
        assert caplog.messages == []
        for _ in range(2):
            model.generate([RECORD, record])
    (message,) = caplog.messages
    assert "<|im_start|> in 1" in message


def test_a_prompt_of_another_tokenizer_is_refused(lively_llama: Path) -> None:
    from sqlquarry.prompt import HUMAN_ASSISTANT
    from sqlquarry.tokenizing.bound_tokens import BoundTokens

    bound = PromptFormatter(tokens=BoundTokens(HUMAN_ASSISTANT, "", "</s>", adds_bos=False, stop="</s>"))
    with pytest.raises(ConfigError, match="</s>"):
        LocalModel(lively_llama, formatter=bound, device="cpu")
