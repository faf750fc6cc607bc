"""Random gold queries on random tables. A right answer is never called wrong, and a wrong answer never correct.

The truth is computed differently than in the grader. The generator knows the meaning of each key of ORDER BY, and so
which rows tie, and all orders of the columns are tried.
"""

import os
import random
import sqlite3
from collections import Counter
from itertools import groupby

from sqlquarry.judging import ExecutionGrader
from sqlquarry.records import Record

RUNS = int(os.environ.get("SQLQUARRY_FUZZ_RUNS", "1500"))
SEED = int(os.environ.get("SQLQUARRY_FUZZ_SEED", "1"))
PER_DATABASE, PER_GOLD = 50, 4
# Each expression over the table `t`, with the collation that SQLite gives it.
PLAIN = [
    ("id", ""), ("cat", "NOCASE"), ("t.cat", "NOCASE"), ("name", ""), ("qty", ""), ("price", ""), ("day", ""),
    ("upper(name)", ""), ("qty * 2", ""), ("-qty", ""), ("price * qty", ""), ("substr(day, 1, 4)", ""),
    ("CAST(day AS DATE)", ""), ("CASE WHEN qty > 1 THEN 'hi' ELSE 'lo' END", ""), ("coalesce(qty, 0)", ""),
    ("(SELECT max(score) FROM u WHERE u.cat = t.cat)", ""), ("t.[last]", ""), ('"last"', ""), ("t.last", ""),
]  # fmt: skip
GROUPED = [
    ("cat", "NOCASE"), ("count(*)", ""), ("sum(qty)", ""), ("min(name)", ""), ("max(price)", ""),
    ("count(DISTINCT name)", ""), ("sum(qty) / count(*)", ""), ("round(avg(price), 2)", ""), ("upper(cat)", ""),
]  # fmt: skip
NAMES = ["x", "y", "name", "qty", "day", "total", "Last"]


def database(rng, path):
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, cat TEXT COLLATE NOCASE, name TEXT, qty INTEGER, price REAL, "
        "day TEXT, last TEXT)"
    )
    connection.execute("CREATE TABLE u (cat TEXT, score REAL)")
    days = ["2021-03-01", "2021/03/01", "2020-12-31", "2022-01-05"]
    for i in range(rng.randint(0, 9)):
        row = (
            i, rng.choice(["a", "A", "b", "B", None]), rng.choice(["ann", "Ann", "ann ", "bob", "Ünal", None]),
            rng.choice([0, 1, 2, 3, None, 10**15]), rng.choice([0.1, 0.3, 2.5, 3.0, 1e6, None]), rng.choice(days),
            rng.choice(["p", "q"]),
        )  # fmt: skip
        connection.execute("INSERT INTO t VALUES (?,?,?,?,?,?,?)", row)
    for _ in range(rng.randint(0, 4)):
        connection.execute("INSERT INTO u VALUES (?, ?)", (rng.choice("aAb"), rng.choice([0.1, 0.25, 7.0])))
    connection.commit()
    return connection


def tie(expression, collation):
    """Return an expression that is equal for values that tie."""
    return {"NOCASE": f"lower({expression})", "RTRIM": f"rtrim({expression})"}.get(collation, f"({expression})")


