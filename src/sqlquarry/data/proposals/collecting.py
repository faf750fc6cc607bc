"""Collect proposals until there are enough, with a balance of hardness and an account of their coverage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlquarry.data.database import Database
from sqlquarry.data.proposals.asked import AskedDatabase
from sqlquarry.data.proposals.checking import Checker, RejectedError, columns_in
from sqlquarry.data.proposals.report import ProposalReport, Proposals
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.records import Record
from sqlquarry.sql.hardness import hardness

LEVELS = ("easy", "medium", "hard", "extra")


class Collector:
    """The proposals that were kept, and the numbers of those that were rejected.

    Args:
        database: the database.
        n: the number of records that are wanted.
        schema: the text of the schema in the records.
        bar: shows the progress.
    """

    def __init__(self, database: Database, n: int, schema: str, bar: ProgressBar) -> None:
        self.n = n
        self.records: list[Record] = []
        self.by_level: Counter[str] = Counter()
        self.by_template: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self._database = database
        self._schema = schema
        self._bar = bar
        self._checker = Checker(database, n)
        self._columns = {
            name.lower(): {column.name.lower() for column in table.columns} for name, table in database.tables.items()
        }
        self._used: set[str] = set()

    def offer(self, question: str, sql: str, template: str, *, weaker: Sequence[str] = ()) -> bool:
        """Keep a proposal if it is worth it. Return whether it was kept."""
        try:
            tree = self._checker.check(question, sql, weaker)
        except RejectedError as reason:
            self.rejected[str(reason)] += 1
            return False
        name = f"{self._database.name}-{len(self.records) + 1:05d}"
        self.records.append(self._database.record(question, sql, schema=self._schema, id=name))
        self.by_level[hardness(tree)] += 1
        self.by_template[template] += 1
        tables, columns = columns_in(tree, self._columns)
        self._used |= tables | {f"{table}.{column}" for table, column in columns}
        self._bar.advance(1)
        return True

    def accepts(self, sql: str) -> bool:
        """Return whether a query is worth a question. If it is not, count why."""
        try:
            self._checker.inspect(sql)
        except RejectedError as reason:
            self.rejected[str(reason)] += 1
            return False
        return True

    def proposals(self, asked: AskedDatabase) -> Proposals:
        """Return the records with their report."""
        tables = [table.name for table in asked.tables]
        columns = [
            f"{table.name}.{column.name}" for table in asked.tables for column in table.columns if not column.is_empty
        ]
        unused = tuple(name for name in (*tables, *columns) if name.lower() not in self._used)
        missed = len([name for name in tables if name in unused])
        report = ProposalReport(
            asked=self.n,
            made=len(self.records),
            tables=1 - missed / max(len(tables), 1),
            columns=1 - (len(unused) - missed) / max(len(columns), 1),
            unused=unused,
            by_hardness={level: self.by_level[level] for level in LEVELS},
            by_template=dict(sorted(self.by_template.items())),
            rejected=dict(sorted(self.rejected.items())),
            notes=asked.notes,
        )
        return Proposals(self.records, report)
