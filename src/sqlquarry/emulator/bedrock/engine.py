"""Answer requests with real weights, and decode waiting requests together.

Server threads submit requests. One worker thread per loaded model collects the waiting requests, groups them by their
decoding options and answers through futures. Only the worker uses the model and the tokenizer, which are not
thread-safe.
"""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sqlquarry.answers import Generation
from sqlquarry.emulator.bedrock.completion_request import DEFAULT_MAX_TOKENS, CompletionRequest, Decoding
from sqlquarry.emulator.bedrock.prompts import ChatTokenizer, MeasuredPrompt, measured_prompt
from sqlquarry.models.local.decoding import DecodingOptions

GRACE_S = 0.01  # a batch begins when no further request has arrived for this long


class CompletionModel(Protocol):
    """The interface of a loaded model. `sqlquarry.models.local.model.LocalModel` implements it."""

    tokenizer: ChatTokenizer

    def complete(self, prompts: Sequence[str], options: DecodingOptions) -> list[Generation]:
        """Complete each prompt, in order."""
        ...


LoadModel = Callable[[Path], CompletionModel]


@dataclass(slots=True)
class _Pending:
    request: CompletionRequest
    future: Future[Generation] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A request with its measured prompt, and the future for its answer."""

    prompt: MeasuredPrompt
    future: Future[Generation]


class InferenceEngine:
    """One model and the worker thread that answers its requests.

    Args:
        load: loads the model. The worker calls it once. If it fails, every request gets its error.
        max_batch: maximum number of prompts that are decoded together.
    """

    def __init__(self, load: Callable[[], CompletionModel], max_batch: int) -> None:
        self._load, self._max_batch = load, max_batch
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._work, name="imported-model", daemon=True)
        self._worker.start()

    def submit(self, request: CompletionRequest) -> Future[Generation]:
        """Queue a request and return the future of its answer."""
        pending = _Pending(request)
        self._queue.put(pending)
        return pending.future

    def close(self) -> None:
        """Let the worker end after the queued requests, without waiting for it."""
        self._queue.put(None)

    def join(self) -> None:
        """Wait until the worker has ended and released the model."""
        self._worker.join()

    def _work(self) -> None:
        try:
            model = self._load()
        except Exception as error:  # noqa: BLE001 - the callers must get any error
            while pending := self._queue.get():
                pending.future.set_exception(error)
            return
        more = True
        while more:
            batch, more = self._collect()
            for group in _groups(_prepare(model.tokenizer, batch)):
                _answer(model, group)

    def _collect(self) -> tuple[list[_Pending], bool]:
        """Wait for requests, and return them and whether more can come.

        There is at least one request unless the engine was closed.
        """
        batch: list[_Pending] = []
        while len(batch) < self._max_batch:
            try:
                pending = self._queue.get(timeout=GRACE_S if batch else None)
            except queue.Empty:
                break
            if pending is None:
                return batch, False
            batch.append(pending)
        return batch, True


class EnginePool:
    """The loaded models, of which there are at most `max_loaded`. The least recently used model is unloaded first."""

    def __init__(self, load: LoadModel, *, max_batch: int, max_loaded: int) -> None:
        self._load, self._max_batch, self._max_loaded = load, max_batch, max_loaded
        self._engines: OrderedDict[Path, InferenceEngine] = OrderedDict()
        self._lock = threading.Lock()

    def submit(self, directory: Path, request: CompletionRequest) -> Future[Generation]:
        """Queue a request to the model in `directory`, and load the model if necessary."""
        with self._lock:
            if directory not in self._engines:
                evicted = self._engines.popitem(last=False)[1] if len(self._engines) >= self._max_loaded else None
                if evicted:
                    evicted.close()
                self._engines[directory] = InferenceEngine(
                    lambda: self._load_after(evicted, directory), self._max_batch
                )
            self._engines.move_to_end(directory)
            return self._engines[directory].submit(request)

    def discard(self, directory: Path) -> None:
        """Unload a model after it has answered its queued requests."""
        with self._lock:
            engine = self._engines.pop(directory, None)
        if engine:
            engine.close()
            engine.join()

    def close(self) -> None:
        """Unload all models after they have answered their queued requests."""
        for directory in list(self._engines):
            self.discard(directory)

    def _load_after(self, evicted: InferenceEngine | None, directory: Path) -> CompletionModel:
        if evicted:
            evicted.join()  # so that never more than `max_loaded` models are in memory
        return self._load(directory)


def _prepare(tokenizer: ChatTokenizer, batch: Iterable[_Pending]) -> Iterator[_Ready]:
    """Render and measure each request. A request that cannot be answered gets its error and is dropped."""
    for pending in batch:
        try:
            prompt = measured_prompt(tokenizer, pending.request)
        except Exception as error:  # noqa: BLE001 - the caller must get any error
            pending.future.set_exception(error)
        else:
            yield _Ready(prompt, pending.future)


def _groups(requests: Iterable[_Ready]) -> Iterable[list[_Ready]]:
    groups: dict[tuple[bool, Decoding, int | None], list[_Ready]] = defaultdict(list)
    for request in requests:
        decoding = request.prompt.decoding
        # A seeded sample must not depend on which other requests are waiting.
        alone = decoding.seed is not None and not decoding.sampling.greedy
        groups[request.prompt.add_special_tokens, decoding, id(request) if alone else None].append(request)
    return groups.values()


def _answer(model: CompletionModel, group: list[_Ready]) -> None:
    decoding = group[0].prompt.decoding
    try:
        options = DecodingOptions(
            max_tokens=decoding.max_tokens or DEFAULT_MAX_TOKENS,
            min_tokens=decoding.min_tokens,
            sampling=decoding.sampling,
            seed=decoding.seed,
            stop=decoding.stop,
            stop_token_ids=decoding.stop_ids,
            ignore_eos=decoding.ignore_eos,
            constraint=decoding.constraint,
            logprobs=decoding.logprobs,
            add_special_tokens=group[0].prompt.add_special_tokens,
            skip_special_tokens=decoding.skip_special_tokens,
        )
        generations = model.complete([request.prompt.text for request in group], options)
    except Exception as error:  # noqa: BLE001 - the callers must get any error
        if len(group) == 1:
            group[0].future.set_exception(error)
            return
        for request in group:  # one bad prompt must not make the other requests fail
            _answer(model, [request])
    else:
        for request, generation in zip(group, generations, strict=True):
            request.future.set_result(generation)
