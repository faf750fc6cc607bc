"""Batching, delivery of errors and the pool of loaded models, with a fake model."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from sqlquarry.answers import Generation
from sqlquarry.emulator.bedrock.completion_request import DEFAULT_MAX_TOKENS, CompletionRequest, Decoding
from sqlquarry.emulator.bedrock.engine import EnginePool, InferenceEngine
from sqlquarry.emulator.requests.errors import ApiError
from sqlquarry.models.local.decoding import DecodingOptions
from sqlquarry.models.local.sampling import Sampling

GREEDY = Decoding(max_tokens=4, sampling=Sampling())


class Tokenizer:
    chat_template = None

    def __call__(self, text, *, add_special_tokens):
        return {"input_ids": ["<s>"] * add_special_tokens + text.split()}


class Echo:
    """Answers with the prompt in upper case and records each batch. With `held`, it waits for `gate`."""

    def __init__(self, *, held=False):
        self.tokenizer = Tokenizer()
        self.batches = []
        self.started, self.gate = threading.Event(), threading.Event()
        if not held:
            self.gate.set()

    def complete(self, prompts, options):
        self.started.set()
        assert self.gate.wait(10)
        self.batches.append((list(prompts), options))
        if "poison" in prompts:
            raise RuntimeError("poisoned")
        return [Generation(prompt.upper()) for prompt in prompts]


@pytest.fixture
def engine_of():
    engines = []

    def make(model, max_batch=16):
        engines.append(InferenceEngine(lambda: model, max_batch))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
        engine.join()


def submit_behind_a_held_batch(engine, model, requests):
    """Return the futures of requests that all waited while another batch was decoded."""
    first = engine.submit(CompletionRequest("first", GREEDY))
    assert model.started.wait(10)
    futures = [engine.submit(request) for request in requests]
    model.gate.set()
    assert first.result(10).text == "FIRST"
    return futures


def test_waiting_requests_are_decoded_together_and_answered_in_order(engine_of):
    model = Echo(held=True)
    futures = submit_behind_a_held_batch(
        engine_of(model), model, [CompletionRequest(f"p{i}", GREEDY) for i in range(8)]
    )
    assert [future.result(10).text for future in futures] == [f"P{i}" for i in range(8)]
    assert [prompts for prompts, _ in model.batches] == [["first"], [f"p{i}" for i in range(8)]]


def test_a_batch_is_never_larger_than_allowed(engine_of):
    model = Echo(held=True)
    futures = submit_behind_a_held_batch(
        engine_of(model, 3), model, [CompletionRequest(f"p{i}", GREEDY) for i in range(7)]
    )
    assert [future.result(10).text for future in futures] == [f"P{i}" for i in range(7)]
    assert [len(prompts) for prompts, _ in model.batches] == [1, 3, 3, 1]


def test_requests_with_different_options_do_not_share_a_batch(engine_of):
    model = Echo(held=True)
    other = Decoding(max_tokens=9, sampling=Sampling(temperature=0.5), stop=(";",))
    requests = [CompletionRequest("a", GREEDY), CompletionRequest("b", other), CompletionRequest("c", GREEDY)]
    for future in submit_behind_a_held_batch(engine_of(model), model, requests):
        future.result(10)
    assert [prompts for prompts, _ in model.batches[1:]] == [["a", "c"], ["b"]]
    assert model.batches[2][1] == DecodingOptions(
        max_tokens=9,
        add_special_tokens=True,
        stop=(";",),
        sampling=Sampling(temperature=0.5),
        seed=None,
        logprobs=False,
        constraint=None,
        stop_token_ids=(),
        ignore_eos=False,
        min_tokens=0,
        skip_special_tokens=True,
    )


def test_seeded_samples_are_decoded_alone(engine_of):
    model = Echo(held=True)
    seeded = Decoding(max_tokens=4, seed=7)
    for future in submit_behind_a_held_batch(engine_of(model), model, [CompletionRequest(p, seeded) for p in "ab"]):
        future.result(10)
    assert [prompts for prompts, _ in model.batches[1:]] == [["a"], ["b"]]


def test_one_bad_prompt_does_not_make_other_requests_fail(engine_of):
    model = Echo(held=True)
    requests = [CompletionRequest(text, GREEDY) for text in ("good", "poison", "fine")]
    good, poisoned, fine = submit_behind_a_held_batch(engine_of(model), model, requests)
    assert (good.result(10).text, fine.result(10).text) == ("GOOD", "FINE")
    with pytest.raises(RuntimeError, match="poisoned"):
        poisoned.result(10)


def test_the_context_limit_counts_prompt_special_tokens_and_answer(engine_of):
    engine = engine_of(Echo())
    assert engine.submit(CompletionRequest("one two three", GREEDY, context_tokens=8)).result(10)
    with pytest.raises(ApiError, match=r"\b7 tokens.*\b4 prompt.*\b4\b") as caught:
        engine.submit(CompletionRequest("one two three", GREEDY, context_tokens=7)).result(10)
    assert caught.value.code == "ValidationException"


@pytest.mark.parametrize(
    ("context_tokens", "expected"), [(None, DEFAULT_MAX_TOKENS), (100, 97), (10**6, DEFAULT_MAX_TOKENS)]
)
def test_without_a_limit_the_answer_may_fill_the_context(engine_of, context_tokens, expected):
    model = Echo()
    engine_of(model).submit(CompletionRequest("one two", Decoding(max_tokens=None), context_tokens)).result(10)
    assert model.batches[0][1].max_tokens == expected


def test_messages_need_a_chat_template(engine_of):
    with pytest.raises(ApiError, match="chat_template"):
        engine_of(Echo()).submit(CompletionRequest([{"role": "user", "content": "x"}], GREEDY)).result(10)


def test_every_request_gets_the_error_of_a_model_that_cannot_load():
    loads = []

    def load(directory):
        loads.append(directory)
        raise OSError("no weights")

    pool = EnginePool(load, max_batch=4, max_loaded=1)
    for _ in range(3):
        with pytest.raises(OSError, match="no weights"):
            pool.submit(Path("a"), CompletionRequest("x", GREEDY)).result(10)
    pool.close()
    assert loads == [Path("a")]


def test_the_pool_keeps_only_the_most_recently_used_models():
    alive, most, loads = set(), [0], []

    class Tracked(Echo):
        def __init__(self, directory):
            super().__init__()
            self.directory = directory
            alive.add(directory)
            most[0] = max(most[0], len(alive))

        def __del__(self):
            alive.discard(self.directory)

    def load(directory):
        loads.append(directory.name)
        return Tracked(directory)

    pool = EnginePool(load, max_batch=4, max_loaded=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        pool.submit(Path(name), CompletionRequest(name, GREEDY)).result(10)
    pool.close()
    assert loads == ["a", "b", "c", "b"]
    assert most == [2]
    assert not alive


def test_closing_answers_queued_requests():
    model = Echo(held=True)
    pool = EnginePool(lambda _: model, max_batch=2, max_loaded=1)
    futures = [pool.submit(Path("a"), CompletionRequest(f"p{i}", GREEDY)) for i in range(5)]
    with ThreadPoolExecutor(1) as closer:
        closing = closer.submit(pool.close)
        model.gate.set()
        closing.result(10)
    assert [future.result(0).text for future in futures] == [f"P{i}" for i in range(5)]


def test_min_tokens_must_not_exceed_the_default_limit(engine_of):
    engine = engine_of(Echo())
    for context_tokens in (None, 4096):
        request = CompletionRequest(
            "a", replace(GREEDY, max_tokens=None, min_tokens=600), context_tokens=context_tokens
        )
        with pytest.raises(ApiError, match=rf"min_tokens.*\b600\b.*\b{DEFAULT_MAX_TOKENS}\b"):
            engine.submit(request).result(10)
