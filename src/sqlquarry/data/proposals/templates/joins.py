"""Question templates that join two or three tables along foreign keys."""

from __future__ import annotations

from sqlquarry.data.proposals.asked import AskedColumn, AskedTable, Link
from sqlquarry.data.proposals.chooser import COARSE, Chooser, DeadEndError, Draft, Template
from sqlquarry.data.proposals.words import possessive, with_article


def _entity_link(c: Chooser) -> Link:
    """Draw a link whose child has rows that people talk about, not only pairs of keys."""
    links = [
        link
        for link in c.asked.links
        if not link.child.is_bridge and link.parent.label is not None and link.child.label is not None
    ]
    return c.one_link(links)


def _pairs(c: Chooser) -> Draft:
    link = _entity_link(c)
    own, other = c.label(link.child), _content(c, link.parent)
    child = link.child
    return Draft(
        f"SELECT {own.full}, {other.full} FROM {link.joined}",
        (
            f"Show the {own.noun} of every {child.one} and the {other.noun} of its {link.relation}.",
            f"List the {own.plural} of all {child.many} together with the {other.noun} of their {link.relation}.",
            f"For each {child.one}, give the {own.noun} and the {possessive(link.relation)} {other.noun}.",
        ),
    )


def _pairs_filtered(c: Chooser) -> Draft:
    link = _entity_link(c)
    child = link.child
    own, other = c.label(child), _content(c, link.parent)
    test = c.condition(child, but=own)
    pairs = f"SELECT {own.full}, {other.full} FROM {link.joined}"
    return Draft(
        f"{pairs} WHERE {test.full}",
        (
            f"Show the {own.noun} of every {child.one} {test.short} and the {other.noun} of its {link.relation}.",
            f"For each {child.one} {test.whose}, give the {own.noun} and the {possessive(link.relation)} {other.noun}.",
        ),
        (pairs,),
    )


def _filter_by_parent(c: Chooser) -> Draft:
    link = _entity_link(c)
    child = link.child
    test = c.condition(link.parent)
    shown = c.target(child, columns=c.dice.pick([1, 1, 2]))
    everything = f"SELECT {shown.full} FROM {link.joined}"
    return Draft(
        f"{everything} WHERE {test.full}",
        (
            f"List the {shown.plural} of the {child.many} whose {possessive(link.relation)} {test.clause}.",
            f"What are the {shown.plural} of all {child.many} whose {possessive(link.relation)} {test.clause}?",
            f"Show the {shown.noun} of every {child.one} that belongs to {with_article(link.relation)} {test.short}.",
        ),
        (everything,),
    )


def _count_by_parent(c: Chooser) -> Draft:
    link = _entity_link(c)
    child = link.child
    test = c.condition(link.parent)
    everything = f"SELECT COUNT(*) FROM {link.joined}"
    return Draft(
        f"{everything} WHERE {test.full}",
        (
            f"How many {child.many} are there whose {possessive(link.relation)} {test.clause}?",
            f"Count the {child.many} whose {possessive(link.relation)} {test.clause}.",
            f"What is the number of {child.many} that belong to {with_article(link.relation)} {test.short}?",
        ),
        (everything,),
    )


def _aggregate_by_parent(c: Chooser) -> Draft:
    link = c.link(child="number")
    child = link.child
    number = c.column(child, "number")
    function, word, _ = c.aggregate(number)
    test = c.condition(link.parent)
    everything = f"SELECT {function}({number.full}) FROM {link.joined}"
    return Draft(
        f"{everything} WHERE {test.full}",
        (
            f"What is the {word} {number.noun} of the {child.many} whose {possessive(link.relation)} {test.clause}?",
            f"Find the {word} {number.noun} of all {child.many} of {with_article(link.relation)} {test.short}.",
        ),
        (everything,),
    )


def _count_per_parent(c: Chooser) -> Draft:
    link = c.link()
    parent = link.parent
    label = _naming(c, parent)
    grouped = f"FROM {link.joined} GROUP BY {label.full}"
    having, words = "", ""
    if c.dice.chance(0.4):
        size = 1 + c.dice.below(3)
        having, words = f" HAVING COUNT(*) > {size}", f" with more than {size} {link.many if size > 1 else link.one}"
    return Draft(
        f"SELECT {label.full}, COUNT(*) {grouped}{having}",
        (
            (
                f"For every {parent.one}{words or f' that has {link.many}'}, show the {label.noun} and the number "
                f"of {link.many}."
            ),
            (
                f"Show the {label.noun} of each {parent.one}{words or f' with at least one {link.one}'}, and its "
                f"number of {link.many}."
            ),
        ),
        (f"SELECT {label.full}, COUNT(*) {grouped}",) if having else (),
    )


def _aggregate_per_parent(c: Chooser) -> Draft:
    link = c.link(child="number")
    child, parent = link.child, link.parent
    group = c.column(parent, "category", "label", "text", "year")
    number = c.column(child, "number")
    function, word, other = c.aggregate(number)
    return Draft(
        f"SELECT {group.full}, {function}({number.full}) FROM {link.joined} GROUP BY {group.full}",
        (
            f"What is the {word} {number.noun} of the {child.many} for each {group.noun} of their {link.relation}?",
            f"Show each {group.noun} of the {parent.many} and the {word} {number.noun} of their {child.many}.",
            f"Give the {other} {number.noun} of the {child.many} by the {group.noun} of the {link.relation}.",
        ),
    )


