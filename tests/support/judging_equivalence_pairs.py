"""Random schemas, rows, queries and rewritings to check the claims of the equivalence grader. See `check`.

Check more pairs than a test can afford by hand: python tests/support/judging_equivalence_pairs.py 20000
"""

import random
import sqlite3
import sys
from collections import Counter
from dataclasses import dataclass, field, replace

from sqlquarry.errors import JudgingError
from sqlquarry.judging.equivalence.grader import equivalence
from sqlquarry.judging.equivalence.made_rows import literals_by_column, made_rows, tables_of
from sqlquarry.results.comparison import results_equal, rows_match
from sqlquarry.results.ordering import is_ordered, tied_places, with_order_keys
from sqlquarry.sql.ddl import read_schema

NUMBERS = (0, 1, 2, 3)
WORDS = ("x", "y", "X", "1", "")
AGGREGATES = ("count(*)", "count({})", "count(DISTINCT {})", "max({})", "min({})", "sum({})")


@dataclass(frozen=True)
class Source:
    table: str
    alias: str
    join: str = ""  # the join with the previous source: ",", JOIN, LEFT JOIN or CROSS JOIN
    on: str = ""
    wrap: str = ""  # "" or derived or cte


@dataclass(frozen=True)
class Select:
    """A query in parts, so that rewritings can change one part."""

    outputs: tuple
    sources: tuple
    where: tuple = ()
    distinct: bool = False
    group: tuple = ()
    having: str = ""
    order: tuple = ()
    limit: str = ""
    other: object = None  # the right side of a set operation
    operator: str = ""
    columns: dict = field(default_factory=dict, compare=False)

    def sql(self):
        ctes, froms = [], ""
        for place, source in enumerate(self.sources):
            text = f"{source.table} AS {source.alias}" if source.alias != source.table else source.table
            if source.wrap == "derived":
                text = f"(SELECT * FROM {source.table}) AS {source.alias}"
            elif source.wrap == "cte":
                ctes.append(f"w{place} AS (SELECT * FROM {source.table})")
                text = f"w{place} AS {source.alias}"
            joined = f" {source.join} " if source.join != "," else ", "
            froms += (joined if place else "") + text + (f" ON {source.on}" if source.on else "")
        parts = [f"WITH {', '.join(ctes)}"] if ctes else []
        parts.append(f"SELECT {'DISTINCT ' if self.distinct else ''}{', '.join(self.outputs)} FROM {froms}")
        for word, content, between in (
            ("WHERE", self.where, " AND "),
            ("GROUP BY", self.group, ", "),
            ("HAVING", (self.having,) * bool(self.having), ""),
        ):
            if content:
                parts.append(f"{word} {between.join(content)}")
        if self.other is not None:
            parts.append(f"{self.operator} {self.other.sql()}")
        if self.order:
            parts.append(f"ORDER BY {', '.join(self.order)}")
        return " ".join(parts + ([f"LIMIT {self.limit}"] if self.limit else []))


def schema(choose):
    """Return random CREATE TABLE text, and the columns of each table and view."""
    tables, text = {}, []
    for table in ("t", "u"):
        key = choose.choice(("INTEGER PRIMARY KEY", "INT PRIMARY KEY", "INTEGER PRIMARY KEY DESC", "INTEGER NOT NULL"))
        kinds = {
            name: choose.choice(
                ("INT", "INTEGER NOT NULL DEFAULT 2", "REAL", "TEXT", "TEXT NOT NULL", "DATE", "", "INT UNIQUE")
            )
            for name in ("a", "b")
        }
        columns = {"id": key, **kinds, "c" if table == "t" else "d": choose.choice(("TEXT", "INT"))}
        if choose.random() < 0.2:
            columns["g"] = "INT AS (id + 1)"
        reference = ", FOREIGN KEY (a) REFERENCES t (id)" if table == "u" and choose.random() < 0.5 else ""
        tables[table] = list(columns)
        text.append(
            f"CREATE TABLE {table} ({', '.join(f'{name} {kind}'.strip() for name, kind in columns.items())}{reference})"
        )
    if choose.random() < 0.15:
        tables["v"] = ["id", "a"]
        text.append("CREATE VIEW v AS SELECT id, a FROM t WHERE a > 0")
    return ";\n".join(text), tables


