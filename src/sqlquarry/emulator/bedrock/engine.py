"""Answer from real weights: requests that wait together are decoded together.

Server threads submit; one worker thread per loaded model collects what waits, groups it by equal decoding options and
answers through futures. Only the worker touches model and tokenizer, neither of which is thread-safe.
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

GRACE_S = 0.01  # a batch begins once no further request came for this long


class CompletionModel(Protocol):
    """What the engine needs of a loaded model; `sqlquarry.models.local.model.LocalModel` is one."""

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
    """A request whose prompt is measured, and who waits for its answer."""

    prompt: MeasuredPrompt
    future: Future[Generation]


class InferenceEngine:
    """One model and the worker thread that answers for it.

    Args:
        load: makes the model; called once, in the worker. If it fails, every request gets its error.
        max_batch: prompts decoded together at most.
    """

    def __init__(self, load: Callable[[], CompletionModel], max_batch: int) -> None:
        self._load, self._max_batch = load, max_batch
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._work, name="imported-model", daemon=True)
        self._worker.start()

    def submit(self, request: CompletionRequest) -> Future[Generation]:
        """Queue a request."""
        pending = _Pending(request)
        self._queue.put(pending)
        return pending.future

    def close(self) -> None:
        """Let the worker end after what is queued; returns at once."""
        self._queue.put(None)

    def join(self) -> None:
        """Wait until the worker has ended and let go of the model."""
        self._worker.join()

    def _work(self) -> None:
        try:
            model = self._load()
        except Exception as error:  # noqa: BLE001 - whatever it is, the requesters must hear of it
            while pending := self._queue.get():
                pending.future.set_exception(error)
            return
        more = True
        while more:
            batch, more = self._collect()
            for group in _groups(_prepare(model.tokenizer, batch)):
                _answer(model, group)

    def _collect(self) -> tuple[list[_Pending], bool]:
        """Return what waits, at least one request unless the engine was closed, and whether more can come."""
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
    """The loaded models, at most `max_loaded`: the one that was not used for longest makes room."""

    def __init__(self, load: LoadModel, *, max_batch: int, max_loaded: int) -> None:
        self._load, self._max_batch, self._max_loaded = load, max_batch, max_loaded
        self._engines: OrderedDict[Path, InferenceEngine] = OrderedDict()
        self._lock = threading.Lock()

    def submit(self, directory: Path, request: CompletionRequest) -> Future[Generation]:
        """Queue a request to the model in `directory`, which is loaded if it is not."""
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
        """Unload a model once it has answered what is queued."""
        with self._lock:
            engine = self._engines.pop(directory, None)
        if engine:
            engine.close()
            engine.join()

    def close(self) -> None:
        """Unload every model once it has answered what is queued."""
        for directory in list(self._engines):
            self.discard(directory)

    def _load_after(self, evicted: InferenceEngine | None, directory: Path) -> CompletionModel:
        if evicted:
            evicted.join()  # so that never more than `max_loaded` models are in memory
        return self._load(directory)


def _prepare(tokenizer: ChatTokenizer, batch: Iterable[_Pending]) -> Iterator[_Ready]:
    """Render and measure each request; one that cannot be answered gets its error and drops out."""
    for pending in batch:
        try:
            prompt = measured_prompt(tokenizer, pending.request)
        except Exception as error:  # noqa: BLE001 - whatever it is, this requester must hear of it
            pending.future.set_exception(error)
        else:
            yield _Ready(prompt, pending.future)


def _groups(requests: Iterable[_Ready]) -> Iterable[list[_Ready]]:
    groups: dict[tuple[bool, Decoding, int | None], list[_Ready]] = defaultdict(list)
    for request in requests:
        decoding = request.prompt.decoding
        # A seeded sample must not depend on which other requests happen to wait.
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
    except Exception as error:  # noqa: BLE001 - whatever it is, the requesters must hear of it
        if len(group) == 1:
            group[0].future.set_exception(error)
            return
        for request in group:  # one bad prompt must not fail its neighbours
            _answer(model, [request])
    else:
        for request, generation in zip(group, generations, strict=True):
            request.future.set_result(generation)
