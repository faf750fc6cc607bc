"""Find the checkpoint from which TRL's trainer can resume, and remove all of them when the run is finished."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

from sqlquarry.errors import ConfigError, TrainingError
from sqlquarry.files.metadata import read_object
from sqlquarry.files.writing import write_json
from sqlquarry.training.steps.world import World

_COMPLETE = "complete.json"  # written last, because the trainer writes its files one by one
_NAME = re.compile(r"checkpoint-(\d+)")


class TrainerCheckpoints:
    """The checkpoints of transformers' Trainer in one directory.

    Args:
        place: the directory, which all processes can read.
        world: the processes. A checkpoint fits only the same number of processes.

    Raises:
        ConfigError: `place` is a file.
    """

    def __init__(self, place: str | Path, world: World) -> None:
        where = Path(place)
        if where.exists() and not where.is_dir():
            raise ConfigError(f"checkpoint_dir is {where}, which is a file. Give a directory.")
        self.place, self._world = where, world

    def latest(self) -> Path | None:
        """Return the newest complete checkpoint, or None. Remove those that were not completed.

        Raises:
            TrainingError: another number of processes wrote it, or a process cannot see it.
        """
        name = self._world.on_rank0(self._newest)
        if name is None:
            return None
        path = self.place / name
        if self._world.any(not path.is_dir()):
            raise TrainingError(f"not every process can read {path}. Use a checkpoint_dir that all machines share.")
        return path

    def mark_complete(self, step: int) -> None:
        """Record that all processes have written their files of a checkpoint."""
        self._world.any(False)
        if self._world.is_rank0:
            write_json(self.place / f"checkpoint-{step}" / _COMPLETE, {"processes": self._world.size})

    def clear(self) -> None:
        """Remove all checkpoints of a finished run."""
        for path in self._all():
            shutil.rmtree(path)
        with contextlib.suppress(OSError):  # the directory contains other files
            self.place.rmdir()

    def _newest(self) -> str | None:
        for path in reversed(self._all()):
            if not (path / _COMPLETE).is_file():
                shutil.rmtree(path)
                continue
            processes = read_object(path / _COMPLETE).get("processes")
            if processes != self._world.size:
                raise TrainingError(
                    f"{path} was written by {processes} processes, and this run has {self._world.size}. TRL resumes "
                    'only with the same number of processes. Start as many, or use backend="sqlquarry".'
                )
            return path.name
        return None

    def _all(self) -> list[Path]:
        found = [path for path in self.place.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))
