"""Measure how fast a run is and how well it uses its GPUs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sqlquarry.training.planning.hardware import GPU
from sqlquarry.training.tracking.log_entry import LogEntry

_AVERAGED_STEPS = 20


@dataclass(frozen=True, slots=True)
class Pace:
    """Tokens per second over the last steps, share of the GPUs' peak rate (MFU), and bytes of GPU memory."""

    tokens_per_second: float
    utilization: float | None
    memory_bytes: int | None

    def __str__(self) -> str:
        parts = [f"{self.tokens_per_second:,.0f} tokens/s"]
        if self.utilization is not None:
            parts.append(f"MFU {self.utilization:.0%}")
        if self.memory_bytes is not None:
            parts.append(f"{self.memory_bytes / 2**30:.1f} GiB")
        return ", ".join(parts)


class PaceMeter:
    """Computes a `Pace` from the loop's log entries.

    MFU counts the arithmetic that the model needs, without recomputation (Chowdhery et al. 2022, arXiv:2204.02311,
    appendix B).

    Args:
        needed_flops_per_token: `flops_per_token` of a config without recomputation. 0 leaves MFU out.
        gpu: the GPU of each process. None leaves MFU out.
        processes: number of GPUs.
    """

    def __init__(self, needed_flops_per_token: float = 0.0, gpu: GPU | None = None, processes: int = 1) -> None:
        self._flops, self._peak = needed_flops_per_token, gpu.bf16_flops * processes if gpu else 0.0
        self._recent: deque[tuple[float, int]] = deque(maxlen=_AVERAGED_STEPS)

    def __call__(self, entry: LogEntry) -> Pace:
        """Add the entry of a step, and return the pace over the last steps."""
        self._recent.append((entry["seconds"], entry["tokens"]))
        seconds = entry["seconds"] - self._recent[0][0]
        rate = sum(tokens for _, tokens in list(self._recent)[1:]) / seconds if seconds > 0 else 0.0
        share = rate * self._flops / self._peak if self._peak and self._flops and rate else None
        return Pace(rate, share, peak_gpu_bytes())


def peak_gpu_bytes() -> int | None:
    """Return the most memory that torch has allocated on this process's GPU, or None if it has no GPU."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
