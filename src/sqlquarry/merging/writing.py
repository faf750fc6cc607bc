"""Shards on their way out: reading, arithmetic, hashing and writing at the same time, a few pieces in memory."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from sqlquarry.merging.output import Output, OutputShard, Receipt
from sqlquarry.merging.rows import MergedTensor, Piece, TensorRows
from sqlquarry.merging.storage import Sink
from sqlquarry.progress.bar import ProgressBar

_THREADS = 2  # torch releases the GIL; more threads would hold more pieces in memory
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def write_shards(output: Output, shards: Sequence[OutputShard], rows: TensorRows) -> None:
    """Write the shards that are not there yet; each is noted in the output's state once it is safely stored.

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
                receipt = writer.write(shard, stack.enter_context(output.storage.create(shard.name, shard.nbytes)))
                if closing is not None:
                    closing.result()
                # Waiting for the disk, or for the last parts of an upload, goes on beside the next shard.
                closing = closer.submit(_close, stack.pop_all(), output, shard, receipt)
        if closing is not None:
            closing.result()


@contextmanager
def _single_threaded_torch() -> Iterator[Callable[[], None]]:
    """What a worker calls first, so that its operations do not share the cores with the other workers' ones."""
    import torch

    before = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(1)
    finally:
        torch.set_num_threads(before)  # what a worker sets is the default of every thread that starts later


def _close(stack: ExitStack, output: Output, shard: OutputShard, receipt: Receipt) -> None:
    stack.close()
    output.shard_done(shard, receipt)


@dataclass(frozen=True, slots=True)
class _ShardWriter:
    rows: TensorRows
    workers: ThreadPoolExecutor
    hashers: ThreadPoolExecutor
    advance: Callable[[int], object]

    def write(self, shard: OutputShard, sink: Sink) -> Receipt:
        """Write one shard, hashing what is read and what is written on the way."""
        written = hashlib.sha256(shard.header)
        source = hashlib.sha256(shard.source.header) if shard.source else None
        squares: dict[str, tuple[float, float]] = {}
        sink.write(memoryview(shard.header))
        self.advance(len(shard.header))
        opened = (self.rows.open(tensor.name) for tensor in shard.tensors)
        work = ((merged, block) for merged in opened for block in merged.blocks())
        for name, piece in _map_ahead(self.workers, _piece, work):
            hashing = [self.hashers.submit(written.update, piece.written)]
            if source:
                hashing.append(self.hashers.submit(source.update, piece.read))
            sink.write(piece.written)
            for digest in hashing:
                digest.result()
            if name in self.rows.updates:
                change, size = squares.get(name, (0.0, 0.0))
                squares[name] = (change + piece.change, size + piece.size)
            self.advance(len(piece.written))
        relative = {name: math.sqrt(change / size) if size else None for name, (change, size) in squares.items()}
        return Receipt(written.hexdigest(), source.hexdigest() if source else None, relative)


def _piece(work: tuple[MergedTensor, slice]) -> tuple[str, Piece]:
    merged, rows = work
    return merged.tensor.name, merged.piece(rows)


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
