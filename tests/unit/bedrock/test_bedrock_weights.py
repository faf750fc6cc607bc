"""The safetensors files of a checkpoint that a server reads."""

from __future__ import annotations

from typing import Any

from sqlquarry.bedrock.export.weights import CheckpointWeights


def test_a_server_reads_the_files_in_the_index() -> None:
    shards: Any = {"a": {"x": 1}, "b": {"y": 2}}
    assert CheckpointWeights(shards, {}, {"x": "a"}).loaded == {"a": {"x": 1}}
    assert CheckpointWeights(shards, {}, None).loaded == shards
    assert CheckpointWeights(shards | {"model.safetensors": {}}, {}, None).loaded == {"model.safetensors": {}}