def database(ddl, tables, choose):
    """Return a database with few distinct values, NULLs and mixed types. Foreign keys are not enforced."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(ddl)
    values = [None, None, *NUMBERS, -1, 4, 7, 1.0, 2.5, *WORDS, "2"]
    for table, columns in tables.items():
        names = [name for name in columns if name != "g"]
        for _ in range(0 if table == "v" else choose.choice((0, 1, 3, 6, 9))):
            row = [choose.choice(values) for _ in names]
            connection.execute(
                f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
                if not (isinstance(row[0], str | float))
                else "SELECT ?" + ", ?" * (len(names) - 1),
                row,
            )
    if choose.random() < 0.3:
        connection.execute("ANALYZE")
    return connection


def query(tables, choose, depth=0):
    sources, columns = [], []
    for place in range(choose.choice((1, 1, 2, 2, 3)) if depth == 0 else 1):
        table = choose.choice(list(tables))
        alias = f"{'mn'[min(depth, 1)]}{place}"
        own = [f"{alias}.{name}" for name in tables[table]]
        join = choose.choice((",", "JOIN", "JOIN", "LEFT JOIN", "CROSS JOIN")) if place else ""
        on = (
            f"{choose.choice(columns)} = {choose.choice((own[0], choose.choice(own)))}"
            if place and join.endswith("N") and "CROSS" not in join
            else ""
        )
        sources.append(
            Source(table, alias, join, on, choose.choice(("", "", "", "derived", "cte")) if depth == 0 else "")
        )
        columns += own
    where = tuple(condition(columns, tables, choose, depth) for _ in range(choose.choice((0, 1, 1, 2))))
    if any(source.join in (",", "CROSS JOIN") for source in sources) and choose.random() < 0.8:
        where += (f"{columns[0]} = {columns[-1]}",)
    shown = columns if choose.random() < 0.5 else columns[: len(tables[sources[0].table])]
    outputs = tuple(choose.choice(shown) for _ in range(choose.choice((1, 1, 2))))
    select = Select(outputs, tuple(sources), where, columns={"all": columns})
    kind = choose.random()
    if kind < 0.2:
        select = replace(select, distinct=True)
    elif kind < 0.4:
        select = replace(
            select,
            outputs=tuple(
                choose.choice(AGGREGATES).format(choose.choice(columns)) for _ in range(choose.choice((1, 2)))
            ),
        )
    elif kind < 0.6:
        having = choose.choice(("", "count(*) > 1", f"max({columns[0]}) <= 2"))
        select = replace(
            select,
            outputs=(outputs[0], choose.choice(AGGREGATES).format(columns[-1])),
            group=(outputs[0],),
            having=having,
        )
    if depth == 0 and choose.random() < 0.15:
        side = replace(query(tables, choose, 1), order=(), limit="")
        count = min(len(select.outputs), len(side.outputs))
        left = replace(select, outputs=select.outputs[:count], having="", order=())
        return replace(
            left,
            other=replace(side, outputs=side.outputs[:count]),
            operator=choose.choice(("UNION", "UNION ALL", "INTERSECT", "EXCEPT")),
        )
    if choose.random() < 0.3:
        select = replace(select, order=(choose.choice(select.outputs) + choose.choice(("", " DESC")),))
    if depth == 0 and choose.random() < 0.2:
        select = replace(select, limit=choose.choice(("1", "2", "3 OFFSET 1")))
    return select


def condition(columns, tables, choose, depth):
    column, number, word = choose.choice(columns), choose.choice(NUMBERS), choose.choice(WORDS)
    found = choose.choice(
        (
            f"{column} {choose.choice(('=', '<>', '<', '<=', '>', '>='))} {number}",
            f"{column} = '{word}'",
            f"{column} <> '{word}'",
            f"{column} BETWEEN {number} AND {number + 1}",
            f"{column} IN ({number}, {choose.choice(NUMBERS)})",
            f"{column} IS NULL",
            f"{column} IS NOT NULL",
            f"{column} NOT IN ({number}, {number + 1})",
            f"({column} = {number} OR {choose.choice(columns)} > {number})",
            f"{column} LIKE '%{word}%'",
            f"NOT {column} > {number}",
            f"{column} = {choose.choice(columns)}",
            "subquery",
            "subquery",
        )
    )
    if found != "subquery" or depth:
        return found if found != "subquery" else f"{column} = {number}"
    inner = query(tables, choose, 1)
    inner = replace(inner, outputs=inner.outputs[:1], order=(), limit="", having="", group=())
    link = f"{inner.sources[0].alias}.id = {column}"
    limited = replace(inner, order=(choose.choice(inner.columns["all"]),), limit="1")
    exists = replace(inner, outputs=("1",), where=(*inner.where, link))
    return choose.choice(
        (
            f"{column} IN ({inner.sql()})",
            f"{column} NOT IN ({inner.sql()})",
            f"EXISTS ({exists.sql()})",
            f"NOT EXISTS ({exists.sql()})",
            f"{column} = ({limited.sql()})",
            f"{column} = ({replace(inner, outputs=(f'max({inner.sources[0].alias}.id)',)).sql()})",
        )
    )


def rewritten(select, choose):  # noqa: PLR0911 - one per rewriting
    """Return the query written in another way, which should mean the same."""
    sources = list(select.sources)
    change = choose.randrange(11)
    if change >= 9:
        return semijoined(select, choose, exists=change == 9)
    if change == 0 and len(select.where) > 1:
        return replace(select, where=select.where[::-1])
    if change == 1 and not any("LEFT" in source.join for source in sources):  # JOIN … ON as comma and WHERE
        on = tuple(source.on for source in sources if source.on)
        plain = [replace(source, join="," if source.join == "JOIN" else source.join, on="") for source in sources]
        return replace(select, sources=tuple(plain), where=(*on, *select.where))
    if change == 2:
        return replace(
            select, sources=tuple(replace(source, wrap=choose.choice(("", "derived", "cte"))) for source in sources)
        )
    if change == 3 and select.distinct and not select.order:
        return replace(select, distinct=False, group=tuple(dict.fromkeys(select.outputs)))
    if change == 4 and not any("LEFT" in source.join for source in sources) and len(sources) == 2:
        first, second = sources
        return replace(
            select, sources=(replace(second, join="", on=""), replace(first, join=second.join, on=second.on))
        )
    if change == 5:
        return replace(select, outputs=select.outputs[::-1])
    if (
        change == 6
        and not select.order
        and not select.limit
        and not select.other
        and len(set(select.outputs)) == len(select.outputs)
    ):
        names = tuple(f"o{place}" for place in range(len(select.outputs)))
        inner = replace(
            select, outputs=tuple(f"{text} AS {name}" for text, name in zip(select.outputs, names, strict=True))
        )
        return Select(names, (Source(f"({inner.sql()})", "z"),), columns=select.columns)
    if change == 7 and "count(*)" in select.outputs:
        return replace(select, outputs=tuple("count(1)" if text == "count(*)" else text for text in select.outputs))
    return replace(select, where=tuple(f"({text})" for text in select.where))


def semijoined(select, choose, exists):
    """Return the query with its last table in a subquery. This is right for DISTINCT or a key only."""
    *first, last = select.sources
    rest = " ".join((*select.outputs, *select.where, *select.group, *select.order, select.having))
    if len(first) != 1 or last.join != "JOIN" or f"{last.alias}." in rest or select.other or select.limit:
        return select
    left, right = last.on.split(" = ")
    found = f"{left} IN (SELECT {right} FROM {last.table} AS {last.alias})"
    if exists:
        found = f"EXISTS (SELECT 1 FROM {last.table} AS {last.alias} WHERE {last.on})"
    elif choose.random() < 0.3:
        found = found.replace("SELECT", "SELECT DISTINCT")
    distinct = select.distinct or choose.random() < 0.2
    return replace(select, sources=tuple(first), where=(found, *select.where), distinct=distinct)


def texts(sql, choose):
    """Return the text with some parts replaced by other spellings that mean the same."""
    for old, new in (
        (" JOIN ", " INNER JOIN "),
        ("m0.", "k."),
        (" AS m0", " AS k"),
        (" <> ", " != "),
        ("SELECT", "select"),
        ("IS NOT NULL", "NOTNULL"),
        ("count(*)", "COUNT ( * )"),
        (" = 1", " == 1"),
        ("BETWEEN 1 AND 2", "<= 2"),
        (" > 1", " >= 2"),
    ):
        if choose.random() < 0.15:
            sql = sql.replace("LEFT JOIN", "LEFT_JOIN").replace("CROSS JOIN", "CROSS_JOIN") if old == " JOIN " else sql
            sql = sql.replace(old, new).replace("_JOIN", " JOIN")
    return sql


def mutated(select, choose):  # noqa: PLR0911 - one per mutation
    """Return a changed query, which often means something else."""
    columns = select.columns["all"]
    change = choose.randrange(9)
    if change == 0 and select.where:
        return replace(select, where=select.where[1:])
    if change == 1:
        return replace(select, distinct=not select.distinct)
    if change == 2:
        return replace(select, outputs=(choose.choice(columns), *select.outputs[1:]))
    if change == 3 and len(select.sources) > 1:
        last = select.sources[-1]
        join = (
            "LEFT JOIN"
            if last.join == "JOIN"
            else "JOIN"
            if last.join == "LEFT JOIN"
            else choose.choice((",", "CROSS JOIN"))
        )
        return replace(select, sources=(*select.sources[:-1], replace(last, join=join)))
    if change == 4 and select.order:
        return replace(select, order=(select.order[0] + " DESC",) if "DESC" not in select.order[0] else ())
    if change == 5 and "count(*)" in select.outputs:
        return replace(
            select, outputs=tuple(f"count({columns[0]})" if text == "count(*)" else text for text in select.outputs)
        )
    if change == 6 and select.where:
        return replace(select, where=(f"NOT ({select.where[0]})", *select.where[1:]))
    if change == 7 and select.where:
        pairs = (
            (" > ", " >= "),
            (" < ", " <= "),
            ("= 1", "= 2"),
            ("'x'", "'X'"),
            ("IS NOT NULL", "IS NULL"),
            (" AND ", " OR "),
        )
        text = select.where[0]
        for old, new in choose.sample(pairs, 3):
            text = text.replace(old, new)
        return replace(select, where=(text, *select.where[1:]))
    return replace(select, where=(*select.where, f"{choose.choice(columns)} <= {choose.choice(NUMBERS)}"))


def same(connection, gold, predicted):
    """Return whether both return the same rows by the rules of ExecutionGrader, or None if the gold does not run."""
    try:
        rows = connection.execute(gold).fetchall()
    except sqlite3.Error:
        return None
    try:
        cursor = connection.execute(predicted)
        others = cursor.fetchall()
        width = len(cursor.description)
    except sqlite3.Error:
        return False
    if width != len(connection.execute(f"SELECT * FROM ({gold}) LIMIT 0").description):
        return False
    keyed = with_order_keys(gold) if is_ordered(gold) else None
    try:
        if keyed is None:
            return results_equal(rows, others, ordered=is_ordered(gold))
        places = tied_places(connection.execute(keyed.sql).fetchall(), keyed.keys)
        return rows_match(rows, others, places) if len(places) == len(rows) else True
    except JudgingError:
        return True


def plausible(ddl, gold, predicted, seed):
    """Return a database on which the grader searches for a difference, without using its code for running queries."""
    known = read_schema(ddl, "sqlite")
    tables = tables_of(f"{gold} {predicted}", known)
    rows = made_rows(
        tables, known, literals_by_column(gold, predicted), random.Random(seed), ("one", "each", "any", "any")[seed % 4]
    )
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(ddl)
    for table, content in rows.items():
        names = list(known.tables[table].stored)
        insert = f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        connection.executemany(insert, content)
    return connection


def check(seed, databases=12, most=300):
    """Generate a pair and check the grader's answer on databases. Return the answer, and the pair if it is refuted."""
    choose = random.Random(seed)
    ddl, tables = schema(choose)
    select = query(tables, choose)
    other = select
    for _ in range(choose.choice((1, 1, 2, 3))):
        other = rewritten(other, choose)
    if choose.random() < 0.4:
        other = mutated(other, choose)
    gold, predicted = select.sql(), texts(other.sql(), choose)
    answer = equivalence(gold, predicted, ddl).answer
    if answer == "unknown":
        return answer, None
    differs = False
    for place in range(databases if answer == "equivalent" else most):
        made = place % 4 == 3
        connection = plausible(ddl, gold, predicted, place // 4) if made else database(ddl, tables, choose)
        differs = same(connection, gold, predicted) is False
        connection.close()
        if differs:
            break
    refuted = differs if answer == "equivalent" else not differs
    return answer, (ddl, gold, predicted) if refuted else None


if __name__ == "__main__":
    counts, refuted = Counter(), Counter()
    start = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for seed in range(start, start + int(sys.argv[1])):
        answer, pair = check(seed)
        counts[answer] += 1
        if pair:
            refuted[answer] += 1
            print(seed, answer, *pair, sep="\n  ")
    print(dict(counts), "refuted:", dict(refuted))
