"""A run's figures in TensorBoard, Weights & Biases or MLflow, through transformers' own integrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlquarry.errors import ConfigError, MissingExtraError

# Name of transformers' integration -> the packages of which one must be there.
_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",)}


class Reporter:
    """Passes each log entry on to the chosen services; a context manager, called once per step as `loop.Log`.

    Where they write to and as whom is theirs to say, by their own environment variables (``WANDB_PROJECT``,
    ``MLFLOW_TRACKING_URI``, ``TENSORBOARD_LOGGING_DIR``, …). TensorBoard's files go below `output_dir`/runs unless told
    otherwise.

    Args:
        report_to: "tensorboard", "wandb", "mlflow"; several at once, none at all.
        output_dir: the run's directory.
        config: what is noted as the run's parameters.
        steps: optimiser steps of the run.

    Raises:
        ConfigError: a name that is none of the three.
        MissingExtraError: its package is not installed.
    """

    def __init__(self, report_to: Sequence[str], output_dir: Path, config: Mapping[str, Any], steps: int) -> None:
        self._directory, self._config, self._steps = output_dir, dict(config), steps
        self._names = check_report_to(report_to)
        self._started = False

    def __enter__(self) -> Self:
        return self

    def __call__(self, entry: Mapping[str, Any]) -> None:
        """Report one step: its number, and every figure of the entry by its name."""
        if not self._names:
            return
        if not self._started:
            self._start()
        self._state.global_step = entry["step"]
        figures = {name: value for name, value in entry.items() if name != "step" and isinstance(value, int | float)}
        self._callbacks.on_log(self._arguments, self._state, self._control, logs=figures)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._started:
            self._callbacks.on_train_end(self._arguments, self._state, self._control)

    def _start(self) -> None:
        """On the first entry: a run that fails before it leaves nothing behind in anybody's account."""
        from transformers import TrainerControl, TrainerState, TrainingArguments
        from transformers.integrations import get_reporting_integration_callbacks
        from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback

        model = _Described(self._config)
        self._state, self._control = TrainerState(max_steps=self._steps), TrainerControl()
        self._state.is_world_process_zero = self._state.is_local_process_zero = True
        # use_cpu: the arguments are only described, and must not look for a device.
        self._arguments = TrainingArguments(
            output_dir=str(self._directory), report_to=list(self._names), use_cpu=True, max_steps=self._steps
        )
        # The default one does nothing here but keep the handler from warning that it is missing.
        callbacks = [DefaultFlowCallback, *get_reporting_integration_callbacks(list(self._names))]
        self._callbacks = CallbackHandler(callbacks, model, None, None, None)
        self._callbacks.on_train_begin(self._arguments, self._state, self._control)
        self._started = True


def check_report_to(report_to: Sequence[str]) -> tuple[str, ...]:
    """The names of the services, checked.

    Raises:
        ConfigError: a name that is none of the three.
        MissingExtraError: its package is not installed.
    """
    names = (report_to,) if isinstance(report_to, str) else tuple(report_to)
    unknown = [name for name in names if name not in _PACKAGES]
    if unknown:
        raise ConfigError(f"report_to is {list(names)!r}, but must be of {', '.join(map(repr, _PACKAGES))}")
    for name in names:
        packages = _PACKAGES[name]
        if not any(find_spec(package) for package in packages):
            raise MissingExtraError(f"report_to={name!r} needs {packages[0]}. Run: pip install {packages[0]}")
    return names


class _Described:
    """What the integrations ask of a model: its configuration."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = _Config(config)


class _Config:
    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = dict(fields)

    def to_dict(self) -> dict[str, Any]:
        return self._fields

    def to_json_string(self) -> str:
        import json

        return json.dumps(self._fields, indent=2)
