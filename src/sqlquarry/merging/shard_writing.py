"""Write shards. Reading, arithmetic, hashing and writing overlap, with only a few blocks of rows in memory."""

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

_THREADS = 2  # torch releases the GIL. More threads would need memory for more rows.
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def write_shards(output: MergeOutput, shards: Sequence[OutputShard], rows: MergedTensors) -> None:
    """Write the shards that are still missing. Record each in the output's state as soon as it is safely stored.

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
                # Close in another thread, so that the next shard does not wait for the disk or the end of an upload.
                closing = closer.submit(_close, stack.pop_all(), output, shard, written)
        if closing is not None:
            closing.result()


@contextmanager
def _single_threaded_torch() -> Iterator[Callable[[], None]]:
    """Yield an initializer that makes torch use one thread in each worker, so that workers do not compete for cores."""
    import torch

    before = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(1)
    finally:
        torch.set_num_threads(before)  # a worker's setting is also the default for every thread that starts later


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
        """Write one shard, and hash the bytes that are read and the bytes that are written."""
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
    """Map like `pool.map`, but only `_THREADS` items ahead of the reader, so that results never pile up."""
    pending: deque[Future[_Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > _THREADS:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
