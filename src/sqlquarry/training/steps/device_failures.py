"""Errors of torch during training, as errors of this library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlquarry.errors import DeviceError, TrainingError


@contextmanager
def device_failures() -> Iterator[None]:
    """Raise what only the device finds out as errors that say what to do.

    Raises:
        DeviceError: memory ran out.
        TrainingError: torch.compile failed.
    """
    import torch

    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:  # noqa: SLF001 - what torch.compile raises; no public name
        raise TrainingError(
            f"torch.compile failed: {error}. It needs a C compiler. "
            "TrainingConfig(torch_compile=False) trains without it."
        ) from error
    except RuntimeError as error:
        # Memory that runs out while a graph is recorded comes in the context of another error.
        causes = [error, error.__context__, error.__cause__]
        if not any(isinstance(cause, torch.OutOfMemoryError) for cause in causes):
            raise
        raise DeviceError(
            f"the GPU's memory ran out, which the forecast had not expected ({str(error).partition('.')[0]}). Set "
            'TrainingConfig(gradient_checkpointing=True, hold_dequantized=False, sharding="full") or a smaller '
            "max_length, and run again: with these it resumes from the newest checkpoint."
        ) from error
