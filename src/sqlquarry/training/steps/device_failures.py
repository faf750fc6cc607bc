"""Convert torch's errors during training to errors of this library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlquarry.errors import DeviceError, TrainingError


@contextmanager
def device_failures() -> Iterator[None]:
    """Convert torch's errors in the block to errors that say what to do.

    Raises:
        DeviceError: memory ran out.
        TrainingError: torch.compile failed.
    """
    import torch

    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:  # noqa: SLF001 - what torch.compile raises; no public name
        raise TrainingError(
            f"torch.compile failed: {error}. Install a C compiler, which it needs, or set "
            "TrainingConfig(torch_compile=False)."
        ) from error
    except RuntimeError as error:
        # If memory runs out while a graph is recorded, the OutOfMemoryError is the context of another error.
        causes = [error, error.__context__, error.__cause__]
        if not any(isinstance(cause, torch.OutOfMemoryError) for cause in causes):
            raise
        raise DeviceError(
            f"the GPU ran out of memory, although the run was forecast to fit ({str(error).partition('.')[0]}). Set "
            'TrainingConfig(gradient_checkpointing=True, hold_dequantized=False, sharding="full") and run again to '
            "resume from the newest checkpoint, or start a new run with a smaller max_length."
        ) from error
