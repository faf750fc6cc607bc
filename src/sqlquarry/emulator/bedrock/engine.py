"""Answers from real weights: requests that wait together are decoded together.

Server threads submit; one worker thread per loaded model collects what waits, groups it by equal decoding options and
answers through futures. Only the worker touches model and tokenizer, neither of which is thread-safe.
"""

from __future__ import annotations

import inspect
import queue
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from sqlquarry.artifacts import Generation
from sqlquarry.emulator.requests.api import ApiError
from sqlquarry.models.local.constraints import Constraint
from sqlquarry.models.local.decoding import DecodingOptions
from sqlquarry.models.local.sampling import Sampling
from sqlquarry.text import lone_surrogate
from sqlquarry.tokenizing.rendering import template_variables

DEFAULT_MAX_TOKENS = 512  # for requests that name no limit; ours
UNCHANGED = Sampling(temperature=1.0)  # the model's own probabilities, as vLLM samples where nothing is said
GRACE_S = 0.01  # a batch begins once no further request came for this long


class CompletionModel(Protocol):
    """What the engine needs of a loaded model; `sqlquarry.models.local.model.LocalModel` is one."""

    tokenizer: Any

    def complete(self, prompts: Sequence[str], options: DecodingOptions) -> list[Generation]:
        """Complete each prompt, in order."""
        ...


