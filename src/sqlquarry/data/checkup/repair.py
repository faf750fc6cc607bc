"""Repair records mechanically, and keep every change so that it can be reviewed and undone."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from sqlquarry.data.checkup.describe import count_of
from sqlquarry.data.checkup.repairs import queries, texts
from sqlquarry.data.checkup.repairs.proof import Proof
from sqlquarry.data.checkup.repairs.rule import RepairRule
from sqlquarry.data.writers import write_file
from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.execution.databases import DatabaseSource, NamedDatabases
from sqlquarry.execution.limits import ExecutionLimits
from sqlquarry.extras import require
from sqlquarry.inputs import is_whole
from sqlquarry.options import known_names, type_problem
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.progress.notebook import html_table
from sqlquarry.records import Record

if TYPE_CHECKING:
    import boto3

_DUPLICATES = RepairRule(
    "duplicates",
    "Records that are equal to an earlier one are removed",
    "All fields but the id are the same. The first record stays.",
    None,
)
# In the order in which they are tried.
RULES: tuple[RepairRule, ...] = (queries.WRAPPED_ANSWER, *texts.RULES, *queries.RULES, _DUPLICATES)
REPAIRS: tuple[str, ...] = tuple(rule.name for rule in RULES)
_MOST_ROUNDS = 10  # Each round repairs what the one before has made possible. Three are enough in practice.
_RecordsT = TypeVar("_RecordsT", bound=Sequence[Record])


@dataclass(frozen=True, slots=True)
class RepairChange:
    """One repair of one record.

    Args:
        position: position of the record before the repair.
        repair: the name of the repair.
        reason: what the repair does.
        before: the record before it.
        after: the record after it, or None if the record was removed.
    """

    position: int
    repair: str
    reason: str
    before: Record
    after: Record | None

    @property
    def id(self) -> str | None:
        """The id of the record."""
        return self.before.id

    @property
    def fields(self) -> Mapping[str, tuple[object, object]]:
        """Value before and after of each field that was changed. Empty if the record was removed."""
        if self.after is None:
            return {}
        pairs = {
            field.name: (getattr(self.before, field.name), getattr(self.after, field.name))
            for field in dataclasses.fields(Record)
        }
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True, slots=True, repr=False)
class Repair(Generic[_RecordsT]):
    """Repaired records, and every change that led to them.

    Args:
        records: the repaired records.
        changes: the changes in the order of the records.
        original: the records before the repair.
    """

    records: _RecordsT
    changes: tuple[RepairChange, ...]
    original: _RecordsT

    @property
    def counts(self) -> dict[str, int]:
        """Number of records that each repair changed or removed, by its name, in the order of `REPAIRS`."""
        found = Counter(name for _, name in {(change.position, change.repair) for change in self.changes})
        return {name: found[name] for name in REPAIRS if found[name]}

    def undo(self) -> _RecordsT:
        """Return the records before the repair."""
        return self.original

    def to_json(self, path: str | Path, *, session: boto3.Session | None = None) -> None:
        """Write all changes for a review, atomically: counts, and position, id, repair and changed fields of each.

        Args:
            path: a file or ``s3://bucket/key`` that ends in ``.json`` or ``.json.gz``.
            session: a boto3 session for S3. None uses the default credentials.

        Raises:
            ConfigError: `path` has another ending.
            DataError: the object cannot be written to S3.
            MissingExtraError: `path` is on S3, but boto3 is not installed.
        """
        write_file(path, (".json", ".json.gz"), self._json(), session)

    def _json(self) -> Iterator[bytes]:
        yield b'{"counts": ' + json.dumps(self.counts).encode() + b', "changes": ['
        for number, change in enumerate(self.changes):
            content: dict[str, object] = {"position": change.position, "id": change.id, "repair": change.repair}
            content["reason"] = change.reason
            if change.after is None:
                content["removed"] = dataclasses.asdict(change.before)
            else:
                content["fields"] = {name: {"before": old, "after": new} for name, (old, new) in change.fields.items()}
            yield (b",\n" if number else b"\n") + json.dumps(content).encode()
        yield b"\n]}\n"

    def __str__(self) -> str:
        changed = len({change.position for change in self.changes if change.after is not None})
        removed = len(self.original) - len(self.records)
        first = f"{count_of(len(self.original), 'record')}: {changed:,} repaired, {removed:,} removed"
        return "\n".join((first, *(f"  {count:>7,} {name}" for name, count in self.counts.items())))

    def __repr__(self) -> str:
        return f"<Repair: {count_of(len(self.changes), 'change')} of {count_of(len(self.original), 'record')}>"

    def _repr_html_(self) -> str:
        """Return an HTML table for notebooks with the number of records that each repair changed."""
        reasons = {rule.name: rule.reason for rule in RULES}
        rows: list[list[str | int]] = [[name, count, reasons[name]] for name, count in self.counts.items()]
        return html_table(
            rows, header=("repair", "records", "what it does"), caption=str(self).partition("\n")[0], numbers=(1,)
        )


def repaired(
    records: Sequence[Record],
    databases: DatabaseSource | Mapping[str, str | Path] | str | Path | None,
    names: Sequence[str],
    limits: ExecutionLimits,
    concurrency: int,
) -> tuple[list[Record], tuple[RepairChange, ...]]:
    """Return the repaired records and the changes. Arguments and errors are those of `Records.repair`."""
    require("judge", "Records.repair")
    source = NamedDatabases(databases) if isinstance(databases, Mapping | str | Path) else databases
    problems = [
        type_problem("databases", source, DatabaseSource | None),
        type_problem("limits", limits, ExecutionLimits),
        None
        if is_whole(concurrency) and concurrency > 0
        else f"concurrency is {concurrency!r}, but must be at least 1",
    ]
    if bad := list(filter(None, problems)):
        raise ConfigError(f"Records.repair: {'; '.join(bad)}")
    wanted = known_names("repairs", names, REPAIRS)
    rules = [rule for rule in RULES if rule.name in wanted]
    changes: list[RepairChange] = []
    kept: list[Record] = []
    first: dict[Record, int] = {}
    with closing(Proof(source, limits)) as proof, ProgressBar("repairing records", len(records), brief=True) as bar:
        steps_of = partial(_steps, rules=[rule for rule in rules if rule.repair], proof=proof)
        all_steps = _mapped(steps_of, records, None if source is None else concurrency)
        for position, (record, steps) in enumerate(zip(records, all_steps, strict=True)):
            bar.advance()
            states = [record, *(after for _, after in steps)]
            for (rule, after), before in zip(steps, states[:-1], strict=True):
                changes.append(RepairChange(position, rule.name, rule.reason, before, after))
            last = states[-1]
            if _DUPLICATES in rules and first.setdefault(dataclasses.replace(last, id=None), position) != position:
                changes.append(RepairChange(position, _DUPLICATES.name, _DUPLICATES.reason, last, None))
            else:
                kept.append(last)
    return kept, tuple(changes)


_Steps = list[tuple[RepairRule, Record]]


def _mapped(
    steps_of: Callable[[Record], _Steps], records: Sequence[Record], concurrency: int | None
) -> Iterator[_Steps]:
    """Yield the steps of each record in order. `concurrency` records are repaired at once if it is not None."""
    if concurrency is None:
        yield from map(steps_of, records)
        return
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="repair")
    try:
        yield from pool.map(steps_of, records)
    finally:
        pool.shutdown(cancel_futures=True)


def _steps(record: Record, *, rules: Sequence[RepairRule], proof: Proof) -> _Steps:
    """Return each repair of a record that is proved, with the record after it, until nothing changes."""
    steps: _Steps = []
    for _ in range(_MOST_ROUNDS):
        before = len(steps)
        for rule in rules:
            after = _attempt(rule, record)
            if after is not None and proof.holds(record, after):
                steps.append((rule, after))
                record = after
        if len(steps) == before:
            break
    return steps


def _attempt(rule: RepairRule, record: Record) -> Record | None:
    try:
        return rule.repair(record) if rule.repair else None
    except RecordError:  # Nothing would be left of a text.
        return None
