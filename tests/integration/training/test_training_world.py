"""Processes that join again after they have left, as two runs in one torchrun do, and a group that the caller made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is exported

from sqlquarry.training import launch

PROGRAM = """
import os, sys, time
import torch.distributed as dist
from sqlquarry.training.steps.world import World

rank = int(os.environ["RANK"])
for number in range(3):
    if number == rank + 1:
        time.sleep(0.5)  # the other process now finds whatever this one has left in the store
    world = World.join("cpu")
    print(world.on_rank0(lambda: number), world.any(rank == 1))
    world.leave()
    assert not dist.is_initialized()
dist.init_process_group("gloo", store=dist.FileStore(sys.argv[1], 2), rank=rank, world_size=2)
World.join("cpu").leave()
assert dist.is_initialized()
"""


def test_processes_join_again_after_leaving_and_keep_a_group_of_the_caller(tmp_path: Path) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun's, which outlives the groups
    environment = os.environ | {"GLOO_SOCKET_IFNAME": launch.LOOPBACK, "TORCHELASTIC_USE_AGENT_STORE": "True"}
    environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    command = [sys.executable, "-c", PROGRAM, f"{tmp_path}/store"]
    started = [
        subprocess.Popen(command, env=environment | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=30)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0]
    assert outputs == ["0 True\n1 True\n2 True\n"] * 2
