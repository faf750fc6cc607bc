"""Question patterns: order, limits, groups and HAVING."""

from tools.sample_data.chooser import Chooser, Draft, Pattern


def _first_row(c: Chooser) -> Draft:
    t = c.table("number")
    column = c.column(t, "number")
    end, word, superlative = c.dice.pick([(" DESC", "highest", column.most), ("", "lowest", column.least)])
    shown = c.target(t, columns=1)
    other = f"{superlative} {t.one}" if superlative else f"{t.one} that has the {word} {column.noun}"
    return Draft(
        f"SELECT {shown.sql} FROM {t.name} ORDER BY {column.name}{end} LIMIT 1",
        (
            f"What is the {shown.noun} of the {t.one} with the {word} {column.noun}?",
            f"Show the {shown.noun} of the {other}.",
            f"Find the {t.one} with the {word} {column.noun} and give the {shown.noun}.",
        ),
    )


def _first_rows(c: Chooser) -> Draft:
    t = c.table("number")
    column = c.column(t, "number")
    end, word = c.dice.pick([(" DESC", "highest"), ("", "lowest")])
    shown = c.target(t, columns=c.dice.pick([1, 2]), but=column)
    size = c.dice.pick([3, 5])
    return Draft(
        f"SELECT {shown.sql} FROM {t.name} ORDER BY {column.name}{end} LIMIT {size}",
        (
            f"List the {shown.plural} of the {size} {t.many} with the {word} {column.noun}.",
            f"What are the {shown.plural} of the {size} {t.many} with the {word} {column.plural}?",
            f"Show the {shown.plural} of the {size} {t.many} that have the {word} {column.noun}, {word} first.",
        ),
    )


def _sorted_rows(c: Chooser) -> Draft:
    t = c.table("number")
    column = c.column(t, "number")
    end, order, words = c.dice.pick(
        [(" DESC", "descending", "from the highest to the lowest"), ("", "ascending", "from the lowest to the highest")]
    )
    label = t.label
    return Draft(
        f"SELECT {label.name}, {column.name} FROM {t.name} ORDER BY {column.name}{end}",
        (
            f"List the {label.plural} and {column.plural} of all {t.many} in {order} order of {column.noun}.",
            f"Show the {label.noun} and {column.noun} of every {t.one}, {words} {column.noun}.",
            f"Sort the {t.many} {words} {column.noun} and give the {label.noun} and {column.noun} of each.",
        ),
    )


def _first_row_filtered(c: Chooser) -> Draft:
    t = c.table("number", "category")
    column = c.column(t, "number")
    test = c.condition(t, "category", "date", but=column)
    end, word = c.dice.pick([(" DESC", "highest"), ("", "lowest")])
    shown = c.target(t, columns=1)
    order = f"ORDER BY {column.name}{end} LIMIT 1"
    return Draft(
        f"SELECT {shown.sql} FROM {t.name} WHERE {test.sql} {order}",
        (
            f"Among the {t.many} {test.short}, what is the {shown.noun} of the one with the {word} {column.noun}?",
            f"Of all {t.many} {test.whose}, show the {shown.noun} of the one with the {word} {column.noun}.",
        ),
        (f"SELECT {shown.sql} FROM {t.name} {order}",),
    )


def _group_count(c: Chooser) -> Draft:
    t = c.table("category")
    column = c.column(t, "category")
    return Draft(
        f"SELECT {column.name}, COUNT(*) FROM {t.name} GROUP BY {column.name}",
        (
            f"How many {t.many} are there for each {column.noun}?",
            f"Show each {column.noun} and its number of {t.many}.",
            f"Count the {t.many} by {column.noun}.",
        ),
    )


def _group_aggregate(c: Chooser) -> Draft:
    t = c.table("category", "number")
    column, number = c.column(t, "category"), c.column(t, "number")
    function, word, other = c.aggregate(number)
    return Draft(
        f"SELECT {column.name}, {function}({number.name}) FROM {t.name} GROUP BY {column.name}",
        (
            f"What is the {word} {number.noun} of the {t.many} for each {column.noun}?",
            f"Show each {column.noun} and the {word} {number.noun} of its {t.many}.",
            f"Give the {other} {number.noun} of {t.many} by {column.noun}.",
        ),
    )


def _largest_group(c: Chooser) -> Draft:
    t = c.table("category")
    column = c.column(t, "category")
    end, word = c.dice.pick([(" DESC", "most"), ("", "fewest")])
    return Draft(
        f"SELECT {column.name} FROM {t.name} GROUP BY {column.name} ORDER BY COUNT(*){end} LIMIT 1",
        (
            f"Which {column.noun} has the {word} {t.many}?",
            f"Show the {column.noun} with the {word} {t.many}.",
            f"What is the {column.noun} that the {word} {t.many} have?",
        ),
    )


def _large_groups(c: Chooser) -> Draft:
    t = c.table("category")
    column = c.column(t, "category")
    size = 3 + c.dice.below(t.rows // 3)
    sign, word = c.dice.pick([(">", "more than"), ("<", "fewer than"), (">=", "at least")])
    groups = f"SELECT {column.name} FROM {t.name} GROUP BY {column.name}"
    return Draft(
        f"{groups} HAVING COUNT(*) {sign} {size}",
        (
            f"Which {column.plural} have {word} {size} {t.many}?",
            f"List the {column.plural} with {word} {size} {t.many}.",
            f"Show every {column.noun} that has {word} {size} {t.many}.",
        ),
        (groups,),
    )


def _groups_by_average(c: Chooser) -> Draft:
    t = c.table("category", "number")
    column = c.column(t, "category")
    test = c.condition(t, "number")
    number = test.column
    sign, value = test.test.split()
    word = {">": "above", "<": "below", ">=": "of at least", "<=": "of at most"}[sign]
    amount = f"{value} {number.unit}".rstrip()
    groups = f"SELECT {column.name} FROM {t.name} GROUP BY {column.name}"
    return Draft(
        f"{groups} HAVING AVG({number.name}) {sign} {value}",
        (
            f"Which {column.plural} have {t.many} with an average {number.noun} {word} {amount}?",
            f"List the {column.plural} where the {t.many} have an average {number.noun} {word} {amount}.",
            f"Show every {column.noun} whose {t.many} have a mean {number.noun} {word} {amount}.",
        ),
        (groups,),
    )


PATTERNS = (
    Pattern("order_limit", 2, _first_row),
    Pattern("order_limit", 2, _first_rows),
    Pattern("order_limit", 1, _sorted_rows),
    Pattern("order_limit", 1, _first_row_filtered),
    Pattern("group", 2, _group_count),
    Pattern("group", 2, _group_aggregate),
    Pattern("group", 1, _largest_group),
    Pattern("having", 1, _large_groups),
    Pattern("having", 1, _groups_by_average),
)
