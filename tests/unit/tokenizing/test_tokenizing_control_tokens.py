"""Test that the text of special tokens is refused in answers and counted in prompts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import PromptFormatter, Record
from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.tokenizing.control_tokens import ending_token, note_in_prompts, refuse_in_answers, stop_token_id

from conftest import CHATML, tiny_tokenizer


@dataclass
class Added:
    content: str
    special: bool = True

    def __str__(self) -> str:
        return self.content


@dataclass
class Tokens:
    """A tokenizer with special tokens like Llama 3's and one ordinary word that was added."""

    added_tokens_decoder: dict[int, Any] = field(
        default_factory=lambda: (
            {n: Added(f"<|reserved_special_token_{n}|>") for n in range(250)}
            | {250: Added("<s>"), 251: Added("<|eot_id|>"), 252: Added("SELECT", special=False)}
        )
    )


LLAMA = Tokens()
PLAIN = Record("How many?", "CREATE TABLE t (a)", "SELECT a FROM t WHERE a < 3 AND b <> '<b>'")


@pytest.mark.parametrize("sql", ["SELECT '%<|eot_id|>%'", "SELECT '<s>'", "SELECT 1 -- <|reserved_special_token_7|>"])
def test_answers_with_a_special_token_are_refused(sql: str) -> None:
    records = [PLAIN, Record("q", "s", sql, id="r-7"), Record("q", "s")]
    with pytest.raises(RecordError, match=r"r-7 \("):
        refuse_in_answers(records, LLAMA)
    refuse_in_answers([PLAIN, Record("<s>", "<s>", "SELECT 1", alternatives=("SELECT '<s>'",))], LLAMA)


def test_encoding_for_training_refuses_them_too() -> None:
    formatter, tokenizer = PromptFormatter(template="chat"), tiny_tokenizer()
    record = Record("q", "s", "SELECT * FROM logs WHERE line LIKE '%<|im_end|>%'")
    with pytest.raises(RecordError, match=r"record 0 \(<\|im_end\|>\)"):
        formatter.encode(record, tokenizer)
    split = Record("q", "s", "SELECT * FROM logs WHERE line LIKE '%<|im_' || 'end|>%'")
    assert formatter.encode(split, tokenizer).labels.count(tokenizer.eos_token_id) == 1


def test_special_tokens_in_prompts_are_counted() -> None:
    records = [PLAIN, Record("<s>What?</s>", "s"), Record("<s>", "a <|eot_id|> <|eot_id|> <s>"), Record("SELECT", "s")]
    note = note_in_prompts(records, LLAMA)
    assert note is not None
    assert note.startswith("2 records")
    assert "<s> in 2" in note
    assert "<|eot_id|> in 1" in note
    assert note_in_prompts([PLAIN], LLAMA) is None
    assert note_in_prompts([Record("q", "s", notes="<s>")], LLAMA) is not None


def test_62_000_records_are_checked_in_seconds() -> None:
    schema = "CREATE TABLE head (age INTEGER, born_state VARCHAR, name VARCHAR); " * 3
    records = [
        Record(f"How many heads are older than {n}?", schema, f"SELECT 1 WHERE age < {n}") for n in range(62_000)
    ]
    started = time.process_time()
    refuse_in_answers(records, LLAMA)
    note_in_prompts(records, LLAMA)
    assert time.process_time() - started < 5


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 9)), st.text(max_size=4))
def test_the_ending_token_is_the_longest_that_matches(tokens: dict[str, int], text: str) -> None:
    ends = [content for content in tokens if content and text.endswith(content)]
    assert ending_token(text, tokens) == (tokens[max(ends, key=len)] if ends else None)


@pytest.mark.parametrize("end", ["\n### End", "<|im_end|>\nbye", ";", "<|end|>", "SELECT"])
def test_a_turn_that_ends_with_plain_text_is_not_bound(end: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["SELECT"])
    with pytest.raises(ConfigError):
        PromptFormatter(template=CHATML.replace("<|im_end|>\n", end)).bind(tokenizer)
    with pytest.raises(ConfigError):
        stop_token_id(tokenizer, end)


@pytest.mark.parametrize("end", ["<|im_end|>", " <|endoftext|>", "</answer><|pad|>\n", "<|im_end|>\n<|endoftext|>"])
def test_a_turn_that_ends_with_a_special_token_is_bound(end: str) -> None:
    tokenizer = tiny_tokenizer()
    bound = PromptFormatter(template=CHATML.replace("<|im_end|>\n", end)).bind(tokenizer)
    assert bound.tokens is not None
    stop = stop_token_id(tokenizer, bound.tokens.stop)
    assert tokenizer(bound.completion(PLAIN), add_special_tokens=False)["input_ids"][-1] == stop
