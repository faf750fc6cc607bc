"""A training shows its progress in a log file, without any configuration, and in a notebook."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from sqlquarry import AdapterMerger, ExactGrader, LocalModel, Record, SQLJudge
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig

from conftest import toy_examples

RECORDS = [Record(**example) for example in toy_examples(24)]
CONFIG = TrainingConfig(num_train_epochs=1, records_per_step=6, max_length=320, learning_rate=3e-3, device="cpu")


def test_a_log_file_shows_the_phases_before_the_first_step_and_the_progress(
    tiny_llama: Path, tmp_path: Path, capsys: Any
) -> None:
    adapter = QLoRAFSDPTrainer(tiny_llama, config=CONFIG).train(RECORDS, output_dir=tmp_path / "adapter")
    merged = AdapterMerger().merge(adapter, tmp_path / "merged")
    SQLJudge([ExactGrader()]).judge(RECORDS, ["SELECT 1"] * len(RECORDS))
    AdapterMerger().verify(RECORDS[:2], adapter, merged)
    output = capsys.readouterr().err
    steps = adapter.run.steps
    lines = [
        line
        for line in output.splitlines()
        if line.partition(":")[0] in ("training", "merging", "judging") or ":" not in line
    ]
    found = iter(lines)
    for pattern in (
        "encoding 24 records",
        "hashing the base model",
        "loading the base model, nf4",
        f"training: step 0/{steps}",
        rf"training: step {steps}/{steps}, loss \d+\.\d{{3}}, [\d,]+ tokens/s, \d+ s",
        r"merging: 0 bytes/\d+ kB",
        r"merging: (\d+ kB)/\1, .+/s, \d+ s",
        "judging: 0/24",
        r"judging: 24/24, \d+ s",
        "comparing the model with the adapter on 2 records",
    ):
        assert any(re.fullmatch(pattern, line) for line in found), (pattern, output)
    assert not re.search(r"[\r\x1b]", "".join(lines))


def test_a_notebook_has_one_display_for_the_steps_that_ends_with_the_last(
    tiny_llama: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    shown: list[str] = []

    def display(content: dict[str, str], **_: Any) -> Any:
        place = len(shown)
        shown.append(content["text/plain"])
        return SimpleNamespace(update=lambda content, **_: shown.__setitem__(place, content["text/plain"]))

    for name, content in {
        "IPython": {"get_ipython": lambda: SimpleNamespace(kernel=object())},
        "IPython.display": {"display": display},
    }.items():
        vars(module := ModuleType(name)).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    adapter = QLoRAFSDPTrainer(tiny_llama, config=CONFIG).train(RECORDS, output_dir=tmp_path / "adapter")
    steps = adapter.run.steps
    (training,) = [text for text in shown if text.startswith("training")]
    assert training.startswith(f"training: step {steps}/{steps}, loss ")
    model = LocalModel(adapter, batch_size=4, max_tokens=8)
    answers = model.generate(["one", "two"])
    SQLJudge([ExactGrader()], batch_size=6).evaluate(RECORDS, model)
    assert len(answers) == 2
    (judging,) = [text for text in shown if text.startswith("judging")]
    assert judging.startswith("judging: 24/24")
    assert len([text for text in shown if text.startswith("generate")]) <= 1  # one if two answers took a second
    assert "training" not in capsys.readouterr().err
