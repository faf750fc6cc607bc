"""Calls in several threads that do not keep the process alive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel(call: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[tuple[int, Result]]:
    """Call `call` for each item in up to `threads` threads, and yield (index, result) as results arrive.

    The next item is generated only when a thread is free, and by one thread at a time, so `items` may be a generator
    of large items. The first error of a call or of `items` is raised, and no further call begins. The threads are
    daemon threads. Those of a ThreadPoolExecutor would keep the process alive after Ctrl-C while a request hangs.
    """
    numbered, item_lock = enumerate(items), threading.Lock()
    done: SimpleQueue[tuple[int, Future[Result]] | None] = SimpleQueue()
    over = threading.Event()

    def work() -> None:
        more = True
        while more and not over.is_set():
            more = work_on_one()
        done.put(None)

    # This is a separate function so that a waiting thread holds no reference to a large item.
    def work_on_one() -> bool:
        outcome: Future[Result] = Future()
        index = -1
        try:
            with item_lock:
                entry = next(numbered, None)
            if entry is None:
                return False
            index, item = entry
            outcome.set_result(call(item))
        except BaseException as error:  # noqa: BLE001 - raised by `outcome.result()`
            outcome.set_exception(error)
            over.set()
        done.put((index, outcome))
        return True

    for _ in range(threads):
        threading.Thread(target=work, name="sqlquarry-parallel", daemon=True).start()
    try:
        for _ in range(threads):
            while (finished := done.get()) is not None:
                index, outcome = finished
                yield index, outcome.result()
    finally:
        over.set()
