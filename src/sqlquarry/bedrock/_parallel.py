"""Calls in several threads, none of which keeps the process alive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel(call: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Iterator[tuple[int, Result]]:
    """Yield (place, result) of each item as it comes, at most `threads` at a time.

    The first error is raised, and no further call begins. The threads are daemons: those of ThreadPoolExecutor would
    hold up the end of the process, after Ctrl-C, for as long as a request hangs.
    """
    todo: SimpleQueue[tuple[int, Item]] = SimpleQueue()
    done: SimpleQueue[tuple[int, Future[Result]]] = SimpleQueue()
    over = threading.Event()
    for entry in enumerate(items):
        todo.put(entry)

    def work() -> None:
        while not over.is_set():
            try:
                place, item = todo.get_nowait()
            except Empty:
                return
            outcome: Future[Result] = Future()
            try:
                outcome.set_result(call(item))
            except BaseException as error:  # noqa: BLE001 - raised where the result is taken
                outcome.set_exception(error)
            done.put((place, outcome))

    for _ in range(min(threads, len(items))):
        threading.Thread(target=work, name="sqlquarry-parallel", daemon=True).start()
    try:
        for _ in items:
            place, outcome = done.get()
            yield place, outcome.result()
    finally:
        over.set()