LoadModel = Callable[[Path], CompletionModel]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to decode; requests of equal options may share a batch.

    Args:
        max_tokens: tokens to write at most; None takes `DEFAULT_MAX_TOKENS`, or what the context has left.
        sampling: how tokens are chosen.
        stop: texts that end an answer.
        seed: repeats a sampled answer, so such a request is decoded alone.
        logprobs: tell the log-probability of each token written.
        constraint: the form that the answer must have.
        stop_ids: tokens that end an answer, like the model's own.
        ignore_eos: write on after the model's own.
        min_tokens: tokens to write at least.
        skip_special_tokens: leave special tokens out of the text.
    """

    max_tokens: int | None
    sampling: Sampling = UNCHANGED
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = False
    constraint: Constraint | None = None
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    skip_special_tokens: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, as text or as messages for the model's chat template.

    Args:
        context_tokens: the model's limit for prompt and answer together; None for no limit.
        add_special_tokens: let the tokenizer put its special tokens around the prompt; None does so with texts, not
            with messages, whose template brings its own.
        template: variables of the chat template, without the messages.
    """

    prompt: str | list[dict[str, Any]]
    decoding: Decoding
    context_tokens: int | None = None
    add_special_tokens: bool | None = None
    template: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Pending:
    request: Request
    future: Future[Generation] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A request in the terms of `CompletionModel.complete`."""

    text: str
    add_special_tokens: bool
    decoding: Decoding
    future: Future[Generation]


class Engine:
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

    def submit(self, request: Request) -> Future[Generation]:
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
        """What waits, at least one request unless the end came; and whether more can come."""
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
        self._engines: OrderedDict[Path, Engine] = OrderedDict()
        self._lock = threading.Lock()

    def submit(self, directory: Path, request: Request) -> Future[Generation]:
        """Queue a request to the model in `directory`, which is loaded if it is not."""
        with self._lock:
            if directory not in self._engines:
                evicted = self._engines.popitem(last=False)[1] if len(self._engines) >= self._max_loaded else None
                if evicted:
                    evicted.close()
                self._engines[directory] = Engine(lambda: self._load_after(evicted, directory), self._max_batch)
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

    def _load_after(self, evicted: Engine | None, directory: Path) -> CompletionModel:
        if evicted:
            evicted.join()  # so that never more than `max_loaded` models are in memory
        return self._load(directory)


def _prepare(tokenizer: Any, batch: Iterable[_Pending]) -> Iterator[_Ready]:
    """Render and measure each request; one that cannot be answered gets its error and drops out."""
    for pending in batch:
        try:
            ready = _ready(tokenizer, pending)
        except Exception as error:  # noqa: BLE001 - whatever it is, this requester must hear of it
            pending.future.set_exception(error)
        else:
            yield ready


def _ready(tokenizer: Any, pending: _Pending) -> _Ready:
    request = pending.request
    is_text = isinstance(request.prompt, str)
    text = request.prompt if isinstance(request.prompt, str) else _render(tokenizer, request.prompt, request.template)
    special = is_text if request.add_special_tokens is None else request.add_special_tokens
    decoding, limit = request.decoding, request.context_tokens
    named = [*decoding.stop_ids, *(token for token, _ in decoding.sampling.logit_bias)]
    if named and max(named) >= len(tokenizer):
        raise ApiError(
            "ValidationException", f"token id {max(named)} is too large: the model has {len(tokenizer)} tokens"
        )
    if half := lone_surrogate(text):
        raise ApiError("ValidationException", f"the prompt holds {half}, which is half a character")
    prompt_tokens = len(tokenizer(text, add_special_tokens=special)["input_ids"])
    if prompt_tokens == 0:
        raise ApiError("ValidationException", "the prompt has no tokens")
    if limit is not None:
        wanted = decoding.max_tokens or min(DEFAULT_MAX_TOKENS, max(1, limit - prompt_tokens))
        if prompt_tokens + wanted > limit:
            raise ApiError(
                "ValidationException",
                f"This model's maximum context length is {limit} tokens, but the request has {prompt_tokens} prompt "
                f"tokens and asks for {wanted} more",
            )
        decoding = replace(decoding, max_tokens=wanted)
    most = decoding.max_tokens or DEFAULT_MAX_TOKENS
    if decoding.min_tokens > most:
        raise ApiError(
            "ValidationException",
            f"min_tokens is {decoding.min_tokens}, but without a limit the answer has at most {most} tokens",
        )
    return _Ready(text, special, decoding, pending.future)


def _render(tokenizer: Any, messages: list[dict[str, Any]], options: Mapping[str, Any]) -> str:
    source = tokenizer.chat_template
    if source is None:
        raise ApiError("ValidationException", "tokenizer_config.json of the imported model holds no chat_template")
    reserved = inspect.signature(tokenizer.apply_chat_template).parameters.keys() - {"add_generation_prompt"}
    try:
        unread = options and sorted(options.keys() - (template_variables(source) - reserved - {"messages"}))
        given = {"add_generation_prompt": True} | dict(options)
        rendered = "" if unread else str(tokenizer.apply_chat_template(messages, tokenize=False, **given))
    except Exception as error:  # a template is code of the model's makers, and can raise anything
        raise ApiError("ValidationException", f"the chat template refuses these messages: {error}") from error
    if unread:
        raise ApiError("ValidationException", f"the chat template does not read {', '.join(unread)}")
    return rendered


def _groups(requests: Iterable[_Ready]) -> Iterable[list[_Ready]]:
    groups: dict[Any, list[_Ready]] = defaultdict(list)
    for request in requests:
        # A seeded sample must not depend on which other requests happen to wait.
        alone = request.decoding.seed is not None and not request.decoding.sampling.greedy
        groups[request.add_special_tokens, request.decoding, id(request) if alone else None].append(request)
    return groups.values()


def _answer(model: CompletionModel, group: list[_Ready]) -> None:
    decoding = group[0].decoding
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
            add_special_tokens=group[0].add_special_tokens,
            skip_special_tokens=decoding.skip_special_tokens,
        )
        generations = model.complete([request.text for request in group], options)
    except Exception as error:  # noqa: BLE001 - whatever it is, the requesters must hear of it
        if len(group) == 1:
            group[0].future.set_exception(error)
            return
        for request in group:  # one bad prompt must not fail its neighbours
            _answer(model, [request])
    else:
        for request, generation in zip(group, generations, strict=True):
            request.future.set_result(generation)
