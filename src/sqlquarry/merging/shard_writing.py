"""Write shards: reading, arithmetic, hashing and writing at the same time, with a few blocks of rows in memory."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from sqlquarry.merging.merged_tensors import MergedRows, MergedTensor, MergedTensors
from sqlquarry.merging.output import MergeOutput, OutputShard, WrittenShard
from sqlquarry.merging.storage.protocols import Sink
from sqlquarry.progress.bar import ProgressBar

_THREADS = 2  # torch releases the GIL; more threads would hold more rows in memory
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def write_shards(output: MergeOutput, shards: Sequence[OutputShard], rows: MergedTensors) -> None:
    """Write the shards that are not there yet; each is recorded in the output's state once it is safely stored.

    Raises:
        MergeError: a file of the base became shorter, a result is not finite, or the output cannot be written.
    """
    left = output.remaining(shards)
    with (
        ProgressBar("merging", sum(shard.nbytes for shard in left), unit="byte") as bar,
        _single_threaded_torch() as initializer,
        ThreadPoolExecutor(_THREADS, initializer=initializer) as workers,
        ThreadPoolExecutor(2) as hashers,
        ThreadPoolExecutor(1) as closer,
    ):
        writer = _ShardWriter(rows, workers, hashers, bar.advance)
        closing: Future[None] | None = None
        for shard in left:
            with ExitStack() as stack:
                written = writer.write(shard, stack.enter_context(output.storage.create(shard.name, shard.nbytes)))
                if closing is not None:
                    closing.result()
                # The next shard need not wait for the disk, or for the last parts of an upload.
                closing = closer.submit(_close, stack.pop_all(), output, shard, written)
        if closing is not None:
            closing.result()


@contextmanager
def _single_threaded_torch() -> Iterator[Callable[[], None]]:
    """Yield what a worker calls first, so that its operations do not compete with those of other workers for cores."""
    import torch

    before = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(1)
    finally:
        torch.set_num_threads(before)  # what a worker sets is the default of every thread that starts later


def _close(stack: ExitStack, output: MergeOutput, shard: OutputShard, written: WrittenShard) -> None:
    stack.close()
    output.shard_done(shard, written)


@dataclass(frozen=True, slots=True)
class _ShardWriter:
    rows: MergedTensors
    workers: ThreadPoolExecutor
    hashers: ThreadPoolExecutor
    advance: Callable[[int], object]

    def write(self, shard: OutputShard, sink: Sink) -> WrittenShard:
        """Write one shard, hashing what is read and what is written on the way."""
        written = hashlib.sha256(shard.header)
        source = hashlib.sha256(shard.source.header) if shard.source else None
        squares: dict[str, tuple[float, float]] = {}
        sink.write(memoryview(shard.header))
        self.advance(len(shard.header))
        opened = (self.rows.open(tensor.name) for tensor in shard.tensors)
        work = ((merged, block) for merged in opened for block in merged.blocks())
        for name, merged in _map_ahead(self.workers, _merged_rows, work):
            hashing = [self.hashers.submit(written.update, merged.written)]
            if source:
                hashing.append(self.hashers.submit(source.update, merged.read))
            sink.write(merged.written)
            for digest in hashing:
                digest.result()
            if name in self.rows.updates:
                change, size = squares.get(name, (0.0, 0.0))
                squares[name] = (change + merged.change, size + merged.size)
            self.advance(len(merged.written))
        relative = {name: math.sqrt(change / size) if size else None for name, (change, size) in squares.items()}
        return WrittenShard(written.hexdigest(), source.hexdigest() if source else None, relative)


def _merged_rows(work: tuple[MergedTensor, slice]) -> tuple[str, MergedRows]:
    merged, rows = work
    return merged.tensor.name, merged.merge_rows(rows)


def _map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[_Result]:
    """`pool.map` that works only `_THREADS` items ahead of its reader, so that results never pile up."""
    pending: deque[Future[_Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > _THREADS:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
