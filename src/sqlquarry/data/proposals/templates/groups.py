"""Question templates on one table: order, limits, groups and HAVING."""

from __future__ import annotations

from sqlquarry.data.proposals.chooser import COARSE, Chooser, Draft, Template


def _first_row(c: Chooser) -> Draft:
    t = c.table()
    column = c.column(t, "number", "date", "year")
    end, word = c.direction(column)
    shown = c.target(t, columns=c.dice.pick([1, 1, 2]), but=column)
    adjective = column.superlatives and column.superlatives[0 if end else 1]
    ordered = f"FROM {t.sql} ORDER BY {column.sql}{end} LIMIT"
    return Draft(
        f"SELECT {shown.sql} {ordered} 1",
        (
            f"What is the {shown.noun} of the {t.one} with the {word} {column.noun}?",
            f"Show the {shown.noun} of the {adjective} {t.one}."
            if adjective
            else f"Show the {shown.noun} of the {t.one} that has the {word} {column.noun}.",
            f"Find the {t.one} with the {word} {column.noun} and give the {shown.noun}.",
        ),
    )


def _first_rows(c: Chooser) -> Draft:
    t = c.table()
    column = c.column(t, "number", "date", "year")
    end, word = c.direction(column)
    shown = c.target(t, columns=c.dice.pick([1, 2]), but=column)
    size = c.dice.pick([2, 3, 3, 4, 5])
    ordered = f"FROM {t.sql} ORDER BY {column.sql}{end} LIMIT"
    return Draft(
        f"SELECT {shown.sql} {ordered} {size}",
        (
            f"List the {shown.plural} of the {size} {t.many} with the {word} {column.noun}.",
            f"What are the {shown.plural} of the {size} {t.many} with the {word} {column.plural}?",
            f"Show the {shown.plural} of the {size} {t.many} that have the {word} {column.noun}, {word} first.",
        ),
    )


def _sorted_rows(c: Chooser) -> Draft:
    t = c.table()
    column = c.column(t, "number", "date", "year")
    shown = c.target(t, columns=1)
    largest, smallest = column.extremes
    end, order, words = c.dice.pick(
        [
            (" DESC", "descending", f"from the {largest} to the {smallest}"),
            ("", "ascending", f"from the {smallest} to the {largest}"),
        ]
    )
    ordered = f"FROM {t.sql} ORDER BY {column.sql}{end}"
    return Draft(
        f"SELECT {shown.sql}, {column.sql} {ordered}",
        (
            f"List the {shown.plural} and {column.plural} of all {t.many} in {order} order of {column.noun}.",
            f"Show the {shown.noun} and {column.noun} of every {t.one}, {words} {column.noun}.",
            f"Sort the {t.many} {words} {column.noun} and give the {shown.noun} and {column.noun} of each.",
        ),
    )


def _first_row_filtered(c: Chooser) -> Draft:
    t = c.table()
    column = c.column(t, "number", "date", "year")
    test = c.condition(t, *COARSE, but=column)
    end, word = c.direction(column)
    shown = c.target(t, columns=1)
    order = f"ORDER BY {column.sql}{end} LIMIT"
    return Draft(
        f"SELECT {shown.sql} FROM {t.sql} WHERE {test.sql} {order} 1",
        (
            f"Among the {t.many} {test.short}, what is the {shown.noun} of the one with the {word} {column.noun}?",
            f"Of all {t.many} {test.whose}, show the {shown.noun} of the one with the {word} {column.noun}.",
        ),
        (f"SELECT {shown.sql} FROM {t.sql} {order} 1",),
    )


def _group_count(c: Chooser) -> Draft:
    t = c.table()
    column = c.group(t)
    return Draft(
        f"SELECT {column.sql}, COUNT(*) FROM {t.sql} GROUP BY {column.sql}",
        (
            f"How many {t.many} are there for each {column.noun}?",
            f"Show each {column.noun} and its number of {t.many}.",
            f"For each {column.noun}, count the {t.many}.",
            f"What are the {column.plural} of the {t.many}, and how many {t.many} have each of them?",
        ),
    )


def _group_aggregate(c: Chooser) -> Draft:
    t = c.table("number")
    number = c.column(t, "number")
    column = c.group(t, but=number)
    function, word, other = c.aggregate(number)
    return Draft(
        f"SELECT {column.sql}, {function}({number.sql}) FROM {t.sql} GROUP BY {column.sql}",
        (
            f"What is the {word} {number.noun} of the {t.many} for each {column.noun}?",
            f"Show each {column.noun} and the {word} {number.noun} of its {t.many}.",
            f"For each {column.noun}, find the {other} {number.noun} of the {t.many}.",
        ),
    )


