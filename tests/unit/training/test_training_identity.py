"""Two runs are the same if their content is the same, and differences are listed with both values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlquarry.training import TrainingConfig
from sqlquarry.training.identity import base_name, differences


def identity(sha256: str = "a" * 64, name: str = "b", **config: Any) -> dict[str, Any]:
    base = {"name": name, "path": f"/models/{name}", "sha256": sha256}
    return {"base_model": base, "data_sha256": "d" * 64, "config": TrainingConfig(**config).identity}


def test_the_name_and_path_of_the_base_are_ignored() -> None:
    assert differences(identity(name="./b"), identity(name="hub/b")) == ""


def listed(differences: str) -> list[tuple[str, str, str]]:
    """Return the field and both values of each difference."""
    found = re.findall(r"([\w.]+) \([a-z ]+: (\S+), [a-z ]+: (\S+)\)", differences)
    assert differences.count("(") == len(found)
    return found


def test_every_different_field_is_listed_with_both_values() -> None:
    found = differences(identity(num_train_epochs=2, lora_r=8), identity("c" * 64, num_train_epochs=3, lora_r=16))
    assert listed(found) == [
        ("base_model", "aaaaaaaaaaaa…", "cccccccccccc…"),
        ("config.num_train_epochs", "2", "3"),
        ("config.lora_r", "8", "16"),
    ]


def test_fields_on_only_one_side_are_listed() -> None:
    old, new = identity(), identity()
    del old["config"]["seed"]
    old["config"]["momentum"] = 0.9
    (seed, missing, now), (momentum, there, also_missing) = listed(differences(old, new))
    assert (seed, now) == ("config.seed", "42")
    assert (momentum, there) == ("config.momentum", "0.9")
    assert missing == also_missing


plain = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
anything = plain | st.lists(plain, max_size=2) | st.dictionaries(st.sampled_from(["sha256", "seed", "x"]), plain)


@given(st.dictionaries(st.sampled_from(["base_model", "config", "data_sha256", "x"]), anything))
@settings(max_examples=40)
def test_any_content_of_a_file_can_be_compared(there: dict[str, Any]) -> None:
    assert differences(there, identity())
    assert differences(there | identity(), identity()) == ""


@pytest.mark.parametrize("name", ["org/b", "./org/b/", "org/../org/b"])
def test_a_base_on_this_machine_has_an_absolute_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert base_name(name) == str((tmp_path / "org" / "b").resolve())


@pytest.mark.parametrize("name", ["meta-llama/Llama-3", "s3://bucket/llama"])
def test_a_base_elsewhere_keeps_its_name(name: str) -> None:
    assert base_name(name) == name
