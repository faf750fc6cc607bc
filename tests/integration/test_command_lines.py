"""Every command has a help text, and its exit status shows whether it was used correctly."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from sqlquarry.sagemaker import container
from sqlquarry.training import __main__ as training

COMMANDS = {  # module with `main` -> an option or argument in its help
    "sqlquarry.training.__main__": "base_model",
    "sqlquarry.sagemaker.container": "JOB.json",
    "sqlquarry.judging.__main__": "--minimum",
    "sqlquarry.bedrock.preflight.__main__": "--fix",
    "sqlquarry.emulator.__main__": "--port",
}


def exit_status(module: str, *arguments: str) -> object:
    with pytest.raises(SystemExit) as end:
        importlib.import_module(module).main(arguments)
    return end.value.code


@pytest.mark.parametrize("module", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_goes_to_the_standard_output(module: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(module, flag) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("usage: python -m sqlquarry.")
    assert COMMANDS[module] in shown.out
    assert shown.err == ""


@pytest.mark.parametrize("module", COMMANDS)
@pytest.mark.parametrize("arguments", [("--no-such-option",), ("a", "b", "c")])
def test_wrong_options_print_a_short_usage_and_return_status_2(
    module: str, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(module, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("usage: python -m sqlquarry.")
    assert len(shown.err.splitlines()) < 12


@pytest.mark.parametrize("module", [name for name in COMMANDS if "emulator" not in name])
def test_missing_arguments_print_a_short_usage_and_return_status_2(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(module) == 2
    assert capsys.readouterr().err.startswith("usage: ")


FIELDS = {"base_model": "b", "train": "t.jsonl", "output_dir": "o"}


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (None, "[Errno 2]"),
        ("{", "line 1, column 2"),  # PyYAML's own words
        (b"\xff\xfe\x00", "#x0000"),
        ("", "NoneType"),
        ("just text", "str"),
        ("- base_model", "list"),
        (json.dumps(FIELDS | {"epochs": 2}), "'epochs'"),
        (json.dumps(FIELDS | {"train": ["t.jsonl"]}), "train"),
        (json.dumps(FIELDS | {"config": [1]}), "config"),
        (json.dumps(FIELDS | {"config": {"lora_rank": 8}}), "lora_rank"),
        (json.dumps(FIELDS | {"config": {"num_train_epochs": "two"}}), "config"),
        (json.dumps({"train": "t.jsonl"}), "base_model"),
    ],
)
def test_a_training_job_that_cannot_be_read_returns_status_2(
    content: str | bytes | None, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert training.main([str(path)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("ConfigError: ")
    assert value in shown


def test_a_training_job_that_fails_returns_status_1(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(FIELDS | {"train": str(tmp_path / "none.jsonl")}))
    assert training.main([str(path)]) == 1


def test_the_container_writes_its_failure_to_the_file_that_sagemaker_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLQUARRY_ML_ROOT", str(tmp_path))
    assert container.main([str(tmp_path / "job.json")]) == 1
    assert (tmp_path / "output" / "failure").read_text().startswith("ConfigError: ")
