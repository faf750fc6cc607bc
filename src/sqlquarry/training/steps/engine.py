"""Run a step kernel by kernel, or as CUDA graphs that are recorded once and replayed.

A row of a small model needs thousands of kernels of a few microseconds each. Python launches them ten times more slowly
than the GPU runs them. With flex_attention, all rows have one shape, so their kernels can be recorded and replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from sqlquarry.checkpoints.attention import windows_of
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.encoding.packing import PackedRow
from sqlquarry.training.steps.decoder import compile_options
from sqlquarry.training.steps.loss import RowShape, answer_loss, entropy, flex_inputs, model_inputs, row_tensors

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

Result = TypeVar("Result")
# Runs before a graph is recorded, because compiling, autotuning and allocating workspaces cannot be recorded.
_WARM_UPS = 3


class StepEngine:
    """Runs a step kernel by kernel: on CPUs, with weights in CPU memory, and if graphs cannot be used.

    Args:
        model: a PEFT model in training mode.
        rows: all rows for training.
        config: attention, compilation and the maximum gradient norm are used.
        rate: the first learning rate.
        device: device to compute on. The model's weights may be elsewhere.
    """

    capturable = False  # whether the optimizer's step can be recorded

    def __init__(
        self, model: PeftModel, rows: Sequence[PackedRow], config: TrainingConfig, rate: float, device: torch.device
    ) -> None:
        import torch

        self.model, self.device = model, device
        self.parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        cuda = device.type == "cuda"
        compiled, self._flex = config.compiles_layers(cuda=cuda), config.uses_flex_attention(cuda=cuda)
        # Code is compiled for one shape.
        self._fixed = compiled or self._flex
        self._shape = RowShape(config.max_length, max(row.size.answers for row in rows))
        self._windows = windows_of(model.config, config.max_length)
        self._entropy = torch.compile(entropy, dynamic=False, options=compile_options()) if compiled else entropy
        self._max_norm = config.max_grad_norm
        self._rate = torch.tensor(rate, device=self.device) if self.capturable else rate
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=self._rate, weight_decay=0.0, fused=cuda, capturable=self.capturable
        )
        for parameter in self.parameters.values():  # the state that the optimizer would create in its first step
            self.optimizer.state[parameter] = {
                "step": torch.tensor(0.0, device=self.device if cuda else None),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    def loss(self, row: PackedRow, *, answers: int | None = None) -> torch.Tensor:
        """Return the summed loss of a row's answers, ().

        Args:
            row: the row.
            answers: for evaluation rows, the largest number of answer tokens in one of them.
        """
        shape = self._shape._replace(answers=answers or self._shape.answers) if self._fixed else None
        inputs = model_inputs(row, self.device, shape=shape, flex=self._flex, windows=self._windows)
        return answer_loss(self.model, inputs, self._entropy)

    def prepare(self, row: PackedRow) -> None:
        """Prepare the next row for `learn` on the host while the GPU works."""

    def learn(self, row: PackedRow, weight: float) -> torch.Tensor:
        """Add a row's gradients to the parameters. Return its loss times `weight`, (), valid until the next call."""
        loss = self.loss(row) * weight
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        return loss.detach()

    def clip(self) -> torch.Tensor:
        """Scale the gradients down to the maximum norm. Return the norm that they had before, ()."""
        import torch

        return torch.nn.utils.clip_grad_norm_(self.parameters.values(), self._max_norm)

    def update(self, rate: float) -> None:
        """Take one step of the optimizer, and clear the gradients."""
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()

    def close(self) -> None:
        """Release everything that keeps the processes from ending. The engine cannot be used afterwards."""


class CudaGraphEngine(StepEngine):
    """Runs a step as three CUDA graphs: one for a row, one for clipping, and one for the optimizer.

    If GPUs share the base, a row's graph also contains NCCL's gathering of each layer, which FSDP2 overlaps with the
    kernels of the layer before. Every process records and replays the same number of times.

    Source: "Whole network capture" in torch's notes on CUDA semantics.
    """

    capturable = True

    def __init__(
        self, model: PeftModel, rows: Sequence[PackedRow], config: TrainingConfig, rate: float, device: torch.device
    ) -> None:
        import torch

        super().__init__(model, rows, config, rate, device)
        # Recorded tensors are created before the recording and changed only in place, even when a run resumes.
        self._inputs = tuple(part.to(self.device) for part in self._on_host(rows[0]))
        self._prepared: tuple[PackedRow, tuple[torch.Tensor, ...]] | None = None
        self._weight = torch.zeros((), device=self.device)
        self._learn = _Recording(self._learn_loaded, warm_ups=_WARM_UPS)
        self.optimizer.zero_grad(set_to_none=False)
        self._clip = _Recording(super().clip, warm_ups=1)
        self._update = _Recording(self._update_by_loaded_rate, warm_ups=0)

    def prepare(self, row: PackedRow) -> None:
        """See `StepEngine.prepare`."""
        self._prepared = row, self._on_host(row)

    def learn(self, row: PackedRow, weight: float) -> torch.Tensor:
        """See `StepEngine.learn`."""
        ready, self._prepared = self._prepared, None
        host = ready[1] if ready is not None and ready[0] is row else self._on_host(row)
        for mine, theirs in zip(self._inputs, host, strict=True):
            mine.copy_(theirs, non_blocking=True)
        self._weight.fill_(weight)
        return self._learn.replay()

    def clip(self) -> torch.Tensor:
        """See `StepEngine.clip`."""
        return self._clip.replay()

    def update(self, rate: float) -> None:
        """See `StepEngine.update`."""
        self._rate.fill_(rate)  # type: ignore[union-attr]  # a tensor if the optimizer is capturable
        self._update.replay()

    def close(self) -> None:
        """See `StepEngine.close`. NCCL waits forever for graphs that contain its work (pytorch #115388)."""
        for recording in (self._learn, self._clip, self._update):
            recording.reset()

    def _learn_loaded(self) -> torch.Tensor:
        tokens, answers = self._inputs
        loss = answer_loss(self.model, flex_inputs(tokens, answers, self._windows), self._entropy) * self._weight
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        return loss.detach()

    def _update_by_loaded_rate(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)  # recorded kernels use the addresses of the gradients

    def _on_host(self, row: PackedRow) -> tuple[torch.Tensor, ...]:
        return tuple(part.pin_memory() for part in row_tensors(row.tokens(), self._shape))


class _Recording(Generic[Result]):
    """A recording of what `work` does on the GPU. `replay` repeats it and updates the result's tensors in place."""

    def __init__(self, work: Callable[[], Result], *, warm_ups: int) -> None:
        import torch

        aside: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no types for it
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(warm_ups):
                work()
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # NCCL's watchdog thread may query events at any time, so only this thread's calls are checked.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._result = work()

    def replay(self) -> Result:
        self._graph.replay()
        return self._result

    def reset(self) -> None:
        self._graph.reset()
