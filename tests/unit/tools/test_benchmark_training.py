"""The training benchmark: its records, its limit, its table, and one contender on a tiny model."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("training")


@pytest.fixture
def contenders(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("training_contenders")


def test_records_have_the_lengths_of_the_data_set_and_fill_the_rows(contenders: ModuleType) -> None:
    found = contenders.records(400_000, 1_000)
    lengths = [len(record.input_ids) for record in found]
    assert sum(lengths) == 400_000
    assert sum(lengths) / len(lengths) == pytest.approx(102.6, abs=1)
    assert min(lengths[:-1]) >= 63
    answers = [sum(label != -100 for label in record.labels) for record in found]
    assert sum(answers) / len(answers) == pytest.approx(23.2, abs=1)
    assert all(0 < answer < tokens for answer, tokens in zip(answers[:-1], lengths[:-1], strict=True))


def test_the_limit_of_an_8b_model_on_an_h200(training: ModuleType) -> None:
    assert training.matmul_parameters(training.SHAPES["8b"]) == pytest.approx(7.505e9, rel=1e-4)
    result = {"matmul_flops": 790e12, "tiny": False}
    assert training.limit(result, passes=4) == pytest.approx(26_300, rel=1e-3)
    assert training.limit(result, passes=6) == pytest.approx(17_500, rel=3e-3)


def test_the_report_has_the_newest_result_of_each_contender(
    training: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {"gpu": "G", "driver": "1", "date": "2026-11-30", "versions": {}, "matmul_flops": 790e12, "tiny": False}
    about |= {"steps": 10, "warm_up": 3, "row_tokens": 3072}
    figures = {"peak_gib": 29.2, "load_s": 20, "warm_up_s": 40, "record_tokens": 100}
    training.print_report(
        [
            about | {"contender": "ours", "failed": "exit status 1"},
            about | figures | {"contender": "ours", "tokens_per_second": 17_712},
            about | figures | {"contender": "published", "tokens_per_second": 8_772},
            about | {"contender": "unsloth", "failed": "exit status 2"},
        ]
    )
    printed = capsys.readouterr().out
    assert "| 3,072 | none | 17,712 | 177 | 29.2 | 67% | 20 | 40 |" in printed
    assert "| 3,072 | all | 8,772 | 88 | 29.2 | 50% | 20 | 40 |" in printed
    assert "exit status 2" in printed
    assert "exit status 1" not in printed


def test_a_contender_trains_a_tiny_model(contenders: ModuleType, tmp_path: Path) -> None:
    job = contenders.Job(str(tmp_path), steps=1, warm_up=1, tiny=True)
    contenders.make_base(job.base, tiny=True)
    contender = contenders.CONTENDERS["ours-recomputed"]
    result = contender.train(contender, job)
    assert 500 < result["tokens_per_step"] <= 4 * 256
    assert result["tokens_per_second"] > 0
    assert result["record_tokens"] == pytest.approx(102.6, abs=20)
