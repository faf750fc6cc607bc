"""probe_parity on scripted answers: agreement, refusals, and what it reports about BOS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.answers import Generation
from sqlquarry.errors import BedrockError, ConfigError
from sqlquarry.models import probe_parity
from sqlquarry.models.parity import split_pieces
from sqlquarry.records import Record


class Scripted:
    """A generator that returns the given answers in order."""

    def __init__(self, *answers: Generation | str) -> None:
        self.answers = [Generation(answer) if isinstance(answer, str) else answer for answer in answers]

    def generate(self, inputs: Sequence[Record] | Sequence[str], /) -> list[Generation]:
        assert len(inputs) == len(self.answers)
        return self.answers


def test_the_same_answers_pass() -> None:
    report = probe_parity(["a", "b"], Scripted("SELECT 1", ""), Scripted("SELECT 1", ""))
    assert (report.agreement, report.prefix_agreement, report.bos) == (1.0, 1.0, "unknown")
    report.raise_for_disagreement()
    for value in ("2 of 2", "100.0%", "98.0%"):
        assert value in str(report)


def test_the_error_for_a_model_below_the_threshold_shows_the_first_differences() -> None:
    prompts = [f"question {i}" for i in range(10)]
    served = Scripted(*["SELECT a FROM t"] * 9, "SELECT b FROM t")
    report = probe_parity(prompts, served, Scripted(*["SELECT a FROM t"] * 10))
    assert report.agreement == 0.9
    assert report.prefix_agreement == pytest.approx((9 + 1 / 4) / 10)
    with pytest.raises(BedrockError) as caught:
        report.raise_for_disagreement()
    for part in ("9 of 10", "question 9", "'SELECT b FROM t'", "'SELECT a FROM t'", "rope_theta"):
        assert part in str(caught.value)
    assert "question 8" not in str(caught.value)
    probe_parity(prompts, served, Scripted(*["SELECT a FROM t"] * 10), threshold=0.9).raise_for_disagreement()


def test_at_most_five_differences_are_shown() -> None:
    report = probe_parity(["x"] * 30, Scripted(*["a"] * 30), Scripted(*["b"] * 30))
    assert len(str(report).splitlines()) == 6


def test_recorded_answers_and_a_record_as_prompt() -> None:
    record = Record("How many?", "CREATE TABLE t (a)")
    report = probe_parity([record], Scripted("a"), [Generation("b")])
    assert report.comparisons[0].prompt == "How many?"
    assert report.agreement == 0


def test_a_cut_answer_agrees_with_a_longer_one_that_starts_with_it() -> None:
    cut, whole = Generation("SELECT a", "length"), Generation("SELECT a FROM t", "stop")
    assert probe_parity(["x"], Scripted(cut), [whole]).agreement == 1
    assert probe_parity(["x"], Scripted(whole), [cut]).agreement == 1
    # An answer that ended by itself is a different answer.
    assert probe_parity(["x"], Scripted(Generation("SELECT a", "stop")), [whole]).agreement == 0
    assert probe_parity(["x"], Scripted(Generation("", "length")), [whole]).agreement == 0


def counted(*tokens: int | None) -> list[Generation]:
    return [Generation("a", prompt_tokens=count) for count in tokens]


@pytest.mark.parametrize(
    ("served", "expected", "bos"),
    [
        ((10, 20), (10, 20), "same"),
        ((11, 21), (10, 20), "added"),
        ((9, 19), (10, 20), "missing"),
        ((13, 23), (10, 20), "other"),
        ((10, 21), (10, 20), "other"),
        ((None, None), (10, 20), "unknown"),
        ((11, None), (10, 20), "added"),
    ],
)
def test_bos_is_derived_from_the_numbers_of_prompt_tokens(served: Any, expected: Any, bos: str) -> None:
    report = probe_parity(["x", "y"], Scripted(*counted(*served)), counted(*expected))
    assert report.bos == bos
    assert f"BOS: {bos}" in str(report)


def test_logprobs_are_compared_if_both_sides_have_them() -> None:
    def answer(*logprobs: float, text: str = "a") -> Generation:
        return Generation(text, logprobs=logprobs or None)

    report = probe_parity(["x", "y"], Scripted(answer(-0.1, -0.5), answer(-1.0)), [answer(-0.1, -0.75), answer()])
    assert report.logprob_difference == pytest.approx(0.25)
    assert "0.25" in str(report)
    assert probe_parity(["x"], Scripted(answer(-9.0, text="b")), [answer(-0.1)]).logprob_difference is None
    assert probe_parity(["x"], Scripted(answer()), [answer(-0.1)]).logprob_difference is None


@pytest.mark.parametrize(
    ("prompts", "local", "threshold", "message"),
    [
        ([], [], 0.98, r"prompts\b"),
        ("one", [Generation("a")] * 3, 0.98, r"prompts\b"),
        (["a"], [], 0.98, r"local\b\D*\b0\b.*\b1\b"),
        (["a"], [Generation("a")], 1.5, r"threshold\b.*\b1\.5\b"),
    ],
)
def test_bad_arguments_are_refused_before_a_model_is_called(
    prompts: Any, local: Any, threshold: float, message: str
) -> None:
    class Untouched:
        def generate(self, _: Any, /) -> list[Generation]:
            raise AssertionError("the model was called")

    with pytest.raises(ConfigError, match=message):
        probe_parity(prompts, Untouched(), local, threshold=threshold)


@given(st.text())
def test_pieces_add_up_to_the_text(text: str) -> None:
    assert "".join(split_pieces(text)) == text


@given(st.lists(st.sampled_from(["a", " b", ",", "1"]), max_size=8), st.lists(st.sampled_from(["a", " b", ","])))
def test_the_agreed_share_is_symmetric_and_one_only_for_equal_answers(one: list[str], other: list[str]) -> None:
    first, second = "".join(one), "".join(other)
    there = probe_parity(["x"], Scripted(first), [Generation(second)])
    back = probe_parity(["x"], Scripted(second), [Generation(first)])
    assert there.prefix_agreement == back.prefix_agreement
    assert 0 <= there.prefix_agreement <= 1
    assert (there.agreement == 1) == (first == second) == (there.prefix_agreement == 1)
