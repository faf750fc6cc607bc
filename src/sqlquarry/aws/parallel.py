"""Calls in several threads, none of which keeps the process alive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel(call: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[tuple[int, Result]]:
    """Yield (place, result) of each item as it comes, at most `threads` at a time.

    Items are taken when a thread is free for one, by one thread at a time, so a generator may make large ones. The
    first error, of a call or of `items`, is raised, and no further call begins. The threads are daemons: those of
    ThreadPoolExecutor would hold up the end of the process, after Ctrl-C, for as long as a request hangs.
    """
    numbered, taking = enumerate(items), threading.Lock()
    done: SimpleQueue[tuple[int, Future[Result]] | None] = SimpleQueue()
    over = threading.Event()

    def work() -> None:
        more = True
        while more and not over.is_set():
            more = work_on_one()
        done.put(None)

    # A function of its own, so that a thread that waits keeps no large item alive.
    def work_on_one() -> bool:
        outcome: Future[Result] = Future()
        place = -1
        try:
            with taking:
                entry = next(numbered, None)
            if entry is None:
                return False
            place, item = entry
            outcome.set_result(call(item))
        except BaseException as error:  # noqa: BLE001 - raised where the result is taken
            outcome.set_exception(error)
            over.set()
        done.put((place, outcome))
        return True

    for _ in range(threads):
        threading.Thread(target=work, name="sqlquarry-parallel", daemon=True).start()
    try:
        for _ in range(threads):
            while (finished := done.get()) is not None:
                place, outcome = finished
                yield place, outcome.result()
    finally:
        over.set()
