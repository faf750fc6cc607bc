"""Serving of imported models: cold starts, batches, and the limit for loaded models."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from emulator_account import Parrot, clocked, emulators, sketch
from sqlquarry.emulator.bedrock.engine import EnginePool
from sqlquarry.errors import ConfigError


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return sketch(tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture
def start():
    with emulators() as start:
        yield start


class Recorder(Parrot):
    """A parrot whose batches end only after `may_begin` has returned."""

    def __init__(self, may_begin):
        super().__init__()
        self.may_begin = may_begin

    def complete(self, prompts, options):
        answers = super().complete(prompts, options)
        assert self.may_begin()
        return answers


def test_concurrent_calls_share_batches(start, exported, monkeypatch):
    """The first batch waits until all eight calls have arrived, so the server must accept them concurrently."""
    arrived, all_arrived = [], threading.Event()
    submit = EnginePool.submit

    def counted(*arguments):
        future = submit(*arguments)
        arrived.append(future)
        if len(arrived) == 8:
            all_arrived.set()
        return future

    recorders = []

    def load(_):
        recorders.append(Recorder(lambda: all_arrived.wait(20)))
        return recorders[-1]

    monkeypatch.setattr(EnginePool, "submit", counted)
    account = start(load_model=load)
    account.upload(exported)
    model = account.imported("m1")
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda i: account.ask(model, prompt=f"p{i}", max_tokens=2), range(8)))
    assert [answer["choices"][0]["text"] for answer in answers] == [f"p{i}" for i in range(8)]
    (recorder,) = recorders
    assert len(recorder.batches) <= 2
    assert sum(recorder.batches) == 8


def test_models_are_unloaded_if_there_are_too_many(start, exported):
    loads = []

    def load(directory):
        loads.append(directory.name)
        return Parrot()

    account = start(load_model=load, max_loaded_models=1)
    account.upload(exported)
    first, second = account.imported("first"), account.imported("second")
    for model in (first, first, second, first):
        account.ask(model, prompt="p", max_tokens=1)
    assert loads == [arn.rpartition("/")[2] for arn in (first, second, first)]


def test_the_first_calls_find_the_model_cold(start, exported):
    account = start(cold_start_calls=2, load_model=Parrot)
    account.upload(exported)
    model = account.imported("m1")
    body = json.dumps({"prompt": "SELECT", "max_tokens": 2})
    for call in (account.runtime.invoke_model, account.runtime.invoke_model_with_response_stream):
        code, _, status = account.error(call, modelId=model, body=body)
        assert (code, status) == ("ModelNotReadyException", 429)
    assert account.ask(model, prompt="SELECT", max_tokens=2)["choices"][0]["text"]


def test_a_model_is_unloaded_and_loaded_by_the_clock(exported):
    with clocked(load_model=Parrot, cold_start_calls=1, cold_start_s=60) as account:
        account.upload(exported)
        model = account.imported("sql")
        call = {"modelId": model, "body": json.dumps({"prompt": "SELECT", "max_tokens": 2})}
        for _ in range(2):  # after the import, and after five idle minutes
            assert account.error(account.runtime.invoke_model, **call)[::2] == ("ModelNotReadyException", 429)
            account.clock.advance(59)
            assert account.error(account.runtime.invoke_model, **call)[0] == "ModelNotReadyException"
            account.clock.advance(1)
            assert account.runtime.invoke_model(**call)
            account.clock.advance(300)


def test_a_form_that_does_not_suit_the_models_tokens_is_a_validation_error(start, exported):
    class WithoutAnEnd(Parrot):
        def complete(self, *_, **__):
            raise ConfigError("the model names no eos_token")

    account = start(load_model=WithoutAnEnd)
    account.upload(exported)
    body = json.dumps({"prompt": "p", "max_tokens": 1, "structured_outputs": {"choice": ["a"]}})
    code, message, status = account.error(account.runtime.invoke_model, modelId=account.imported("m"), body=body)
    assert (code, status) == ("ValidationException", 400)
    assert "eos_token" in message
