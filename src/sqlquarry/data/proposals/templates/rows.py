"""Question templates on the rows of one table: lists, filters, counts, aggregates, order and distinct values."""

from __future__ import annotations

from sqlquarry.data.proposals.asked import AskedTable
from sqlquarry.data.proposals.chooser import Chooser, DeadEndError, Draft, Template
from sqlquarry.data.proposals.conditions import Condition


def _list_columns(c: Chooser) -> Draft:
    t = c.table()
    shown = c.target(t, columns=c.dice.pick([2, 2, 3]))
    return Draft(
        f"SELECT {shown.sql} FROM {t.sql}",
        (
            f"List the {shown.plural} of all {t.many}.",
            f"Show the {shown.noun} of every {t.one}.",
            f"For each {t.one}, give the {shown.noun}.",
            f"What are the {shown.plural} of all {t.many}?",
        ),
    )


def _list_column(c: Chooser) -> Draft:
    t = c.table()
    column = c.column(t)
    return Draft(
        f"SELECT {column.sql} FROM {t.sql}",
        (
            f"Show the {column.noun} of every {t.one}.",
            f"What is the {column.noun} of each {t.one}?",
            f"For every {t.one}, return the {column.noun}.",
        ),
    )


def filtered(c: Chooser, t: AskedTable, test: Condition, columns: int = 1) -> Draft:
    """Draft a list of the rows that meet a condition."""
    if test.column is t.label and test.is_equality:
        raise DeadEndError
    shown = c.target(t, columns=columns, but=test.column)
    everything = f"SELECT {shown.sql} FROM {t.sql}"
    return Draft(
        f"{everything} WHERE {test.sql}",
        (
            f"List the {shown.plural} of the {t.many} {test.short}.",
            f"What are the {shown.plural} of the {t.many} {test.whose}?",
            f"Show the {shown.noun} of every {t.one} {test.short}.",
            f"Find all {t.many} {test.whose} and give their {shown.plural}.",
            f"Which {t.many} have {test.short.removeprefix('with ')}? Show their {shown.plural}."
            if test.short.startswith("with ") and not test.short.startswith("with the ")
            else f"For the {t.many} {test.short}, show the {shown.noun}.",
        ),
        (everything,),
    )


def counted(t: AskedTable, test: Condition) -> Draft:
    """Draft the number of rows that meet a condition."""
    if test.names_a_row:
        raise DeadEndError
    everything = f"SELECT COUNT(*) FROM {t.sql}"
    return Draft(
        f"{everything} WHERE {test.sql}",
        (
            f"How many {t.many} {test.short} are there?",
            f"Count the {t.many} {test.whose}.",
            f"What is the number of {t.many} {test.short}?",
            f"Find the number of {t.many} {test.whose}.",
        ),
        (everything,),
    )


def _filter_rows(c: Chooser) -> Draft:
    t = c.table()
    return filtered(c, t, c.condition(t), c.dice.pick([1, 1, 2]))


def _filter_span(c: Chooser) -> Draft:
    t = c.table()
    return filtered(c, t, c.span(t), c.dice.pick([1, 2]))


def _filter_gap(c: Chooser) -> Draft:
    t = c.table()
    return filtered(c, t, c.gap(t), c.dice.pick([1, 2]))


def _look_up(c: Chooser) -> Draft:
    t = c.table("label")
    test = c.condition(t, "label")
    if not test.is_equality:
        raise DeadEndError
    column = c.column(t, but=test.column)
    return Draft(
        f"SELECT {column.sql} FROM {t.sql} WHERE {test.sql}",
        (
            f"What is the {column.noun} of the {t.one} {test.short}?",
            f"Show the {column.noun} of the {t.one} {test.short}.",
            f"For the {t.one} {test.whose}, give the {column.noun}.",
        ),
    )


def _filter_two(c: Chooser) -> Draft:
    t = c.table()
    first = c.condition(t)
    second = c.condition(t, but=first.column)
    shown = c.target(t, columns=1)
    word, keyword = c.dice.pick([("and", "AND"), ("and", "AND"), ("or", "OR")])
    everything = f"SELECT {shown.sql} FROM {t.sql} WHERE"
    return Draft(
        f"{everything} {first.sql} {keyword} {second.sql}",
        (
            f"What are the {shown.plural} of the {t.many} {first.whose} {word} whose {second.clause}?",
            f"Show the {shown.noun} of every {t.one} {first.short} {word} {second.short}.",
            f"Find the {shown.plural} of all {t.many} {first.whose} {word} whose {second.clause}.",
            f"List the {shown.plural} of {t.many} {first.short} {word} {second.short}.",
        ),
        (f"{everything} {first.sql}", f"{everything} {second.sql}"),
    )


