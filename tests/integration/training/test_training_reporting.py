"""Log entries arrive in TensorBoard's event file through transformers' integration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sqlquarry.errors import ConfigError, MissingExtraError, TrainingError
from sqlquarry.training.tracking import reporting
from sqlquarry.training.tracking.reporting import Reporter


def test_tensorboard_receives_every_figure_of_every_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Reporter(["tensorboard"], tmp_path, {"rank": 16}, steps=3) as report:
        for step, loss in enumerate((3.0, 2.0, 1.5), start=1):
            evaluated = {"eval_loss": 1.25} if step == 3 else {}
            report(
                {"step": step, "seconds": float(step), "loss": loss, "learning_rate": 1e-3, "tokens": 100, **evaluated}
            )
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    seen = EventAccumulator(str(events)).Reload()
    assert [(event.step, event.value) for event in seen.Scalars("train/loss")] == [(1, 3.0), (2, 2.0), (3, 1.5)]
    assert [event.value for event in seen.Scalars("eval/loss")] == [1.25]
    assert "rank" in seen.Tensors("model_config/text_summary")[0].tensor_proto.string_val[0].decode()


def test_parameters_are_those_of_the_run_and_not_of_a_transformers_trainer(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = {"learning_rate": 3e-3, "seed": 7}
    with Reporter("tensorboard", tmp_path, config, steps=1) as report:
        report({"step": 1, "loss": 3.0})
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    seen = EventAccumulator(str(events)).Reload()
    for tag in ("args/text_summary", "model_config/text_summary"):
        assert json.loads(seen.Tensors(tag)[0].tensor_proto.string_val[0]) == config


def test_a_service_that_cannot_be_started_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "file" / "runs"))
    with (
        Reporter("tensorboard", tmp_path, {}, steps=1) as report,
        # `sagemaker.failures` recognizes this text.
        pytest.raises(TrainingError, match="no run could be begun in tensorboard"),
    ):
        report({"step": 1, "loss": 3.0})


def test_environment_variables_that_send_weights_to_wandb_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "find_spec", lambda _: True)
    for name, value in {"WANDB_LOG_MODEL": "end", "WANDB_WATCH": "all"}.items():
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            Reporter("tensorboard", tmp_path, {}, steps=1)
            with pytest.raises(ConfigError, match=f"{name} .*'{value}'"):
                Reporter("wandb", tmp_path, {}, steps=1)
            patched.setenv(name, "false")
            Reporter("wandb", tmp_path, {}, steps=1)


def test_nothing_is_written_before_the_first_step(tmp_path: Path) -> None:
    with Reporter("tensorboard", tmp_path, {}, steps=3):
        pass
    with Reporter((), tmp_path, {}, steps=3) as report:
        report({"step": 1, "loss": 1.0})
    assert not any(tmp_path.iterdir())


def test_an_unknown_or_missing_service_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"visdom.*'tensorboard', 'wandb', 'mlflow'"):
        Reporter(("wandb", "visdom"), tmp_path, {}, steps=1)
    monkeypatch.setattr(reporting, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="pip install mlflow"):
        Reporter(("mlflow",), tmp_path, {}, steps=1)
