"""Bias, penalties and truncation give the results of transformers' logits processors, in vLLM's order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sqlquarry.errors import ConfigError
from sqlquarry.models.local.sampling import Sampling, adjusted, pick, truncated

VOCABULARY = 40
rows = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=12), min_size=3, max_size=3)
seeds = st.integers(0, 2**32)
budget = settings(max_examples=40, deadline=None)


def logits_of(seed):
    return torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


@budget
@given(seed=seeds, prompts=rows, written=rows, penalty=st.floats(0.3, 3))
def test_the_repetition_penalty_is_that_of_transformers(seed, prompts, written, penalty):
    logits = logits_of(seed)
    found = adjusted(logits, Sampling(repetition_penalty=penalty), prompts, written)
    processor = RepetitionPenaltyLogitsProcessor(penalty)
    for row in range(3):
        seen = torch.tensor([prompts[row] + written[row]], dtype=torch.long)
        assert torch.equal(found[row : row + 1], processor(seen, logits[row : row + 1]))


@budget
@given(
    seed=seeds,
    written=rows,
    presence=st.floats(-2, 2),
    frequency=st.floats(-2, 2),
    bias=st.dictionaries(st.integers(0, VOCABULARY - 1), st.floats(-100, 100)),
)
def test_openais_penalties_count_only_the_answer(seed, written, presence, frequency, bias):
    """mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence (OpenAI, "Advanced usage")."""
    logits = logits_of(seed)
    options = Sampling(presence_penalty=presence, frequency_penalty=frequency, logit_bias=bias)
    found = adjusted(logits, options, [[5, 7]] * 3, written)
    for row in range(3):
        for token in range(VOCABULARY):
            count = written[row].count(token)
            expected = logits[row, token].item() + bias.get(token, 0) - count * frequency - (count > 0) * presence
            assert found[row, token].item() == pytest.approx(expected, abs=1e-4)


@budget
@given(
    seed=seeds,
    temperature=st.floats(0.05, 5),
    min_p=st.one_of(st.just(0.0), st.floats(0.001, 1)),
    top_k=st.integers(0, VOCABULARY + 5),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 0.999)),
)
def test_truncation_is_that_of_transformers_in_vllms_order(seed, temperature, min_p, top_k, top_p):
    logits = logits_of(seed)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    warpers += [MinPLogitsWarper(min_p)] if min_p else []
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    found = truncated(logits / temperature, Sampling(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p))
    assert torch.equal(found, warpers(torch.zeros(3, 1, dtype=torch.long), logits))
    assert found.isfinite().any(dim=-1).all()


def test_the_given_logits_are_not_changed():
    logits = logits_of(0)
    before = logits.clone()
    options = Sampling(repetition_penalty=2, presence_penalty=1, logit_bias={3: 9.0}, top_k=2, temperature=1)
    pick(adjusted(logits, options, [[1]] * 3, [[2]] * 3), options, torch.Generator())
    assert torch.equal(logits, before)


def test_drawn_tokens_follow_the_remaining_probabilities():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(20_000, 4)
    drawn = pick(logits, Sampling(temperature=1, top_k=2), torch.Generator().manual_seed(0)).bincount(minlength=4)
    assert drawn[:2].tolist() == [0, 0]
    assert drawn[3] / 20_000 == pytest.approx(1 / (1 + 2.718281828**-1), abs=0.02)
    assert set(pick(logits, Sampling(temperature=1e-6), torch.Generator()).tolist()) == {3}
    assert pick(logits * 1e30, Sampling(temperature=1e-4), torch.Generator())[0] == 3  # no overflow to NaN


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0},
        {"top_p": 1.01},
        {"top_k": -2},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition_penalty": 0},
        {"repetition_penalty": float("nan")},
        {"presence_penalty": 2.1},
        {"frequency_penalty": -2.1},
        {"logit_bias": {1: 101.0}},
        {"logit_bias": {-1: 1.0}},
    ],
)
def test_the_error_for_an_option_out_of_range_has_its_name(options):
    ((name, _),) = options.items()
    with pytest.raises(ConfigError, match=name):
        Sampling(**options)


def test_all_bad_options_are_reported_at_once():
    with pytest.raises(ConfigError, match=r"top_p.*min_p"):
        Sampling(top_p=2, min_p=2)