def _count_rows(c: Chooser) -> Draft:
    t = c.table()
    return Draft(
        f"SELECT COUNT(*) FROM {t.sql}",
        (
            f"How many {t.many} are there?",
            f"Count the {t.many}.",
            f"What is the total number of {t.many}?",
        ),
    )


def _count_filtered(c: Chooser) -> Draft:
    t = c.table()
    return counted(t, c.condition(t))


def _count_span(c: Chooser) -> Draft:
    t = c.table()
    return counted(t, c.span(t))


def _count_gap(c: Chooser) -> Draft:
    t = c.table()
    return counted(t, c.gap(t))


def _count_different(c: Chooser) -> Draft:
    t = c.table()
    column = c.column(t, "category", "text", "year", "date", "code")
    return Draft(
        f"SELECT COUNT(DISTINCT {column.sql}) FROM {t.sql}",
        (
            f"How many different {column.plural} do the {t.many} have?",
            f"Count the distinct {column.plural} of the {t.many}.",
            f"What is the number of different {column.plural} among the {t.many}?",
        ),
    )


def _aggregate(c: Chooser) -> Draft:
    t = c.table("number")
    column = c.column(t, "number")
    function, word, other = c.aggregate(column)
    return Draft(
        f"SELECT {function}({column.sql}) FROM {t.sql}",
        (
            f"What is the {word} {column.noun} of all {t.many}?",
            f"Find the {other} {column.noun} over all {t.many}.",
            f"Show the {word} {column.noun} of the {t.many}.",
        ),
    )


def _aggregate_filtered(c: Chooser) -> Draft:
    t = c.table("number")
    column = c.column(t, "number")
    function, word, other = c.aggregate(column)
    test = c.condition(t, but=column)
    everything = f"SELECT {function}({column.sql}) FROM {t.sql}"
    return Draft(
        f"{everything} WHERE {test.sql}",
        (
            f"What is the {word} {column.noun} of the {t.many} {test.short}?",
            f"Find the {word} {column.noun} of the {t.many} {test.whose}.",
            f"Give the {other} {column.noun} over all {t.many} {test.short}.",
        ),
        (everything,),
    )


def _aggregates(c: Chooser) -> Draft:
    t = c.table("number")
    column = c.column(t, "number")
    test = c.condition(t, but=column)
    everything = f"SELECT MIN({column.sql}), AVG({column.sql}), MAX({column.sql}) FROM {t.sql}"
    if c.dice.chance(0.4):
        words = f"minimum, average and maximum {column.noun}"
        return Draft(everything, (f"What are the {words} of all {t.many}?", f"Show the {words} over all {t.many}."))
    return Draft(
        f"{everything} WHERE {test.sql}",
        (
            f"What are the minimum, average and maximum {column.noun} of the {t.many} {test.short}?",
            f"Show the lowest, the average and the highest {column.noun} of all {t.many} {test.whose}.",
        ),
        (everything,),
    )


def _different(c: Chooser) -> Draft:
    t = c.table()
    column = c.column(t, "category", "text", "year", "code")
    return Draft(
        f"SELECT DISTINCT {column.sql} FROM {t.sql}",
        (
            f"List the different {column.plural} of the {t.many}.",
            f"What are the distinct {column.plural} of all {t.many}?",
            f"Show every {column.noun} of the {t.many} only once.",
        ),
    )


def _different_filtered(c: Chooser) -> Draft:
    t = c.table()
    column = c.column(t, "category", "text", "year", "code")
    test = c.condition(t, but=column)
    everything = f"SELECT DISTINCT {column.sql} FROM {t.sql}"
    return Draft(
        f"{everything} WHERE {test.sql}",
        (
            f"List the different {column.plural} of the {t.many} {test.short}.",
            f"What are the distinct {column.plural} of the {t.many} {test.whose}?",
            f"Show every {column.noun} of {t.many} {test.whose} only once.",
        ),
        (everything,),
    )


TEMPLATES = (
    Template("list", _list_columns),
    Template("list-one", _list_column),
    Template("filter", _filter_rows),
    Template("filter-span", _filter_span),
    Template("filter-gap", _filter_gap),
    Template("look-up", _look_up),
    Template("filter-two", _filter_two),
    Template("count", _count_rows),
    Template("count-filtered", _count_filtered),
    Template("count-span", _count_span),
    Template("count-gap", _count_gap),
    Template("count-distinct", _count_different),
    Template("aggregate", _aggregate),
    Template("aggregate-filtered", _aggregate_filtered),
    Template("aggregates", _aggregates),
    Template("distinct", _different),
    Template("distinct-filtered", _different_filtered),
)
