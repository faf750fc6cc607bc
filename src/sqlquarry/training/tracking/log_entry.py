"""The log entry of one optimizer step, as in training_log.jsonl. Progress bar, plot and services show its figures."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class LogEntry(TypedDict):
    """The figures of one optimizer step.

    Keys:
        step: number of the step, from 1.
        seconds: seconds since the start of the run, over all sessions.
        steps: total number of steps of the run.
        loss: mean loss over the answer tokens of the step.
        grad_norm: norm of the gradient before clipping.
        learning_rate: learning rate of the step.
        tokens: number of tokens computed in the step.
        eval_loss: loss of the evaluation records, only after the last step of an epoch.
    """

    step: int
    seconds: float
    steps: int
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    eval_loss: NotRequired[float]
