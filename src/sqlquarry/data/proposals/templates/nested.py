"""Question templates with subqueries, left joins and set operations."""

from __future__ import annotations

from sqlquarry.data.proposals.chooser import Chooser, DeadEndError, Draft, Template
from sqlquarry.data.proposals.words import with_article


def _beyond_average(c: Chooser) -> Draft:
    t = c.table("number")
    number = c.column(t, "number")
    sign, short, long = c.dice.pick([(">", "above", "greater than"), ("<", "below", "less than")])
    shown, noun = c.target(t, columns=c.dice.pick([1, 2]), but=number), number.noun
    return Draft(
        f"SELECT {shown.sql} FROM {t.sql} WHERE {number.sql} {sign} (SELECT AVG({number.sql}) FROM {t.sql})",
        (
            f"List the {shown.plural} of the {t.many} with {with_article(noun)} {short} the average.",
            f"What are the {shown.plural} of the {t.many} whose {noun} {number.verb} {long} the average {noun} of all?",
            f"Show the {shown.noun} of every {t.one} with {with_article(noun)} {short} the average {noun}.",
        ),
    )


def _beyond_group(c: Chooser) -> Draft:
    t = c.table("number")
    number = c.column(t, "number")
    test = c.condition(t, "category", "text", "year", but=number)
    function, word = c.dice.pick([("MAX", "highest"), ("AVG", "average"), ("MIN", "lowest")])
    sign, long = c.dice.pick([(">", "greater than"), ("<", "less than")])
    shown = c.target(t, columns=1)
    return Draft(
        f"SELECT {shown.sql} FROM {t.sql} WHERE {number.sql} {sign} "
        f"(SELECT {function}({number.sql}) FROM {t.sql} WHERE {test.sql})",
        (
            (
                f"List the {shown.plural} of the {t.many} whose {number.noun} {number.verb} {long} the {word} "
                f"{number.noun} of the {t.many} {test.short}."
            ),
            (
                f"Which {t.many} have {with_article(number.noun)} {long} the {word} {number.noun} of all {t.many} "
                f"{test.whose}? Show their {shown.plural}."
            ),
        ),
        (f"SELECT {shown.sql} FROM {t.sql} WHERE {number.sql} {sign} (SELECT {function}({number.sql}) FROM {t.sql})",),
    )


def _extreme(c: Chooser) -> Draft:
    t = c.table()
    number = c.column(t, "number", "year", "date")
    test = c.condition(t, but=number)
    largest, smallest = number.extremes
    function, word = c.dice.pick([("MAX", largest), ("MIN", smallest)])
    shown = c.target(t, columns=c.dice.pick([1, 2]), but=number)
    if c.dice.chance(0.6):
        return Draft(
            f"SELECT {shown.sql} FROM {t.sql} WHERE {number.sql} = (SELECT {function}({number.sql}) FROM {t.sql})",
            (
                f"List the {shown.plural} of all {t.many} that share the {word} {number.noun}.",
                f"Show the {shown.noun} of every {t.one} whose {number.noun} {number.verb} the {word} of all.",
            ),
        )
    return Draft(
        f"SELECT {shown.sql} FROM {t.sql} WHERE {number.sql} = "
        f"(SELECT {function}({number.sql}) FROM {t.sql} WHERE {test.sql}) AND {test.sql}",
        (
            f"Among the {t.many} {test.short}, list the {shown.plural} of all with the {word} {number.noun}.",
            f"Show the {shown.plural} of every {t.one} that has the {word} {number.noun} of all {t.many} {test.whose}.",
        ),
    )


def _without_children(c: Chooser) -> Draft:
    link = c.link()
    child, parent = link.child, link.parent
    shown = c.target(parent, columns=c.dice.pick([1, 2]))
    select = f"SELECT {shown.sql} FROM {parent.sql}"
    sql = c.dice.pick(
        [
            f"{select} WHERE {link.target.sql} NOT IN (SELECT {link.key.sql} FROM {child.sql})",
            f"{select} WHERE NOT EXISTS (SELECT 1 FROM {child.sql} WHERE {link.on})",
            f"SELECT {shown.full} FROM {parent.sql} LEFT JOIN {child.sql} ON {link.on} WHERE {link.key.full} IS NULL",
        ]
    )
    return Draft(
        sql,
        (
            f"List the {shown.plural} of the {parent.many} without any {link.many}.",
            f"What are the {shown.plural} of the {parent.many} that have no {link.one}?",
            f"Show the {shown.noun} of every {parent.one} that does not have any {link.many}.",
        ),
        (select,),
    )


