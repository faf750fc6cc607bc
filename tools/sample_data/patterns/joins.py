"""Question patterns: joins of a table with the table that it refers to."""

from tools.sample_data.chooser import Chooser, Draft, Pattern


def _pair_up(c: Chooser) -> Draft:
    link = c.link(parent="label")
    child, parent = link.child, link.parent
    own, other = child.label, parent.label
    return Draft(
        f"SELECT {child.name}.{own.name}, {parent.name}.{other.name} FROM {link.tables}",
        (
            f"Show the {own.noun} of every {child.one} and the {other.noun} of {child.its} {parent.one}.",
            f"List the {own.plural} of all {child.many} together with the {other.noun} of the {parent.one}.",
            f"For each {child.one}, give the {own.noun} and the {other.noun} of the {parent.one}.",
        ),
    )


def _pair_up_filtered(c: Chooser) -> Draft:
    link = c.link(parent="label")
    child, parent = link.child, link.parent
    own, other = child.label, parent.label
    test = c.condition(child, "category", "number", "date")
    pairs = f"SELECT {child.name}.{own.name}, {parent.name}.{other.name} FROM {link.tables}"
    return Draft(
        f"{pairs} WHERE {test.of(child.name)}",
        (
            f"Show the {own.noun} of every {child.one} {test.short} and the {other.noun} of {child.its} {parent.one}.",
            f"For each {child.one} {test.whose}, give the {own.noun} and the {other.noun} of the {parent.one}.",
        ),
        (pairs,),
    )


def _filter_by_parent(c: Chooser) -> Draft:
    link = c.link()
    child, parent = link.child, link.parent
    test = c.condition(parent, "category", "number")
    shown = child.label
    everything = f"SELECT {child.name}.{shown.name} FROM {link.tables}"
    return Draft(
        f"{everything} WHERE {test.of(parent.name)}",
        (
            f"List the {shown.plural} of the {child.many} {link.words} {parent.many} {test.short}.",
            f"What are the {shown.plural} of {child.many} {link.words} {parent.many} {test.whose}?",
            f"Show the {shown.noun} of every {child.one} {link.words} {parent.many} {test.short}.",
        ),
        (everything,),
    )


def _count_by_parent(c: Chooser) -> Draft:
    link = c.link(parent="label")
    child, parent = link.child, link.parent
    test = c.condition(parent, "label")
    everything = f"SELECT COUNT(*) FROM {link.tables}"
    return Draft(
        f"{everything} WHERE {test.of(parent.name)}",
        (
            f"How many {child.many} {link.words} the {parent.one} {test.short} are there?",
            f"Count the {child.many} {link.words} the {parent.one} {test.whose}.",
            f"What is the number of {child.many} {link.words} the {parent.one} {test.short}?",
        ),
        (everything,),
    )


def _count_per_parent(c: Chooser) -> Draft:
    link = c.link(parent="label")
    child, parent = link.child, link.parent
    label, noun = f"{parent.name}.{parent.label.name}", parent.label.noun
    count = f"{parent.its} number of {child.many}"
    return Draft(
        f"SELECT {label}, COUNT(*) FROM {link.tables} GROUP BY {label}",
        (
            f"For every {parent.one} that has {child.many}, show the {noun} and the number of {child.many}.",
            f"Show the {noun} of each {parent.one} with at least one {child.one}, and {count}.",
        ),
    )


def _aggregate_per_parent(c: Chooser) -> Draft:
    link = c.link(child="number", parent="category")
    child, parent = link.child, link.parent
    group, number = c.column(parent, "category"), c.column(child, "number")
    function, word, other = c.aggregate(number)
    return Draft(
        f"SELECT {parent.name}.{group.name}, {function}({child.name}.{number.name}) FROM {link.tables} "
        f"GROUP BY {parent.name}.{group.name}",
        (
            f"What is the {word} {number.noun} of the {child.many} for each {parent.one} {group.noun}?",
            f"Show each {group.noun} of the {parent.many} and the {word} {number.noun} of their {child.many}.",
            f"Give the {other} {number.noun} of {child.many} by the {group.noun} of the {parent.one}.",
        ),
    )


def _busiest_parent(c: Chooser) -> Draft:
    link = c.link(parent="label")
    child, parent = link.child, link.parent
    label = f"{parent.name}.{parent.label.name}"
    return Draft(
        f"SELECT {label} FROM {link.tables} GROUP BY {label} ORDER BY COUNT(*) DESC LIMIT 1",
        (
            f"What is the {parent.label.noun} of the {parent.one} with the most {child.many}?",
            f"Which {parent.one} has the most {child.many}? Show the {parent.label.noun}.",
            f"Show the {parent.label.noun} of the {parent.one} that has the largest number of {child.many}.",
        ),
    )


PATTERNS = (
    Pattern("join", 1, _pair_up),
    Pattern("join", 1, _pair_up_filtered),
    Pattern("join", 3, _filter_by_parent),
    Pattern("join", 1, _count_by_parent),
    Pattern("join_group", 1, _count_per_parent),
    Pattern("join_group", 1, _aggregate_per_parent),
    Pattern("join_group", 1, _busiest_parent),
)