def _busiest_parent(c: Chooser) -> Draft:
    link = c.link()
    parent = link.parent
    label = _naming(c, parent)
    end, word = c.dice.pick([(" DESC", "most"), (" DESC", "most"), ("", "fewest")])
    ordered = f"FROM {link.joined} GROUP BY {label.full} ORDER BY COUNT(*){end} LIMIT"
    among = "" if end else f" among those with at least one {link.one}"
    return Draft(
        f"SELECT {label.full} {ordered} 1",
        (
            f"What is the {label.noun} of the {parent.one} with the {word} {link.many}{among}?",
            f"Which {parent.one} has the {word} {link.many}{among}? Show the {label.noun}.",
            f"Show the {label.noun} of the {parent.one} that has the {word} {link.many}{among}.",
        ),
    )


def _first_of_parent(c: Chooser) -> Draft:
    link = _entity_link(c)
    child = link.child
    number = c.column(child, "number", "date", "year")
    shown = _content(c, link.parent)
    test = c.condition(child, *COARSE, but=number)
    end, word = c.direction(number)
    order = f"ORDER BY {number.full}{end} LIMIT"
    if c.dice.chance(0.5):
        return Draft(
            f"SELECT {shown.full} FROM {link.joined} {order} 1",
            (
                f"What is the {shown.noun} of the {link.relation} of the {child.one} with the {word} {number.noun}?",
                f"Show the {possessive(link.relation)} {shown.noun} for the {child.one} with the {word} {number.noun}.",
            ),
        )
    return Draft(
        f"SELECT {shown.full} FROM {link.joined} WHERE {test.full} {order} 1",
        (
            (
                f"Among the {child.many} {test.short}, take the one with the {word} {number.noun}. "
                f"What is the {shown.noun} of its {link.relation}?"
            ),
            (
                f"Show the {possessive(link.relation)} {shown.noun} for the {child.one} with the {word} {number.noun} "
                f"among the {child.many} {test.whose}."
            ),
        ),
        (f"SELECT {shown.full} FROM {link.joined} {order} 1",),
    )


def _chain(c: Chooser) -> tuple[Link, Link]:
    """Draw a table, the table that it refers to, and the table that this refers to."""
    inner = c.one_link([link for link in c.asked.links if any(link.parent is o.child for o in c.asked.links)])
    outer = c.one_link([o for o in c.asked.links if o.child is inner.parent and o.parent is not inner.child])
    return inner, outer


def _filter_by_grandparent(c: Chooser) -> Draft:
    inner, outer = _chain(c)
    child = inner.child
    test = c.condition(outer.parent)
    shown = c.target(child, columns=1)
    everything = f"SELECT {shown.full} FROM {inner.joined} JOIN {outer.parent.sql} ON {outer.on}"
    outer_one = with_article(outer.relation)
    path = f"{possessive(inner.relation)} {possessive(outer.relation)}"
    return Draft(
        f"{everything} WHERE {test.full}",
        (
            f"List the {shown.plural} of the {child.many} whose {path} {test.clause}.",
            f"Show the {shown.noun} of every {child.one} whose {inner.relation} has {outer_one} {test.short}.",
        ),
        (everything,),
    )


def _count_per_grandparent(c: Chooser) -> Draft:
    inner, outer = _chain(c)
    label = _naming(c, outer.parent)
    joined = f"{inner.joined} JOIN {outer.parent.sql} ON {outer.on}"
    many = inner.child.many
    return Draft(
        f"SELECT {label.full}, COUNT(*) FROM {joined} GROUP BY {label.full}",
        (
            f"For each {outer.parent.one}, show the {label.noun} and the number of {many} of its {inner.parent.many}.",
            (
                f"How many {many} do the {inner.parent.many} of each {outer.parent.one} have? Show the {label.noun} "
                f"of the {outer.parent.one} and the number."
            ),
        ),
    )


def _across(c: Chooser) -> Draft:
    """Ask for one parent of a table by the other parent, such as singers by their concerts."""
    links = c.asked.links
    first = c.one_link([one for one in links if any(_are_siblings(one, o) for o in links)])
    second = c.one_link([o for o in links if _are_siblings(first, o)])
    test = c.condition(second.parent)
    shown = c.label(first.parent)
    joined = f"{first.parent.sql} JOIN {first.child.sql} ON {first.on} JOIN {second.parent.sql} ON {second.on}"
    everything = f"SELECT DISTINCT {shown.full} FROM {joined}"
    through = f"{second.relation} {test.short}"
    if not first.child.is_bridge:
        through = f"{first.child.one} whose {possessive(second.relation)} {test.clause}"
    return Draft(
        f"{everything} WHERE {test.full}",
        (
            f"List the different {shown.plural} of the {first.parent.many} that have {with_article(through)}.",
            f"What are the distinct {shown.plural} of {first.parent.many} with {with_article(through)}?",
        ),
        (everything,),
    )


def _are_siblings(one: Link, other: Link) -> bool:
    return one.child is other.child and one.parent is not other.parent and one.parent.label is not None


def _content(c: Chooser, table: AskedTable) -> AskedColumn:
    """Draw a column of a parent that people ask for, mostly its label."""
    if table.label is not None and table.label.role == "label" and c.dice.chance(0.5):
        return c.label(table)
    return c.column(table)


def _naming(c: Chooser, table: AskedTable) -> AskedColumn:
    """Return the label of a table whose rows all have different labels."""
    label = c.label(table)
    if not label.is_unique:
        raise DeadEndError
    return label


TEMPLATES = (
    Template("join", _pairs),
    Template("join-filtered", _pairs_filtered),
    Template("join-by-parent", _filter_by_parent),
    Template("join-count", _count_by_parent),
    Template("join-aggregate", _aggregate_by_parent),
    Template("join-group-count", _count_per_parent),
    Template("join-group-aggregate", _aggregate_per_parent),
    Template("join-largest", _busiest_parent),
    Template("join-first", _first_of_parent),
    Template("join-three", _filter_by_grandparent),
    Template("join-three-group", _count_per_grandparent),
    Template("join-across", _across),
)