def _count_without(c: Chooser) -> Draft:
    link = c.link()
    c.label(link.parent)
    count = f"SELECT COUNT(*) FROM {link.parent.sql}"
    return Draft(
        f"{count} WHERE {link.target.sql} NOT IN (SELECT {link.key.sql} FROM {link.child.sql})",
        (
            f"How many {link.parent.many} do not have any {link.many}?",
            f"Count the {link.parent.many} without {link.many}.",
        ),
        (count,),
    )


def _with_children(c: Chooser) -> Draft:
    link = c.link()
    child, parent = link.child, link.parent
    test = c.condition(child)
    shown = c.target(parent, columns=c.dice.pick([1, 2]))
    select = f"SELECT {shown.sql} FROM {parent.sql}"
    is_negated = c.dice.chance(0.3)
    word = "NOT IN" if is_negated else "IN"
    have = "do not have any" if is_negated else "have"
    exists = f"{'NOT ' if is_negated else ''}EXISTS (SELECT 1 FROM {child.sql} WHERE {link.on} AND {test.full})"
    listed = f"{link.target.sql} {word} (SELECT {link.key.sql} FROM {child.sql} WHERE {test.sql})"
    some = child.many if is_negated else with_article(child.one)
    return Draft(
        f"{select} WHERE {c.dice.pick([exists, listed, listed])}",
        (
            f"List the {shown.plural} of the {parent.many} that {have} {some} {test.short}.",
            f"What are the {shown.plural} of the {parent.many} that {have} {some} {test.whose}?",
        ),
        (select, f"{select} WHERE {link.target.sql} {word} (SELECT {link.key.sql} FROM {child.sql})"),
    )


def _shared(c: Chooser) -> Draft:
    t = c.table()
    column = c.group(t)
    first = c.condition(t, but=column)
    second = c.condition(t, but=column)
    left = f"SELECT {column.sql} FROM {t.sql} WHERE {first.sql}"
    right = f"SELECT {column.sql} FROM {t.sql} WHERE {second.sql}"
    different = tuple(query.replace("SELECT", "SELECT DISTINCT", 1) for query in (left, right))
    if first.sql == second.sql:
        raise DeadEndError
    if c.dice.chance(0.5):
        return Draft(
            f"{left} INTERSECT {right}",
            (
                f"Which {column.plural} have both {t.many} {first.short} and {t.many} {second.short}?",
                f"List the {column.plural} shared by {t.many} {first.whose} and {t.many} {second.whose}.",
            ),
            different,
        )
    return Draft(
        f"{left} EXCEPT {right}",
        (
            f"Which {column.plural} have {t.many} {first.short} but no {t.many} {second.short}?",
            f"List the {column.plural} of the {t.many} {first.whose} that no {t.one} {second.short} has.",
        ),
        different[:1],
    )


def _union(c: Chooser) -> Draft:
    t = c.table()
    shown = c.label(t)
    first = c.condition(t, but=shown)
    second = c.condition(t, but=first.column)
    left = f"SELECT {shown.sql} FROM {t.sql} WHERE {first.sql}"
    right = f"SELECT {shown.sql} FROM {t.sql} WHERE {second.sql}"
    return Draft(
        f"{left} UNION {right}",
        (
            f"Show the different {shown.plural} of the {t.many} {first.short}, and of those {second.short}.",
            f"List all distinct {shown.plural} of {t.many} {first.whose} or whose {second.clause}.",
        ),
        tuple(query.replace("SELECT", "SELECT DISTINCT", 1) for query in (left, right)),
    )


TEMPLATES = (
    Template("above-average", _beyond_average),
    Template("beyond-group", _beyond_group),
    Template("extreme", _extreme),
    Template("without", _without_children),
    Template("count-without", _count_without),
    Template("with", _with_children),
    Template("set-operation", _shared),
    Template("union", _union),
)
