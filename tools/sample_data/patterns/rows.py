"""Question patterns: plain lists, filters, counts, aggregates and distinct values."""

from tools.sample_data.chooser import Chooser, Draft, Pattern


def _list_column(c: Chooser) -> Draft:
    t = c.table()
    column = c.column(t)
    # "List the cities of all owners" could ask for each city once.
    once_each = column.role == "category"
    return Draft(
        f"SELECT {column.name} FROM {t.name}",
        (
            f"For each {t.one}, give the {column.noun}." if once_each else f"List the {column.plural} of all {t.many}.",
            f"Show the {column.noun} of every {t.one}.",
            f"What is the {column.noun} of each {t.one}?",
        ),
    )


def _list_two_columns(c: Chooser) -> Draft:
    t = c.table()
    shown = c.target(t, columns=2)
    return Draft(
        f"SELECT {shown.sql} FROM {t.name}",
        (
            f"List the {shown.plural} of all {t.many}.",
            f"Show the {shown.noun} of every {t.one}.",
            f"For each {t.one}, give the {shown.noun}.",
        ),
    )


def _filtered(c: Chooser, columns: int) -> Draft:
    t = c.table()
    test = c.condition(t, "category", "number")
    shown = c.target(t, columns=columns, but=test.column)
    everything = f"SELECT {shown.sql} FROM {t.name}"
    return Draft(
        f"{everything} WHERE {test.sql}",
        (
            f"List the {shown.plural} of the {t.many} {test.short}.",
            f"What are the {shown.plural} of {t.many} {test.whose}?",
            f"Show the {shown.noun} of every {t.one} {test.short}.",
            f"Find the {t.many} {test.whose} and give their {shown.plural}.",
        ),
        (everything,),
    )


def _filter_rows(c: Chooser) -> Draft:
    return _filtered(c, columns=1)


def _filter_rows_two_columns(c: Chooser) -> Draft:
    return _filtered(c, columns=2)


def _look_up(c: Chooser) -> Draft:
    t = c.table("label")
    test = c.condition(t, "label")
    column = c.column(t, "category", "number", "date")
    return Draft(
        f"SELECT {column.name} FROM {t.name} WHERE {test.sql}",
        (
            f"What is the {column.noun} of the {t.one} {test.short}?",
            f"Show the {column.noun} of the {t.one} {test.short}.",
            f"For the {t.one} {test.whose}, give the {column.noun}.",
        ),
    )


def _filter_and(c: Chooser) -> Draft:
    t = c.table()
    first = c.condition(t, "category", "number")
    second = c.condition(t, "number", "date", "category", but=first.column)
    shown = c.target(t, columns=1)
    everything = f"SELECT {shown.sql} FROM {t.name} WHERE"
    return Draft(
        f"{everything} {first.sql} AND {second.sql}",
        (
            f"List the {shown.plural} of the {t.many} {first.short} and {second.short}.",
            f"What are the {shown.plural} of {t.many} {first.whose} and {second.whose}?",
            f"Show the {shown.noun} of every {t.one} {first.short} and {second.whose}.",
        ),
        (f"{everything} {first.sql}", f"{everything} {second.sql}"),
    )


def _filter_or(c: Chooser) -> Draft:
    t = c.table()
    first = c.condition(t, "category", "number")
    second = c.condition(t, "number", "date", "category", but=first.column)
    shown = c.target(t, columns=1)
    everything = f"SELECT {shown.sql} FROM {t.name}"
    return Draft(
        f"{everything} WHERE {first.sql} OR {second.sql}",
        (
            f"List the {shown.plural} of the {t.many} {first.short} or {second.short}.",
            f"What are the {shown.plural} of {t.many} {first.whose} or {second.whose}?",
            f"Show the {shown.noun} of every {t.one} {first.whose} or {second.whose}.",
        ),
        (everything, f"{everything} WHERE {first.sql}", f"{everything} WHERE {second.sql}"),
    )