class Gold:
    """A query, all of its rows in groups that tie, and the rows that its LIMIT keeps."""

    def __init__(self, rng, connection):
        shape = rng.choice(["plain", "plain", "grouped", "distinct", "union", "cte", "window", "star"])
        pool = GROUPED if shape == "grouped" else PLAIN
        columns = [rng.choice(pool) for _ in range(rng.randint(1, 5))]
        aliases = [rng.choice(NAMES) if rng.random() < 0.5 else "" for _ in columns]
        if len({alias.lower() for alias in aliases if alias}) < len([alias for alias in aliases if alias]):
            aliases = [""] * len(columns)  # SQLite uses the first of two columns with the same name, the standard none
        if shape == "window":
            columns[-1], aliases[-1] = (
                (rng.choice(["rank() OVER (ORDER BY qty)", "count(*) OVER (PARTITION BY cat)"]), ""),
                "r",
            )
        if shape == "star":
            columns = [
                (name, "NOCASE" if name == "cat" else "")
                for name in ("id", "cat", "name", "qty", "price", "day", "last")
            ]
            aliases = [""] * 7
        texts = [
            f"{text} {rng.choice(['AS ', ''])}{alias}" if alias else text
            for (text, _), alias in zip(columns, aliases, strict=True)
        ]
        source = rng.choice(
            ["t", "t", "t WHERE qty > 0", "t LEFT JOIN (SELECT DISTINCT lower(cat) AS k FROM u) ON k = t.cat"]
        )
        if shape == "star":
            texts, source = [rng.choice(["*", "t.*"])], "t"
        core = f"SELECT {'DISTINCT ' if shape == 'distinct' else ''}{', '.join(texts)} FROM {source}"
        if shape == "grouped":
            core += f" GROUP BY {rng.choice(['cat', 'qty', 'cat, name'])}"
        if shape == "union":
            other = ", ".join(text for text, _ in columns)
            core += f" {rng.choice(['UNION', 'UNION ALL', 'EXCEPT'])} SELECT {other} FROM t WHERE qty < 2"
        if shape == "cte":
            core = core.replace("SELECT", "WITH w AS (SELECT 1 ORDER BY 1) SELECT", 1)
        only_columns = shape in ("distinct", "union", "window", "star")
        keys = [self.key(rng, columns, aliases, pool, only_columns) for _ in range(rng.choice([0, 1, 1, 2, 3]))]
        order = (
            rng.choice([" ORDER BY ", " order  by ", " ORDER\nBY "]) + ", ".join(text for text, _, _ in keys)
            if keys
            else ""
        )
        limit, offset, cut = None, 0, ""
        if rng.random() < 0.5:
            limit, offset = rng.randint(0, 5), rng.choice([0, 0, 1, 2])
            cut = rng.choice(
                [f" LIMIT {offset}, {limit}", f" LIMIT {limit} OFFSET {offset}"] if offset else [f" LIMIT {limit}"]
            )
        self.sql = core + order + cut + rng.choice(["", ";", " -- done"])
        self.rows = connection.execute(self.sql).fetchall()
        self.names = [column[0] for column in connection.execute(self.sql).description]
        if only_columns:
            whole = connection.execute(core + order).fetchall()
            tied = [tuple(folded(row[place], collation) for _, place, collation in keys) for row in whole]
        else:
            hidden = "".join(f", {tie(expression, collation)}" for _, expression, collation in keys)
            whole = connection.execute(core.replace(f" FROM {source}", f"{hidden} FROM {source}", 1) + order).fetchall()
            tied = [row[len(columns) :] for row in whole]
            whole = [row[: len(columns)] for row in whole]
        if not keys and limit is not None:
            tied = [()] * len(whole)
        found = [list(rows) for _, rows in groupby(zip(tied, whole, strict=True), key=lambda pair: pair[0])]
        self.groups = [[row for _, row in rows] for rows in found]
        places = [i for i, group in enumerate(self.groups) for _ in group]
        self.places = places[offset:] if limit is None else places[offset : offset + limit]
        assert self.accepts(self.rows, [range(len(columns))]), (self.sql, self.rows, self.groups)

    def key(self, rng, columns, aliases, pool, only_columns):
        """Return text, meaning and collation of a key. The meaning is a position if only columns may be keys."""
        place = rng.randrange(len(columns))
        (expression, collation), alias = columns[place], aliases[place]
        kind = rng.choice(["number", "number", "alias", "expression", "other"])
        if kind == "alias" and alias:
            text = rng.choice([alias, alias.upper(), f'"{alias}"', f"({alias})"])
        elif (
            kind in ("alias", "expression")
            and not only_columns
            and expression.casefold() not in map(str.casefold, aliases)
        ):
            text = expression
        elif kind == "other" and not only_columns:
            expression, collation = rng.choice(pool)
            if expression.casefold().strip('"') in map(str.casefold, aliases):
                expression, collation = f"+{expression}", ""
            text = expression
        else:
            text = rng.choice([str(place + 1), str(place + 1), f"({place + 1})"])
        if rng.random() < 0.2:
            collation = rng.choice(["NOCASE", "RTRIM", "BINARY"])
            text += f" COLLATE {collation}"
        text += rng.choice(["", " ASC", " DESC", " desc", " NULLS LAST", " DESC NULLS FIRST"])
        return text, place if only_columns else expression, collation

    def accepts(self, rows, orders):
        """Return whether these rows are a right answer, by trying every order of the columns."""
        if len(rows) != len(self.places):
            return False
        for order in orders:
            taken = {}
            for place, row in zip(self.places, rows, strict=True):
                taken.setdefault(place, []).append(tuple(row[i] for i in order))
            if all(Counter(some) <= Counter(self.groups[place]) for place, some in taken.items()):
                return True
        return False


def folded(value, collation):
    if not isinstance(value, str):
        return value
    if collation == "NOCASE":
        return "".join(c.lower() if c.isascii() else c for c in value)
    return value.rstrip(" ") if collation == "RTRIM" else value


