"""What is logged of one optimizer step: a line of training_log.jsonl, and what bars, plots and services show."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class LogEntry(TypedDict):
    """One optimizer step.

    Keys:
        step: number of the step, from 1.
        seconds: since the start of the run, in all sessions together.
        steps: steps of the run.
        loss: mean over the answer tokens of the step.
        grad_norm: norm of the gradient before it is clipped.
        learning_rate: of the step.
        tokens: that the step computed.
        eval_loss: of the evaluation records, after the last step of an epoch.
    """

    step: int
    seconds: float
    steps: int
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int
    eval_loss: NotRequired[float]