def _count_rows(c: Chooser) -> Draft:
    t = c.table()
    return Draft(
        f"SELECT COUNT(*) FROM {t.name}",
        (f"How many {t.many} are there?", f"Count all {t.many}.", f"What is the total number of {t.many}?"),
    )


def _count_filtered(c: Chooser) -> Draft:
    t = c.table()
    test = c.condition(t, "category", "number")
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


def _count_different(c: Chooser) -> Draft:
    t = c.table("category")
    column = c.column(t, "category")
    return Draft(
        f"SELECT COUNT(DISTINCT {column.name}) FROM {t.name}",
        (
            f"How many different {column.plural} are there among the {t.many}?",
            f"Count the different {column.plural} of the {t.many}.",
            f"What is the number of distinct {column.plural} among the {t.many}?",
        ),
    )


def _aggregate_rows(c: Chooser) -> Draft:
    t = c.table("number")
    column = c.column(t, "number")
    function, word, other = c.aggregate(column)
    return Draft(
        f"SELECT {function}({column.name}) FROM {t.name}",
        (
            f"What is the {word} {column.noun} of all {t.many}?",
            f"Find the {word} {column.noun} of the {t.many}.",
            f"Give the {other} {column.noun} over all {t.many}.",
        ),
    )


def _aggregate_filtered(c: Chooser) -> Draft:
    t = c.table("number")
    column = c.column(t, "number")
    function, word, other = c.aggregate(column)
    test = c.condition(t, "category", "date", but=column)
    everything = f"SELECT {function}({column.name}) FROM {t.name}"
    return Draft(
        f"{everything} WHERE {test.sql}",
        (
            f"What is the {word} {column.noun} of the {t.many} {test.short}?",
            f"Find the {word} {column.noun} of {t.many} {test.whose}.",
            f"Give the {other} {column.noun} over all {t.many} {test.short}.",
        ),
        (everything,),
    )


def _extremes(c: Chooser) -> Draft:
    t = c.table("number")
    column = c.column(t, "number")
    return Draft(
        f"SELECT MIN({column.name}), MAX({column.name}) FROM {t.name}",
        (
            f"What are the lowest and the highest {column.noun} of all {t.many}?",
            f"Show the minimum and the maximum {column.noun} over all {t.many}.",
        ),
    )


def _list_different(c: Chooser) -> Draft:
    t = c.table("category")
    column = c.column(t, "category")
    return Draft(
        f"SELECT DISTINCT {column.name} FROM {t.name}",
        (
            f"List the different {column.plural} of the {t.many}.",
            f"Which different {column.plural} occur among the {t.many}?",
            f"Show every {column.noun} of the {t.many} only once.",
        ),
    )


def _list_different_filtered(c: Chooser) -> Draft:
    t = c.table("category")
    column = c.column(t, "category")
    test = c.condition(t, "number", "date", "category", but=column)
    everything = f"SELECT DISTINCT {column.name} FROM {t.name}"
    return Draft(
        f"{everything} WHERE {test.sql}",
        (
            f"List the different {column.plural} of the {t.many} {test.short}.",
            f"Which different {column.plural} occur among the {t.many} {test.short}?",
            f"Show every {column.noun} of {t.many} {test.whose} only once.",
        ),
        (everything,),
    )


PATTERNS = (
    Pattern("projection", 2, _list_column),
    Pattern("projection", 3, _list_two_columns),
    Pattern("filter", 4, _filter_rows),
    Pattern("filter", 2, _filter_rows_two_columns),
    Pattern("filter", 2, _look_up),
    Pattern("multi_filter", 3, _filter_and),
    Pattern("multi_filter", 1, _filter_or),
    Pattern("count", 2, _count_rows),
    Pattern("count", 3, _count_filtered),
    Pattern("count", 1, _count_different),
    Pattern("aggregate", 3, _aggregate_rows),
    Pattern("aggregate", 3, _aggregate_filtered),
    Pattern("aggregate", 1, _extremes),
    Pattern("distinct", 1, _list_different),
    Pattern("distinct", 1, _list_different_filtered),
)
