"""The training loop. It takes the same steps on any number of processes, and can stop and resume at any step."""

from __future__ import annotations

import contextlib
import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from sqlquarry.errors import TrainingError, TrainingInterruptedError
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.encoding.packing import PackedRow
from sqlquarry.training.steps.checkpoint import Checkpoints, Snapshot
from sqlquarry.training.steps.engine import CudaGraphEngine, StepEngine
from sqlquarry.training.steps.schedule import Schedule
from sqlquarry.training.steps.sharding import release
from sqlquarry.training.steps.signals import stop_signals
from sqlquarry.training.steps.world import World
from sqlquarry.training.tracking.log_entry import LogEntry

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

Log = Callable[[LogEntry], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run: number of steps, mean loss over all steps, and seconds over all sessions."""

    steps: int
    loss: float
    seconds: float


class Loop:
    """A training loop that trains the adapter of a PEFT model with Adam, one packed row at a time.

    The loss of a step is the mean over all answer tokens of its rows on all processes, summed in float32. Dropout is
    seeded by step and row. So losses and adapter depend on the number of processes only through the order of sums.

    Args:
        model: a PEFT model. Its trainable parameters are float32 and complete on every process.
        rows: packed rows, the same on every process.
        schedule: rows and learning rate of each step.
        config: gradient norm, seed and checkpoint intervals.
        world: this process and its peers.
        checkpoints: the store for checkpoints, or None. Only rank 0 uses it, because the others may not see its disk.
        logs: functions that rank 0 calls with the entry of each step.
        evaluation: rows whose loss is measured after each epoch.
    """

    def __init__(
        self,
        model: PeftModel,
        rows: Sequence[PackedRow],
        schedule: Schedule,
        config: TrainingConfig,
        world: World,
        *,
        checkpoints: Checkpoints | None = None,
        logs: Sequence[Log] = (),
        evaluation: Sequence[PackedRow] = (),
    ) -> None:
        self.model, self.rows, self.schedule, self.config, self.world = model, rows, schedule, config, world
        self.checkpoints, self.logs, self.evaluation = checkpoints, logs, evaluation
        group_size = config.shard_group_size(world.size, world.machines)
        kind = (
            CudaGraphEngine
            if config.uses_cuda_graphs(cuda=world.device.type == "cuda", shard_group_size=group_size)
            else StepEngine
        )
        self.engine = kind(model, rows, config, schedule.peak_rate, world.device)
        self.done, self.loss_sum, self.seconds = 0, 0.0, 0.0

    def run(self) -> Outcome:
        """Train from the newest checkpoint to the end, and close the engine.

        Raises:
            TrainingError: the loss is not a finite number, or a checkpoint cannot be written.
            TrainingInterruptedError: SIGTERM or SIGINT was received. The step was finished and a checkpoint written.
        """
        with contextlib.closing(self.engine):
            self._resume()
            try:
                return self._train()
            finally:
                # The next run resumes from the checkpoint that is being written now, whatever ended this run.
                if self.checkpoints is not None:
                    with contextlib.suppress(TrainingError):
                        self.checkpoints.wait()

    def _train(self) -> Outcome:
        self.world.any(False)  # wait for all processes, so that the clock does not count one that is still compiling
        started, before = time.monotonic(), self.seconds
        saved_at = started
        with stop_signals() as stopped:
            while self.done < self.schedule.steps:
                entry, stop = self._step(self.done, bool(stopped))
                self.seconds = before + time.monotonic() - started
                entry["seconds"] = round(self.seconds, 2)
                self.loss_sum += entry["loss"]
                self.done += 1
                if self.schedule.ends_epoch(self.done - 1) and self.evaluation:
                    entry["eval_loss"] = self._evaluate()
                for log in self.logs:
                    log(entry)
                if stop:
                    self._stop()
                # Also after the last step, because a full disk or a signal may still keep the adapter from being saved.
                if self._is_due(saved_at) or self.done == self.schedule.steps:
                    self._save()
                    saved_at = time.monotonic()
        self._finish_writing()
        return Outcome(self.done, self.loss_sum / self.done, self.seconds)

    def _is_due(self, saved_at: float) -> bool:
        """Return whether it is time for a checkpoint. The last one was written at `saved_at`."""
        if self.config.save_steps:
            return self.done % self.config.save_steps == 0
        return time.monotonic() - saved_at >= self.config.save_interval_s

    def _stop(self) -> NoReturn:
        self._save()
        self._finish_writing()
        kept = (
            f"The same call resumes from {self.checkpoints.place}."
            if self.checkpoints
            else "There is no checkpoint to resume from."
        )
        raise TrainingInterruptedError(
            f"a signal stopped the run after step {self.done} of {self.schedule.steps}. {kept}"
        )

    def _step(self, step: int, stop: bool) -> tuple[LogEntry, bool]:
        """Take one optimizer step. Return its log entry, and whether any process received a signal to stop."""
        import torch

        picked = self.schedule.rows_of(step)
        answers = sum(self.rows[row].size.answers for row in picked)
        total = torch.zeros(2, device=self.world.device)  # the loss, and the number of votes to stop
        total[1] = stop
        for row, counts in self.world.share(picked):
            # Dropout is seeded by step and row, so it is the same in a resumed run and on any process.
            if self.config.lora_dropout:
                torch.manual_seed(zlib.crc32(f"{self.config.seed} {step} {row}".encode()))
            total[0] += self.engine.learn(self.rows[row], counts / answers)
        if step + 1 < self.schedule.steps:
            (coming, _), *_ = self.world.share(self.schedule.rows_of(step + 1))
            self.engine.prepare(self.rows[coming])
        gradients = [parameter.grad for parameter in self.engine.parameters.values() if parameter.grad is not None]
        self.world.sum([total, *gradients])
        loss, stops, norm = torch.stack([*total, self.engine.clip()]).tolist()  # the only wait for the device
        rate = self.schedule.rate(step)
        self._require_finite({"loss": loss, "norm of the gradient": norm}, step, rate)
        self.engine.update(rate)
        entry = LogEntry(
            step=step + 1,
            seconds=self.seconds,
            steps=self.schedule.steps,
            loss=loss,
            grad_norm=norm,
            learning_rate=rate,
            tokens=sum(self.rows[row].size.tokens for row in picked),
        )
        return entry, stops > 0

    def _require_finite(self, figures: Mapping[str, float], step: int, rate: float) -> None:
        """Check a step's figures before the optimizer uses them. If one is bad, save the adapter from before the step.

        Raises:
            TrainingError: a figure is not a finite number.
        """
        for what, value in figures.items():
            if math.isfinite(value):
                continue
            self._save()
            self._finish_writing()
            raise TrainingError(
                f"the {what} became {value} in step {step + 1} at a rate of {rate:.1e}. Train again with a lower "
                "TrainingConfig.learning_rate and another output_dir. The last checkpoint contains the adapter from "
                "before that step."
            )

    def _evaluate(self) -> float:
        """Return the mean loss over the answer tokens of the evaluation rows."""
        import torch

        learned = [row.size.answers for row in self.evaluation]
        answers, most = sum(learned), max(learned)
        total = torch.zeros((), device=self.world.device)
        self.model.eval()
        with torch.no_grad():
            for row, counts in self.world.share(range(len(self.evaluation))):
                total += self.engine.loss(self.evaluation[row], answers=most) * (counts / answers)
        release(self.model)
        self.model.train()
        self.world.sum([total])
        return total.item()

    def _save(self) -> None:
        if self.checkpoints is None or not self.world.is_rank0 or not self.done:
            return
        # Training continues while the checkpoint is written, so it needs copies.
        copies = {name: tensor.to("cpu", copy=True) for name, tensor in self._tensors().items()}
        facts = {"loss_sum": repr(self.loss_sum), "seconds": repr(self.seconds)}
        self.checkpoints.save(Snapshot(self.done, copies, facts))

    def _finish_writing(self) -> None:
        """Make all processes wait until the last checkpoint is written, because the end of one would end the others."""
        if self.checkpoints is not None:
            self.checkpoints.wait()
        self.world.any(False)

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors that training changes, named as in `Snapshot.tensors`, without copying them."""
        state = self.engine.optimizer.state
        tensors = {}
        for name, parameter in self.engine.parameters.items():
            tensors[f"adapter.{name}"] = parameter.detach()
            for moment in ("exp_avg", "exp_avg_sq"):
                tensors[f"{moment}.{name}"] = state[parameter][moment]
        return tensors

    def _resume(self) -> None:
        snapshot = self.checkpoints.latest() if self.checkpoints is not None and self.world.is_rank0 else None
        self.done, facts = self.world.on_rank0(lambda: (snapshot.step, dict(snapshot.facts)) if snapshot else (0, {}))
        if not self.done:
            return
        self.loss_sum, self.seconds = float(facts["loss_sum"]), float(facts["seconds"])
        for name, value in self._tensors().items():
            if snapshot:
                value.copy_(snapshot.tensors[name])
            self.world.broadcast(value)
        for state in self.engine.optimizer.state.values():
            state["step"].fill_(float(self.done))
