"""Recognize the directories of public data sets as they are shipped: Spider, BIRD, KaggleDBQA and WikiSQL.

Facts about their files are from https://yale-lily.github.io/spider, https://bird-bench.github.io,
https://github.com/Chia-Hsuan-Lee/KaggleDBQA and https://github.com/salesforce/WikiSQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from sqlquarry.data.schemas import Schemas
from sqlquarry.data.splits import pick_split
from sqlquarry.errors import ConfigError


class _DataSetLayout(NamedTuple):
    """The files of a data set, as patterns relative to its directory.

    Args:
        name: name of the data set.
        splits: the files with the questions of each split. Of several places, the first that has files is used. A place
            is one or several patterns, separated by a bar.
        tables: lists of tables. Only WikiSQL's are not in Spider's format.
        databases: directories of SQLite files.
    """

    name: str
    splits: Mapping[str, tuple[str, ...]]
    tables: tuple[str, ...]
    databases: tuple[str, ...] = ()


_LAYOUTS = (
    _DataSetLayout(
        "BIRD",
        {
            "train": ("train.json", "train/train.json"),
            "dev": ("dev.json", "dev*/dev.json", "mini_dev_sqlite.json", "*/mini_dev_sqlite.json"),
        },
        ("train_tables.json", "dev_tables.json", "train/train_tables.json", "*/dev_tables.json"),
        tuple(
            f"{start}{part}_databases{end}"
            for part in ("train", "dev")
            for start in ("", "*/")
            for end in ("", f"/{part}_databases")  # Some tools unpack the archive into a directory of its own name.
        ),
    ),
    _DataSetLayout(
        "KaggleDBQA",
        {"train": ("examples/*_fewshot.json",), "test": ("examples/*_test.json",)},
        ("KaggleDBQA_tables.json",),
        ("databases",),
    ),
    _DataSetLayout(
        "Spider",
        {
            "train": ("train_spider.json|train_others.json",),
            "dev": ("dev.json",),
            "test": ("test.json", "test_data/dev.json"),
        },
        ("tables.json", "test_tables.json", "test_data/tables.json"),
        ("database", "test_database"),
    ),
    _DataSetLayout(
        "WikiSQL",
        {name: (f"{name}.jsonl", f"data/{name}.jsonl") for name in ("train", "dev", "test")},
        ("*.tables.jsonl", "data/*.tables.jsonl"),
    ),
)
KNOWN_FOLDERS = ", ".join(layout.name for layout in _LAYOUTS)
_LEVELS = 3  # A file of a data set is at most two directories below the data set's.


def shipped_files(directory: Path, split: str | None) -> list[Path] | None:
    """Return the files with the questions of a split, or None if the directory is not that of a known data set.

    Raises:
        ConfigError: the data set has no such split.
    """
    for layout in _LAYOUTS:
        if not _has_tables(layout, directory):
            continue
        splits = {
            name: files
            for name, places in layout.splits.items()
            if (files := next(filter(None, (_matches(directory, place.split("|")) for place in places)), None))
        }
        if splits:
            return splits[pick_split(split, list(splits), f"{layout.name} in {directory}")]
    return None


def shipped_schemas(path: Path) -> Schemas | None:
    """Return the schemas of the known data set that a directory is, or that a file belongs to, if there is one."""
    directories = [path] if path.is_dir() else path.absolute().parents[:_LEVELS]
    for directory in directories:
        for layout in _LAYOUTS:
            if layout.name != "WikiSQL" and _has_tables(layout, directory):
                return Schemas.shipped(_matches(directory, layout.tables), _matches(directory, layout.databases))
    return None


def refuse_split(split: str | None, source: object) -> None:
    """Refuse a split of a source that has none.

    Raises:
        ConfigError: a split is given.
    """
    if split is not None:
        raise ConfigError(
            f"split is {split!r:.40}, but {source} has no splits. Leave it out. Hub data sets, a DatasetDict and the "
            f"directories of {KNOWN_FOLDERS} have splits."
        )


def _has_tables(layout: _DataSetLayout, directory: Path) -> bool:
    return bool(_matches(directory, (*layout.tables, *layout.databases)))


def _matches(directory: Path, patterns: Iterable[str]) -> list[Path]:
    found = (path for pattern in patterns for path in sorted(directory.glob(pattern)))
    return list(dict.fromkeys(path for path in found if not path.name.startswith(".")))
