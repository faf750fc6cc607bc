"""Text from SageMaker, base models and configurations is shown literally in the terminal and in the model card."""

import dataclasses
import re

import pytest

from sqlquarry.provenance import TrainingRun
from sqlquarry.sagemaker.logs import Display
from sqlquarry.training.tracking.card import model_card

NAME = "[red]a[/red]b\x1b[2J\x9b1m\u202ec :bomb:"
SHOWN = r"[red]a[/red]b\u{1b}[2J\u{9b}1m\u{202e}c :bomb:"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_log_is_shown_literally(stderr_of, terminal: bool) -> None:
    text = stderr_of(terminal=terminal)
    with Display(NAME) as display:
        display.state(NAME)
        display.line(f"{NAME}\r 50 %\r100 %")
    shown = text.getvalue()
    assert shown.count(SHOWN) >= (4 if terminal else 2)
    assert f"{SHOWN}\n 50 %\n100 %" in shown
    assert "\x9b" not in shown
    assert "\u202e" not in shown


def test_a_model_card_escapes_markup_in_names() -> None:
    hostile = "<img src=x> [l](http://x) | `b` \x1b[2J\u202e"
    run = dict.fromkeys((field.name for field in dataclasses.fields(TrainingRun)), 1)
    provenance = {
        "run": run | {"training_loss": 1.0, "learning_rate": 1e-4, "device": hostile, "trained_rows": []},
        "config": {"lora_r": 8, "note": hostile},
        "base_model": {"name": f"/models/{hostile}", "sha256": "0"},
        "data_sha256": "0",
        "prompt_fingerprint": "0",
        "versions": {hostile: hostile},
    }
    card = model_card(provenance, None, {hostile: hostile})
    assert not re.search(r"(?<!\\)<img|(?<!\\)\]\(http|http://|\x1b|\u202e", card)
    assert r"\<img src=x\> \[l\](http&#58;//x) \| \`b\` \\u\{1b\}\[2J\\u\{202e\}" in card
