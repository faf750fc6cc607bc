"""Question patterns: nested queries, set operations, NULLs, dates and ranges."""

from tools.sample_data.chooser import Chooser, Draft, Pattern
from tools.sample_data.conditions import with_article


def _beyond_average(c: Chooser) -> Draft:
    t = c.table("number")
    number = c.column(t, "number")
    sign, short, long = c.dice.pick([(">", "above", "greater than"), ("<", "below", "less than")])
    shown, noun = c.target(t, columns=1), number.noun
    return Draft(
        f"SELECT {shown.sql} FROM {t.name} WHERE {number.name} {sign} (SELECT AVG({number.name}) FROM {t.name})",
        (
            f"List the {shown.plural} of the {t.many} with {with_article(noun)} {short} the average.",
            f"What are the {shown.plural} of {t.many} whose {noun} is {long} the average {noun} of all {t.many}?",
            f"Show the {shown.noun} of every {t.one} with {with_article(noun)} {short} the average {noun}.",
        ),
    )


def _without_children(c: Chooser) -> Draft:
    link = c.link(parent="label")
    child, parent = link.child, link.parent
    label = parent.label
    return Draft(
        f"SELECT {label.name} FROM {parent.name} WHERE {link.key} NOT IN (SELECT {link.key} FROM {child.name})",
        (
            f"List the {label.plural} of the {parent.many} without any {child.many}.",
            f"What are the {label.plural} of {parent.many} that have no {child.one}?",
            f"Show the {label.noun} of every {parent.one} that has no {child.many}.",
        ),
    )


def _shared_values(c: Chooser) -> Draft:
    t = c.table("category")
    column = c.column(t, "category")
    first = c.condition(t, "number", "date", "category", but=column)
    second = c.condition(t, "number", "date", "category", but=column)
    left = f"SELECT {column.name} FROM {t.name} WHERE {first.sql}"
    right = f"SELECT {column.name} FROM {t.name} WHERE {second.sql}"
    return Draft(
        f"{left} INTERSECT {right}",
        (
            f"Which {column.plural} have both {t.many} {first.short} and {t.many} {second.short}?",
            f"List the {column.plural} that occur among {t.many} {first.whose} and also among {t.many} {second.whose}.",
        ),
        (left.replace("SELECT", "SELECT DISTINCT"), right.replace("SELECT", "SELECT DISTINCT")),
    )


def _missing_values(c: Chooser) -> Draft:
    t = c.table("category")
    column = c.column(t, "category")
    first = c.condition(t, "number", "date", "category", but=column)
    second = c.condition(t, "number", "date", "category", but=column)
    left = f"SELECT {column.name} FROM {t.name} WHERE {first.sql}"
    return Draft(
        f"{left} EXCEPT SELECT {column.name} FROM {t.name} WHERE {second.sql}",
        (
            f"Which {column.plural} have {t.many} {first.short} but no {t.many} {second.short}?",
            f"List the {column.plural} that occur among {t.many} {first.whose} but not among {t.many} {second.whose}.",
        ),
        (left.replace("SELECT", "SELECT DISTINCT"),),
    )


def _list_gaps(c: Chooser) -> Draft:
    t = c.table("optional")
    test = c.gap(t, missing=bool(c.dice.below(3)))
    shown = c.target(t, columns=c.dice.pick([1, 2]))
    everything = f"SELECT {shown.sql} FROM {t.name}"
    return Draft(
        f"{everything} WHERE {test.sql}",
        (
            f"List the {shown.plural} of the {t.many} {test.short}.",
            f"What are the {shown.plural} of {t.many} {test.whose}?",
            f"Show the {shown.noun} of every {t.one} {test.short}.",
        ),
        (everything,),
    )


def _count_gaps(c: Chooser) -> Draft:
    t = c.table("optional")
    test = c.gap(t, missing=bool(c.dice.below(2)))
    everything = f"SELECT COUNT(*) FROM {t.name}"
    return Draft(
        f"{everything} WHERE {test.sql}",
        (
            f"How many {t.many} {test.short} are there?",
            f"Count the {t.many} {test.whose}.",
            f"What is the number of {t.many} {test.short}?",
        ),
        (everything,),
    )


def _filter_by_date(c: Chooser) -> Draft:
    t = c.table("date")
    test = c.dice.pick([c.condition(t, "date"), c.year(t)])
    shown = c.target(t, columns=1)
    everything = f"SELECT {shown.sql} FROM {t.name}"
    return Draft(
        f"{everything} WHERE {test.sql}",
        (
            f"List the {shown.plural} of the {t.many} {test.short}.",
            f"What are the {shown.plural} of {t.many} {test.whose}?",
            f"Show the {shown.noun} of every {t.one} {test.short}.",
        ),
        (everything,),
    )


def _count_in_year(c: Chooser) -> Draft:
    t = c.table("date")
    test = c.year(t)
    everything = f"SELECT COUNT(*) FROM {t.name}"
    return Draft(
        f"{everything} WHERE {test.sql}",
        (
            f"How many {t.many} {test.short} are there?",
            f"Count the {t.many} {test.whose}.",
            f"What is the number of {t.many} {test.short}?",
        ),
        (everything,),
    )


def _latest_row(c: Chooser) -> Draft:
    t = c.table("date")
    column = c.column(t, "date")
    end, word = c.dice.pick([(" DESC", "latest"), ("", "earliest")])
    shown = c.target(t, columns=1)
    return Draft(
        f"SELECT {shown.sql} FROM {t.name} ORDER BY {column.name}{end} LIMIT 1",
        (
            f"What is the {shown.noun} of the {t.one} with the {word} {column.noun}?",
            f"Show the {shown.noun} of the {t.one} that has the {word} {column.noun}.",
        ),
    )


def _count_per_year(c: Chooser) -> Draft:
    t = c.table("date")
    column = c.column(t, "date")
    year = f"strftime('%Y', {column.name})"
    return Draft(
        f"SELECT {year}, COUNT(*) FROM {t.name} GROUP BY {year}",
        (
            f"How many {t.many} are there for each year of the {column.noun}?",
            f"Show each year of the {column.noun} and its number of {t.many}.",
        ),
    )


def _filter_by_span(c: Chooser) -> Draft:
    t = c.table()
    test = c.span(t)
    shown = c.target(t, columns=1)
    everything = f"SELECT {shown.sql} FROM {t.name}"
    return Draft(
        f"{everything} WHERE {test.sql}",
        (
            f"List the {shown.plural} of the {t.many} {test.short}.",
            f"What are the {shown.plural} of {t.many} {test.whose}?",
            f"Show the {shown.noun} of every {t.one} {test.short}.",
        ),
        (everything,),
    )


PATTERNS = (
    Pattern("subquery", 1, _beyond_average),
    Pattern("subquery", 1, _without_children),
    Pattern("set_operation", 1, _shared_values),
    Pattern("set_operation", 1, _missing_values),
    Pattern("null", 1, _list_gaps),
    Pattern("null", 1, _count_gaps),
    Pattern("date", 2, _filter_by_date),
    Pattern("date", 1, _count_in_year),
    Pattern("date", 1, _latest_row),
    Pattern("date", 1, _count_per_year),
    Pattern("range", 2, _filter_by_span),
)