def _group_filtered(c: Chooser) -> Draft:
    t = c.table()
    column = c.group(t)
    test = c.condition(t, but=column)
    everything = f"SELECT {column.sql}, COUNT(*) FROM {t.sql}"
    return Draft(
        f"{everything} WHERE {test.sql} GROUP BY {column.sql}",
        (
            f"How many {t.many} {test.short} are there for each {column.noun}?",
            f"For each {column.noun}, count the {t.many} {test.whose}.",
        ),
        (f"{everything} GROUP BY {column.sql}",),
    )


def _group_two(c: Chooser) -> Draft:
    t = c.table("number")
    number = c.column(t, "number")
    column = c.group(t, but=number)
    function, word, _ = c.aggregate(number)
    grouped = f"SELECT {column.sql}, COUNT(*), {function}({number.sql}) FROM {t.sql} GROUP BY {column.sql}"
    if c.dice.chance(0.5):
        return Draft(
            f"{grouped} ORDER BY COUNT(*) DESC",
            (
                (
                    f"For each {column.noun}, show the number of {t.many} and their {word} {number.noun}, "
                    "with the largest number first."
                ),
            ),
        )
    return Draft(
        grouped,
        (
            f"For each {column.noun}, how many {t.many} are there and what is their {word} {number.noun}?",
            f"Show each {column.noun} with the number of {t.many} and their {word} {number.noun}.",
        ),
    )


def _largest_group(c: Chooser) -> Draft:
    t = c.table()
    column = c.group(t)
    end, word = c.dice.pick([(" DESC", "most"), ("", "fewest")])
    ordered = f"FROM {t.sql} GROUP BY {column.sql} ORDER BY COUNT(*){end} LIMIT"
    return Draft(
        f"SELECT {column.sql} {ordered} 1",
        (
            f"Which {column.noun} has the {word} {t.many}?",
            f"Show the {column.noun} with the {word} {t.many}.",
            f"What is the {column.noun} that the {word} {t.many} have?",
            f"Find the {'most' if end else 'least'} common {column.noun} of the {t.many}.",
        ),
    )


def _large_groups(c: Chooser) -> Draft:
    t = c.table()
    column = c.group(t)
    sign, word, least = c.dice.pick([(">", "more than", 1), ("<", "fewer than", 3), (">=", "at least", 2)])
    size = least + c.dice.below(max(1, len(column.values) // max(1, len(column.distinct))))
    groups = f"FROM {t.sql} GROUP BY {column.sql}"
    return Draft(
        f"SELECT {column.sql} {groups} HAVING COUNT(*) {sign} {size}",
        (
            f"Which {column.plural} have {word} {size} {t.many if size > 1 else t.one}?",
            f"List the {column.plural} with {word} {size} {t.many if size > 1 else t.one}.",
            f"Show every {column.noun} that has {word} {size} {t.many if size > 1 else t.one}.",
        ),
        (f"SELECT {column.sql} {groups}",),
    )


def _groups_by_average(c: Chooser) -> Draft:
    t = c.table("number")
    test = c.condition(t, "number")
    number = test.column
    column = c.group(t, but=number)
    sign, value = test.test.removeprefix("@ ").split()
    word = {">": "above", "<": "below", ">=": "of at least", "<=": "of at most"}[sign]
    groups = f"SELECT {column.sql} FROM {t.sql} GROUP BY {column.sql}"
    return Draft(
        f"{groups} HAVING AVG({number.sql}) {sign} {value}",
        (
            f"Which {column.plural} have {t.many} with an average {number.noun} {word} {value}?",
            f"List the {column.plural} whose {t.many} have an average {number.noun} {word} {value}.",
            (
                f"Show every {column.noun} for which the mean {number.noun} of the {t.many} is "
                f"{word.removeprefix('of ')} {value}."
            ),
        ),
        (groups,),
    )


def _count_per_year(c: Chooser) -> Draft:
    t = c.table("date")
    column = c.column(t, "date")
    is_sqlite = c.asked.dialect == "sqlite"
    year = f"strftime('%Y', {column.sql})" if is_sqlite else f"EXTRACT(YEAR FROM {column.sql})"
    return Draft(
        f"SELECT {year}, COUNT(*) FROM {t.sql} GROUP BY {year}",
        (
            f"How many {t.many} are there for each year of the {column.noun}?",
            f"Count the {t.many} by the year of their {column.noun}.",
        ),
    )


TEMPLATES = (
    Template("first", _first_row),
    Template("first-few", _first_rows),
    Template("sort", _sorted_rows),
    Template("first-filtered", _first_row_filtered),
    Template("group-count", _group_count),
    Template("group-aggregate", _group_aggregate),
    Template("group-filtered", _group_filtered),
    Template("group-two", _group_two),
    Template("largest-group", _largest_group),
    Template("having-count", _large_groups),
    Template("having-average", _groups_by_average),
    Template("count-per-year", _count_per_year),
)
