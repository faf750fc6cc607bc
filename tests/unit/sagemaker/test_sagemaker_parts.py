"""The parts of a job: image, wheel, pinned packages, bootstrap, and progress lines."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sqlquarry
from sqlquarry.errors import ConfigError
from sqlquarry.sagemaker import bootstrap, packaging
from sqlquarry.sagemaker.images import IMAGES, training_image
from sqlquarry.sagemaker.metrics import METRIC_DEFINITIONS, Progress, echoed, metric_line


@pytest.mark.parametrize(
    ("torch", "transformers", "processor", "tag"),
    [
        (
            "2.13.0+cu130",
            "5.24.0",
            "gpu",
            "huggingface-pytorch-training:2.11-transformers5.13-cu130-amzn2023-sagemaker",
        ),
        ("2.11.1", "5.13.1", "gpu", "huggingface-pytorch-training:2.11-transformers5.13-cu130-amzn2023-sagemaker"),
        ("2.10.0", "5.24.0", "gpu", "pytorch-training:2.10.0-gpu-py313-cu130-ubuntu22.04-sagemaker"),
        ("2.9.0", "5.10.0", "gpu", "huggingface-pytorch-training:2.9.0-transformers5.3.0-gpu-py312-cu130-ubuntu22.04"),
        ("2.13.0", "5.24.0", "cpu", "pytorch-training:2.10.0-cpu-py313-ubuntu22.04-sagemaker"),
    ],
)
def test_the_newest_image_that_fits_is_chosen(torch: str, transformers: str, processor: Any, tag: str) -> None:
    uri = training_image("us-east-1", torch=torch, transformers=transformers, processor=processor)
    assert uri == f"763104351884.dkr.ecr.us-east-1.amazonaws.com/{tag}"


def test_images_come_from_the_account_of_their_region() -> None:
    def registry(region: str) -> str:
        return training_image(region, torch="2.13", transformers="5.24", processor="gpu").partition("/")[0]

    assert registry("eu-south-1") == "692866216735.dkr.ecr.eu-south-1.amazonaws.com"
    assert registry("cn-north-1") == "727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn"


def test_an_older_torch_has_no_image() -> None:
    with pytest.raises(ConfigError, match=r"gpu .*2\.8\.0 .*2\.11, 2\.10, 2\.9"):
        training_image("us-east-1", torch="2.8.0", transformers="5.0", processor="gpu")
    assert all(len(image.name) < 120 for image in IMAGES)


def test_the_wheel_installs_and_is_the_same_every_time(tmp_path: Path) -> None:
    name, content = packaging.wheel()
    assert packaging.wheel() == (name, content)
    (tmp_path / name).write_bytes(content)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", "there", name]
    subprocess.run(pip, cwd=tmp_path, check=True, capture_output=True)

    package = Path(sqlquarry.__file__).parent
    ours = {path.relative_to(package) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    theirs = (tmp_path / "there" / "sqlquarry").rglob("*")
    assert {path.relative_to(tmp_path / "there" / "sqlquarry") for path in theirs if path.is_file()} >= ours
    code = "import sqlquarry; print(sqlquarry.__file__, sqlquarry.__version__)"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path / "there", check=True, capture_output=True, text=True
    )
    assert ran.stdout.split() == [str(tmp_path / "there" / "sqlquarry" / "__init__.py"), sqlquarry.__version__]


def test_the_wheel_records_every_file() -> None:
    archive = zipfile.ZipFile(BytesIO(packaging.wheel()[1]))
    (record,) = (name for name in archive.namelist() if name.endswith("/RECORD"))
    listed = {line.split(",")[0] for line in archive.read(record).decode().splitlines()}
    assert listed == set(archive.namelist())
    assert not any("__pycache__" in name for name in listed)


def test_every_package_is_pinned_but_those_of_the_image() -> None:
    pinned = dict(line.split("==") for line in packaging.requirements().splitlines())
    for name in ("transformers", "peft", "bitsandbytes", "boto3", "jinja2", "tokenizers", "numpy"):
        assert pinned[name] == importlib.metadata.version(name)
    assert not {"torch", "triton", "sympy", "sqlquarry", "moto", "pytest"} & set(pinned)
    assert not [name for name in pinned if name.startswith("nvidia")]


def test_a_package_that_is_missing_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.distribution

    def without_peft(name: str) -> importlib.metadata.Distribution:
        if name == "peft":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(packaging, "distribution", without_peft)
    with pytest.raises(ConfigError, match=r"peft.*pip install 'sqlquarry\[train,merge,aws\]'"):
        packaging.requirements()


def test_packages_that_only_a_report_needs_are_pinned_too() -> None:
    assert f"moto=={importlib.metadata.version('moto')}\n" in packaging.requirements(["moto"])
    with pytest.raises(ConfigError, match=r"no-such-reporter.*\]' no-such-reporter"):
        packaging.requirements(["no-such-reporter"])


def test_a_slim_package_replaces_the_full_one(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.distribution

    def slim(name: str) -> importlib.metadata.Distribution:
        if name == "mlflow":
            raise importlib.metadata.PackageNotFoundError(name)
        return real("moto" if name == "mlflow-skinny" else name)

    monkeypatch.setattr(packaging, "distribution", slim)
    pinned = packaging.requirements("mlflow")  # a single name instead of a tuple
    assert f"mlflow-skinny=={importlib.metadata.version('moto')}\n" in pinned
    assert "mlflow==" not in pinned


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "CODE", tmp_path / "input" / "data" / "code")
    for name in ("SM_MASTER_PORT", "SM_NUM_GPUS", "SM_HOSTS", "SM_CURRENT_HOST", "SQLQUARRY_ML_ROOT", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "input" / "config").mkdir(parents=True)
    return tmp_path


def resources(root: Path, hosts: list[str], here: str) -> None:
    content = {"hosts": hosts, "current_host": here, "network_interface_name": "eth0"}
    (root / "input" / "config" / "resourceconfig.json").write_text(json.dumps(content))


def test_the_bootstrap_starts_a_process_for_each_gpu_of_each_machine(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SM_NUM_GPUS", "4")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    resources(root, ["algo-2", "algo-1"], "algo-2")
    words = " ".join(bootstrap.program())
    assert words == (
        "-m torch.distributed.run --nnodes 2 --node-rank 1 --master-addr algo-1 --master-port 7777 "
        "--nproc-per-node 4 -m sqlquarry.sagemaker.container"
    )
    assert bootstrap.environment()["NCCL_SOCKET_IFNAME"] == "eth0"
    assert "OMP_WAIT_POLICY" not in bootstrap.environment()
    assert bootstrap.program(9) == bootstrap.program()
    assert "--nproc-per-node 3" in " ".join(bootstrap.program(3))  # a step has rows for only 3


@pytest.mark.usefixtures("root")
def test_one_process_needs_no_torchrun_and_without_the_file_variables_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SM_NUM_GPUS", "0")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert bootstrap.environment()["OMP_WAIT_POLICY"] == "passive"
    assert bootstrap.program() == ["-m", "sqlquarry.sagemaker.container"]
    monkeypatch.setenv("SM_NUM_GPUS", "4")
    assert bootstrap.program(1) == ["-m", "sqlquarry.sagemaker.container"]
    monkeypatch.setenv("SM_NUM_GPUS", "0")
    monkeypatch.setenv("SM_HOSTS", '["algo-1", "algo-2"]')
    monkeypatch.setenv("SM_CURRENT_HOST", "algo-2")
    assert bootstrap.program()[2:6] == ["--nnodes", "2", "--node-rank", "1"]
    monkeypatch.setenv("HF_HOME", "/cache")
    assert "HF_HOME" not in bootstrap.environment()


def test_a_package_that_cannot_be_installed_is_the_failure_of_the_job(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def fail(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(SystemExit, match=r"requirements\.txt.* status 1.*NAT gateway"):
        bootstrap.install()
    assert "pip install -r" in (root / "output" / "failure").read_text()
    assert len(asked) == 1


def test_a_program_that_cannot_start_is_the_failure_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "sqlquarry").mkdir()
    (tmp_path / "sqlquarry" / "__init__.py").write_text("raise ImportError('half an installation')")
    environment = os.environ | {"SQLQUARRY_ML_ROOT": str(tmp_path), "PYTHONPATH": str(tmp_path), "SM_NUM_GPUS": "1"}
    ran = subprocess.run([sys.executable, bootstrap.__file__, "train"], env=environment, check=False)
    assert ran.returncode == 1
    reason = (tmp_path / "output" / "failure").read_text()
    assert "-m sqlquarry.sagemaker.container" in reason
    assert " status 1 " in reason


def test_the_bootstrap_needs_only_the_standard_library() -> None:
    code = f"import runpy; runpy.run_path({bootstrap.__file__!r}); import sys; print('sqlquarry' in sys.modules)"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "False"


@given(
    step=st.integers(1, 10**6),
    more=st.none() | st.integers(0, 10**6),
    loss=st.floats(1e-6, 1e6),
    seconds=st.floats(0.001, 1e6),
    tokens=st.integers(1, 10**7),
)
def test_a_progress_line_can_be_parsed_and_matches_every_metric(
    step: int, more: int | None, loss: float, seconds: float, tokens: int
) -> None:
    entry = {
        "step": step,
        "loss": loss,
        "learning_rate": 2.9e-05,
        "grad_norm": 0.5,
        "seconds": seconds + 10,
        "tokens": tokens,
    }
    if more is not None:
        entry["steps"] = step + more
    line = metric_line(entry, {"seconds": 10.0})

    progress = Progress.parse(f"2026-11-24 {line}")
    assert progress is not None
    assert (progress.step, progress.steps) == (step, None if more is None else step + more)
    assert progress.loss == pytest.approx(loss, rel=1e-5)
    assert progress.tokens_per_s == pytest.approx(tokens / seconds, rel=1e-3)
    values = {one["Name"]: match[1] for one in METRIC_DEFINITIONS if (match := re.search(one["Regex"], line))}
    assert values["step"] == str(step)
    assert float(values["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(values["learning_rate"]) == 2.9e-05


def test_the_evaluation_loss_is_not_parsed_as_the_loss() -> None:
    line = metric_line({"step": 1, "loss": 2.0, "eval_loss": 1.0, "seconds": 0.0, "tokens": 5}, None)
    values = {one["Name"]: match[1] for one in METRIC_DEFINITIONS if (match := re.search(one["Regex"], line))}
    assert (values["loss"], values["eval_loss"]) == ("2", "1")
    assert Progress.parse(line) == Progress(1, None, 2.0)
    assert Progress.parse("something else step=1") is None


def test_the_first_step_of_a_resumed_run_has_no_rate() -> None:
    entry = {"step": 17, "steps": 42, "loss": 2.0, "seconds": 900.0, "tokens": 5}
    assert Progress.parse(metric_line(entry, None)) == Progress(17, 42, 2.0)
    assert Progress.parse(metric_line(entry | {"step": 1, "seconds": 2.0}, None)) == Progress(1, 42, 2.0, 2.5, 82.0)


def test_a_training_log_is_echoed_line_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "training_log.jsonl"
    old = {"step": 1, "loss": 3.0, "seconds": 1.0, "tokens": 10}
    log.write_text(json.dumps(old) + "\n")
    with echoed(log), log.open("a") as file:
        file.write(json.dumps(old | {"step": 2, "steps": 4, "seconds": 3.0}) + "\n")
        file.write(json.dumps(old | {"step": 3, "steps": 4, "seconds": 5.0}) + "\n")
        file.write('{"step": 4, "lo')  # still being written
    assert capsys.readouterr().out == "step=2/4 loss=3\nstep=3/4 loss=3 tokens_per_s=5 eta_s=2\n"
