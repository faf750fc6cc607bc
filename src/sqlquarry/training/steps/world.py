"""The processes that train together: a single one, or all that torchrun started."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sqlquarry.errors import DeviceError, SQLQuarryError

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")
_TIMEOUT_S = 1800  # how long a process waits for another. Encoding millions of records takes minutes, as does loading
_joins = itertools.count()


@dataclass(frozen=True, slots=True)
class World:
    """This process and its peers.

    Args:
        rank: number of this process, from 0.
        size: number of processes.
        local_size: number of processes on this machine.
        device: device of this process.
        is_joined: `join` connected the processes, so `leave` disconnects them. Otherwise the caller had done so.
    """

    rank: int
    size: int
    local_size: int
    device: torch.device
    is_joined: bool = False

    @classmethod
    def join(cls, device: str, *, cpu_collectives: bool = False) -> World:
        """Connect the processes that torchrun started (RANK, WORLD_SIZE, …). Without torchrun, this is the only one.

        Args:
            device: "cpu" or "cuda". Each process uses the GPU of its local rank.
            cpu_collectives: on CUDA, also exchange tensors that are in CPU memory. accelerate's FSDP needs this.

        Raises:
            DeviceError: this machine has fewer GPUs than processes.
        """
        from datetime import timedelta

        import torch
        import torch.distributed as dist

        rank, size, local_rank, local_size = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))
        )
        torch_device = torch.device(device)
        if device == "cuda":
            if local_rank >= torch.cuda.device_count():
                raise DeviceError(
                    f"{local_size} processes cannot run on {torch.cuda.device_count()} GPUs. Start one process per GPU."
                )
            torch_device = torch.device("cuda", local_rank)
            torch.cuda.set_device(torch_device)
        joins = size > 1 and not dist.is_initialized()
        if joins:
            cuda_backend = "cpu:gloo,cuda:nccl" if cpu_collectives else "nccl"
            timeout = timedelta(seconds=_TIMEOUT_S)
            # torchrun's store keeps the addresses of earlier connections, whose sockets are closed.
            store, *_ = next(dist.rendezvous("env://", rank, size, timeout=timeout))  # type: ignore[attr-defined]  # torch does not list it
            dist.init_process_group(
                cuda_backend if device == "cuda" else "gloo",
                store=dist.PrefixStore(f"sqlquarry-{next(_joins)}", store),  # type: ignore[attr-defined]  # see above
                rank=rank,
                world_size=size,
                timeout=timeout,
                device_id=torch_device if device == "cuda" else None,
            )
        return cls(rank, size, local_size, torch_device, joins)

    @property
    def machines(self) -> int:
        """Number of machines. All of them have the same number of processes."""
        return self.size // self.local_size

    @property
    def is_rank0(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, items: Sequence[int]) -> list[tuple[int, bool]]:
        """Return this process's items of a step, each with a flag that is True if the item counts.

        Items that do not count are padding. All processes gather sharded weights together, so each of them must run the
        same number of times.
        """
        mine = [(item, True) for item in items[self.rank :: self.size]]
        rounds = -(-len(items) // self.size)
        return mine + [(items[0], False)] * (rounds - len(mine))

    def sum(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors by their sums over all processes, in place. All tensors must have the same dtype."""
        import torch
        import torch.distributed as dist

        tensors = list(tensors)
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])  # one message instead of hundreds
        dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Replace a tensor with the tensor of rank 0, in place."""
        import torch.distributed as dist

        if self.size > 1:
            dist.broadcast(tensor, src=0)

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is set on any process."""
        import torch

        votes = torch.tensor([float(flag)], device=self.device)
        self.sum([votes])
        return bool(votes.item() > 0)

    def on_rank0(self, work: Callable[[], Result]) -> Result:
        """Call `work` on rank 0 only. All processes return its result or raise its error.

        Raises:
            SQLQuarryError: if `work` raises one.
        """
        import torch.distributed as dist

        if self.size == 1:
            return work()
        box: list[object] = [None, None]  # result and error
        if self.is_rank0:
            try:
                box[0] = work()
            except SQLQuarryError as error:
                box[1] = error
        dist.broadcast_object_list(box, src=0, device=self.device)
        if isinstance(box[1], SQLQuarryError):
            raise box[1]
        return box[0]  # type: ignore[return-value]  # the result of rank 0

    def leave(self) -> None:
        """Disconnect what `join` connected. Otherwise a process may end with an error after its work is done."""
        import torch.distributed as dist

        if self.is_joined and dist.is_initialized():
            dist.destroy_process_group()
