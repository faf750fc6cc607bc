"""Find the checkpoint from which TRL's trainer can resume, and remove all of them when the run is finished."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from sqlquarry.errors import ConfigError, MetadataError, TrainingError
from sqlquarry.files.digests import file_digests, files_below
from sqlquarry.files.metadata import read_object
from sqlquarry.files.writing import write_json
from sqlquarry.text import visible_logger
from sqlquarry.training.identity import differences
from sqlquarry.training.steps.world import World

logger = visible_logger(__name__)
_RUN = "run.json"  # the identity of the run whose checkpoints are in the directory
_COMPLETE = "complete.json"  # written last, because the trainer writes its files one by one
_NAME = re.compile(r"checkpoint-(\d+)")


class TrainerCheckpoints:
    """The checkpoints of transformers' Trainer in one directory.

    Args:
        place: the directory, which all processes can read.
        world: the processes. A checkpoint fits only the same number of processes.
        identity: the identity of the run.

    Raises:
        ConfigError: `place` is a file.
    """

    def __init__(self, place: str | Path, world: World, identity: Mapping[str, object]) -> None:
        where = Path(place)
        if where.exists() and not where.is_dir():
            raise ConfigError(f"checkpoint_dir is {where}, which is a file. Give a directory.")
        self.place, self._world, self._identity = where, world, identity

    def latest(self) -> Path | None:
        """Return the newest complete checkpoint, or None. Remove those that were not completed or are damaged.

        Raises:
            TrainingError: the directory has checkpoints of another run, another number of processes wrote the newest
                one, or a process cannot see it.
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
            path = self.place / f"checkpoint-{step}"
            write_json(path / _COMPLETE, {"processes": self._world.size, "sha256": _digests(path)})

    def clear(self) -> None:
        """Remove all checkpoints of a finished run."""
        for path in self._all():
            shutil.rmtree(path)
        (self.place / _RUN).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the directory contains other files
            self.place.rmdir()

    def _newest(self) -> str | None:
        self._claim()
        for path in reversed(self._all()):
            facts = _complete(path)
            if facts is None:
                shutil.rmtree(path)
                continue
            processes = facts.get("processes")
            if processes != self._world.size:
                raise TrainingError(
                    f"{path} was written with processes={processes}, and this run has {self._world.size}. TRL resumes "
                    'only with the same number. Start as many, or use backend="sqlquarry" and another output_dir.'
                )
            return path.name
        return None

    def _claim(self) -> None:
        marker = self.place / _RUN
        if found := self._all():
            if not marker.is_file():
                raise TrainingError(f"{found[0]} was written by another program. Use another checkpoint_dir.")
            if differing := differences(read_object(marker, lenient=True), self._identity):
                raise TrainingError(
                    f"{self.place} contains checkpoints of a run that differs in {differing}. Use another "
                    "checkpoint_dir."
                )
        write_json(marker, self._identity)

    def _all(self) -> list[Path]:
        found = [path for path in self.place.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def _complete(checkpoint: Path) -> Mapping[str, object] | None:
    """Return what was recorded when a checkpoint was complete, or None if it was not completed or is damaged."""
    if not (checkpoint / _COMPLETE).is_file():
        return None
    try:
        facts = read_object(checkpoint / _COMPLETE)
    except MetadataError:
        facts = {}
    if facts.get("sha256") == _digests(checkpoint):
        return facts
    logger.warning("The checkpoint %s is damaged. Trying the one before it.", checkpoint)
    return None


def _digests(checkpoint: Path) -> dict[str, str]:
    names = [name for name in files_below(checkpoint) if name != _COMPLETE]
    return dict(zip(names, file_digests(checkpoint, names), strict=True))