def answer(rng, gold):
    """Return rows and names of a prediction: those of the gold with a few changes, some of which make it wrong."""
    rows, names = list(gold.rows), list(gold.names)
    for _ in range(rng.choice([0, 1, 1, 2])):
        change = rng.choice(
            ["ties", "choice", "choice", "swap", "other", "cell", "duplicate", "columns", "value columns"]
        )
        if change == "ties":
            shuffled = sorted(zip(gold.places, [rng.random() for _ in rows], rows, strict=False))
            rows = [row for _, _, row in shuffled] if len(rows) == len(gold.places) else rows
        elif change == "choice":
            left = [rng.sample(group, len(group)) for group in gold.groups]
            rows = [left[place].pop() for place in gold.places]
        elif change == "swap" and len(rows) > 1:
            i, j = rng.sample(range(len(rows)), 2)
            rows[i], rows[j] = rows[j], rows[i]
        elif change == "other" and rows:
            rows[rng.randrange(len(rows))] = rng.choice(rng.choice(gold.groups))
        elif change == "duplicate" and rows:
            rows[rng.randrange(len(rows))] = rng.choice(rows)
        elif change == "cell" and rows:
            i, j = rng.randrange(len(rows)), rng.randrange(len(names))
            cell = rows[i][j]
            other = cell * (1 + 1e-6) if isinstance(cell, float) else rng.choice([0, "ann", None, 7])
            rows[i] = (*rows[i][:j], other, *rows[i][j + 1 :])
        elif change == "columns":
            order = rng.sample(range(len(names)), len(names))
            rows, names = [tuple(row[i] for i in order) for row in rows], [names[i] for i in order]
            if rng.random() < 0.5:
                names = [f"c{i}" for i in range(len(names))]
        elif change == "value columns":
            order = rng.sample(range(len(names)), len(names))
            rows = [tuple(row[i] for i in order) for row in rows]
    return rows, names


def orders_of(gold, rows, names):
    """Return the orders of the columns that count as the same result and have all values in some gold row."""
    mine, theirs = [[name.casefold() for name in some] for some in (gold.names, names)]
    if sorted(mine) == sorted(theirs) and len(set(mine)) == len(mine):
        return [[theirs.index(name) for name in mine]]
    whole = [set(column) for column in zip(*(row for group in gold.groups for row in group), strict=True)]
    orders = [[]]
    for found in whole:
        orders = [
            [*order, i] for order in orders for i in range(len(names))
            if i not in order and all(row[i] in found for row in rows)
        ]  # fmt: skip
    return orders if whole else [range(len(names))]


def literal(rng, value):
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, float) and not value.is_integer() and rng.random() < 0.3:
        return repr(value * (1 + 1e-14))  # a sum in a different order
    return repr(value)


def as_sql(rng, rows, names):
    columns = ", ".join(f'column{i} AS "{name}"' for i, name in enumerate(names, start=1))
    if not rows:
        return f"SELECT {columns} FROM (VALUES ({', '.join(['1'] * len(names))})) WHERE 0"
    values = ", ".join("(" + ", ".join(literal(rng, cell) for cell in row) + ")" for row in rows)
    return f"SELECT {columns} FROM (VALUES {values})"


def test_verdicts_on_random_queries_are_those_of_trying_everything(tmp_path):
    counts, faults = Counter(), []
    for number in range(RUNS // PER_GOLD // PER_DATABASE + 1):
        rng = random.Random(f"{SEED}/{number}")
        path = tmp_path / f"{number}.sqlite"
        connection = database(rng, path)
        grader = ExecutionGrader({"db": path})
        for _ in range(min(PER_DATABASE, RUNS // PER_GOLD)):
            gold = Gold(rng, connection)
            for _ in range(PER_GOLD):
                rows, names = answer(rng, gold)
                right = gold.accepts(rows, orders_of(gold, rows, names)) or not (rows or gold.rows)
                predicted = as_sql(rng, rows, names)
                judged = grader.grade(Record("q", "t", gold.sql, "db"), predicted)
                counts["right" if right else "wrong", judged.verdict] += 1
                if judged.verdict == ("wrong" if right else "correct"):
                    faults.append((right, gold.sql, predicted, judged.reason, gold.rows))
        connection.close()
    print(dict(counts), *faults[:12], sep="\n")
    assert not faults
    unjudged = sum(count for (_, verdict), count in counts.items() if verdict == "unjudged")
    assert unjudged <= 0.05 * sum(counts.values())
