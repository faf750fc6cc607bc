"""Connect TRL's trainer to our log, checkpoints and signals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

from sqlquarry.errors import TrainingError
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.steps.world import World
from sqlquarry.training.tracking.log_entry import LogEntry
from sqlquarry.training.trl.checkpoints import TrainerCheckpoints

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainerState

Logs = Callable[[int], AbstractContextManager[Sequence[Callable[[LogEntry], None]]]]


class RunEvents:
    """What we do at the events of transformers' Trainer: log each step, save in time, and stop after a signal.

    `as_callback` makes it a `TrainerCallback`, whose import takes seconds.

    Args:
        config: the interval of checkpoints.
        world: the processes.
        checkpoints: the run's checkpoints.
        evaluates: evaluate after each epoch.
        open_logs: opens the loggers for a number of steps.
        stopped: receives the signals that ask to stop.
        held: closes the loggers.
    """

    def __init__(
        self,
        config: TrainingConfig,
        world: World,
        checkpoints: TrainerCheckpoints,
        *,
        evaluates: bool,
        open_logs: Logs,
        stopped: Sequence[int],
        held: ExitStack,
    ) -> None:
        self._config, self._world, self._checkpoints, self._evaluates = config, world, checkpoints, evaluates
        self._open_logs, self._stopped, self._held = open_logs, stopped, held
        self._logs: Sequence[Callable[[LogEntry], None]] = ()
        self._entry: LogEntry | None = None  # waits for the loss of the evaluation
        self._tokens = 0

    def on_train_begin(self, _args: object, state: TrainerState, _control: object, **_: object) -> None:
        """Open the loggers."""
        self._logs = self._held.enter_context(self._open_logs(state.max_steps))
        self._started = self._saved_at = time.monotonic()
        self._before = seconds_of(state.log_history)

    def on_step_end(self, _args: object, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Decide whether to save and to stop, in the same way on all processes."""
        is_due = not self._config.save_steps and time.monotonic() - self._saved_at >= self._config.save_interval_s
        if self._world.any(bool(self._stopped)):
            control.should_save = control.should_training_stop = True
        # The trainer itself evaluates an epoch only after it has saved the epoch's last step.
        ends_epoch = state.epoch.is_integer() or state.global_step >= state.max_steps
        if self._evaluates and ends_epoch:
            control.should_evaluate = True
        # Also after the last step, because a full disk or a signal may still keep the adapter from being saved.
        if self._world.any(is_due) or state.global_step >= state.max_steps:
            control.should_save = True

    def on_log(
        self, _args: object, state: TrainerState, _control: object, logs: Mapping[str, Any], **_: object
    ) -> None:
        """Note the figures of a step.

        Raises:
            TrainingError: a figure is not a finite number.
        """
        if "loss" not in logs:  # the figures of an evaluation or of the complete run
            return
        _require_finite(logs, state.global_step)
        seconds = self._before + time.monotonic() - self._started
        state.log_history[-1]["seconds"] = seconds  # for a run that resumes
        tokens, self._tokens = round(logs["num_tokens"]) - self._tokens, round(logs["num_tokens"])
        self._write()
        self._entry = LogEntry(
            step=state.global_step,
            seconds=round(seconds, 2),
            steps=state.max_steps,
            loss=logs["loss"],
            grad_norm=logs["grad_norm"],
            learning_rate=logs["learning_rate"],
            tokens=tokens,
        )

    def on_evaluate(
        self, _args: object, _state: object, _control: object, metrics: Mapping[str, float], **_: object
    ) -> None:
        """Add the loss of the evaluation records to the last step."""
        if self._entry:
            self._entry["eval_loss"] = metrics["eval_loss"]

    def on_save(self, _args: object, state: TrainerState, _control: object, **_: object) -> None:
        """Mark a checkpoint as complete."""
        self._write()
        self._checkpoints.mark_complete(state.global_step)
        self._saved_at = time.monotonic()

    def on_train_end(self, _args: object, _state: object, _control: object, **_: object) -> None:
        """Log the last step."""
        self._write()

    def _write(self) -> None:
        entry, self._entry = self._entry, None
        if entry:
            for log in self._logs:
                log(entry)

    def as_callback(self) -> TrainerCallback:
        """Return a transformers' callback that passes its events to this object."""
        from transformers import TrainerCallback

        callback = TrainerCallback()
        for name in vars(RunEvents):
            if name.startswith("on_"):
                setattr(callback, name, getattr(self, name))
        return callback


def seconds_of(log_history: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds of training until the last logged step, over all sessions."""
    return float(next((entry["seconds"] for entry in reversed(log_history) if "seconds" in entry), 0.0))


def _require_finite(logs: Mapping[str, Any], step: int) -> None:
    for what, name in (("loss", "loss"), ("norm of the gradient", "grad_norm")):
        if not math.isfinite(logs[name]):
            raise TrainingError(
                f"the {what} became {logs[name]} in step {step} at a rate of {logs['learning_rate']:.1e}. Train again "
                "with a lower TrainingConfig.learning_rate and another output_dir."
            )
