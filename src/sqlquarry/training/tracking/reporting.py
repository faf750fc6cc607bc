"""Report the figures of a run to TensorBoard, Weights & Biases or MLflow, through transformers' integrations."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from sqlquarry.errors import ConfigError, MissingExtraError, TrainingError
from sqlquarry.text import visible_logger
from sqlquarry.training.tracking.log_entry import LogEntry

logger = visible_logger(__name__)

# Name of transformers' integration -> packages, one of which must be installed.
_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",)}


class Reporter:
    """Passes each log entry to the chosen services. Use it as a context manager and call it once per step.

    Account and destination are set by the services' own environment variables (``WANDB_PROJECT``,
    ``MLFLOW_TRACKING_URI``, ``TENSORBOARD_LOGGING_DIR``, …). By default, TensorBoard's files are written below
    `output_dir`/runs. If a run is already open, it receives the figures and stays open. Otherwise a new run is started
    and ended.

    If a training is resumed, the services get a new run whose steps continue from the old one. To continue the same
    run, set ``WANDB_RUN_ID`` and ``WANDB_RESUME=allow``, or ``MLFLOW_RUN_ID``.

    Args:
        report_to: any of "tensorboard", "wandb" and "mlflow". May be empty.
        output_dir: the run's directory.
        config: the run's parameters for the services.
        steps: optimizer steps of the run.

    Raises:
        ConfigError: a name is not one of the three, or an environment variable would upload more than figures.
        MissingExtraError: the package of a service is not installed.
        TrainingError: on the first entry, if a service cannot be reached.
    """

    def __init__(self, report_to: Sequence[str], output_dir: Path, config: Mapping[str, object], steps: int) -> None:
        self._directory, self._config, self._steps = output_dir, dict(config), steps
        self._names = check_report_to(report_to)
        self._started = False

    def __enter__(self) -> Self:
        return self

    def __call__(self, entry: LogEntry) -> None:
        """Report one step with every figure of its entry."""
        if not self._names:
            return
        if not self._started:
            self._start()
        self._state.global_step = entry["step"]
        figures = {name: value for name, value in entry.items() if name != "step" and isinstance(value, int | float)}
        self._callbacks.on_log(self._arguments, self._state, self._control, logs=figures)

    def __exit__(self, kind: object, *_: object) -> None:
        if not self._started:
            return
        # transformers' integrations never end a W&B run, and mark every MLflow run as finished.
        for end in (*self._ends, self._train_end):
            try:
                end(kind is not None)
            except Exception:
                # The adapter is not saved yet, and matters more than the services.
                logger.exception(
                    "%s may lack the last figures. training_log.jsonl contains all of them.", " or ".join(self._names)
                )

    def _train_end(self, _failed: bool) -> None:
        self._callbacks.on_train_end(self._arguments, self._state, self._control)

    def _start(self) -> None:
        """Start a run at the first entry, so that a run that fails earlier leaves no trace in anyone's account."""
        from transformers import TrainerControl, TrainerState, TrainingArguments
        from transformers.integrations import get_reporting_integration_callbacks
        from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback

        model = _Described(self._config)
        self._state, self._control = TrainerState(max_steps=self._steps), TrainerControl()
        self._state.is_world_process_zero = self._state.is_local_process_zero = True
        # The arguments are only reported. With use_cpu, TrainingArguments does not look for a device.
        with _kept_accelerate_state():
            self._arguments = TrainingArguments(
                output_dir=str(self._directory), report_to=list(self._names), use_cpu=True, max_steps=self._steps
            )
        # The other fields belong to a Trainer that does not run here, and would overwrite our fields of the same name.
        self._arguments.to_dict, self._arguments.to_json_string = model.config.to_dict, model.config.to_json_string
        # DefaultFlowCallback does nothing here. Without it, the handler would warn.
        callbacks = [DefaultFlowCallback, *get_reporting_integration_callbacks(list(self._names))]
        self._ends = [_ENDS[name] for name in self._names if name in _ENDS and not _is_open(name)]
        try:
            self._callbacks = CallbackHandler(callbacks, model, None, None, None)
            self._started = True
            self._callbacks.on_train_begin(self._arguments, self._state, self._control)
        except Exception as error:
            raise TrainingError(  # `sagemaker.failures` recognizes the beginning of this text
                f"no run could be begun in {' or '.join(self._names)}: {str(error).rstrip('.')}. Fix this or remove "
                "the service from report_to, and run again."
            ) from error


@contextlib.contextmanager
def _kept_accelerate_state() -> Iterator[None]:
    """Keep accelerate's global state, which TrainingArguments clears, for a trainer that is training now."""
    from accelerate.state import AcceleratorState, PartialState

    states = (PartialState._shared_state, AcceleratorState._shared_state)  # noqa: SLF001 - it has no public way
    before = [dict(state) for state in states]
    try:
        yield
    finally:
        for state, values in zip(states, before, strict=True):
            state.clear()
            state.update(values)


def _is_open(name: str) -> bool:
    if name == "wandb":
        import wandb

        return wandb.run is not None
    import mlflow

    return mlflow.active_run() is not None


def _end_wandb(failed: bool) -> None:
    import wandb

    wandb.finish(exit_code=int(failed))


def _end_mlflow(failed: bool) -> None:
    import mlflow

    mlflow.end_run("FAILED" if failed else "FINISHED")


_ENDS: dict[str, Callable[[bool], None]] = {"wandb": _end_wandb, "mlflow": _end_mlflow}


def check_report_to(report_to: Sequence[str], environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the names of the services, checked for a run in this environment.

    Raises:
        ConfigError: a name is not one of the three, or an environment variable would upload more than figures.
        MissingExtraError: the package of a service is not installed.
    """
    names = (report_to,) if isinstance(report_to, str) else tuple(report_to)
    unknown = [name for name in names if name not in _PACKAGES]
    if unknown:
        raise ConfigError(f"report_to is {list(names)!r}, but can only contain {', '.join(map(repr, _PACKAGES))}.")
    for name in names:
        packages = _PACKAGES[name]
        if not any(find_spec(package) for package in packages):
            raise MissingExtraError(f"report_to={name!r} needs {packages[0]}. Run: pip install {packages[0]}")
    for variable in ("WANDB_LOG_MODEL", "WANDB_WATCH") if "wandb" in names else ():
        # Both would make the run fail, because the integration gets only a description of the model.
        if environment.get(variable, "false").lower() != "false":
            raise ConfigError(
                f"{variable} is {environment[variable]!r}, but report_to='wandb' reports only figures, no weights. "
                f"Unset {variable}."
            )
    return names


class _Described:
    """A stand-in for a model with the only attribute that the integrations read, its configuration."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self.config = _Config(config)


class _Config:
    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = dict(fields)

    def to_dict(self) -> dict[str, object]:
        return self._fields

    def to_json_string(self) -> str:
        import json

        return json.dumps(self._fields, indent=2)
