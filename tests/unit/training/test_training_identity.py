"""Two runs are the same by content, and what differs is told with both values."""

from __future__ import annotations

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


def test_names_and_paths_of_the_base_do_not_count() -> None:
    assert differences(identity(name="./b"), identity(name="hub/b")) == ""


def test_every_field_is_named_with_both_values() -> None:
    found = differences(identity(num_train_epochs=2, lora_r=8), identity("c" * 64, num_train_epochs=3, lora_r=16))
    assert found.split(", ") == [
        "base_model (aaaaaaaaaaaa… there",
        "cccccccccccc… now)",
        "config.num_train_epochs (2 there",
        "3 now)",
        "config.lora_r (8 there",
        "16 now)",
    ]


def test_fields_that_only_one_side_has_are_named() -> None:
    old, new = identity(), identity()
    del old["config"]["seed"]
    old["config"]["momentum"] = 0.9
    assert differences(old, new) == "config.seed (nothing there, 42 now), config.momentum (0.9 there, nothing now)"


plain = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
anything = plain | st.lists(plain, max_size=2) | st.dictionaries(st.sampled_from(["sha256", "seed", "x"]), plain)


@given(st.dictionaries(st.sampled_from(["base_model", "config", "data_sha256", "x"]), anything))
@settings(max_examples=40)
def test_whatever_a_file_holds_differs_or_is_equal(there: dict[str, Any]) -> None:
    assert differences(there, identity())
    assert differences(there | identity(), identity()) == ""


@pytest.mark.parametrize("name", ["org/b", "./org/b/", "org/../org/b"])
def test_what_is_on_this_machine_has_an_absolute_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert base_name(name) == str((tmp_path / "org" / "b").resolve())


@pytest.mark.parametrize("name", ["meta-llama/Llama-3", "s3://bucket/llama"])
def test_what_is_elsewhere_keeps_its_name(name: str) -> None:
    assert base_name(name) == name
