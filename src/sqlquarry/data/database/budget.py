"""Keep the tables and columns that matter for a question, if the text of a schema has too many tokens."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from sqlquarry.data.database.tables import DatabaseTable
from sqlquarry.data.database.value_index import MatchedValue
from sqlquarry.data.database.words import STOP_WORDS, name_stems, words
from sqlquarry.tokenizing.tokenizer import Tokenizer

Place = tuple[str, str]  # table and column
# The weights were chosen with questions of Spider (benchmarks/schema_budget.py).
_SAME, _CONTAINED, _SHORTENED = 1.0, 0.7, 0.5  # how well a word of a name matches a word of the question
_SHORTEST_WORD = 3  # characters that may match a part of a longer word
_OF_TABLE = 0.5  # weight of the table's score in the score of its columns
_BOTH = 0.5  # weight of a column and table that are both mentioned, as in "names of teachers"
_OF_COMMENT = 0.3  # weight of a comment, which has many words
_MATCHED_VALUE = 3.0  # more than any name
_PRIMARY_KEY = 0.3
_TRIES = 20  # of later columns that may still fit
_CHARACTERS = 3.0  # of a token in CREATE TABLE text, rather too few than too many
_NAME_COLUMN = 0.25  # questions ask for things, and answers name them
# Stop words that names of columns have, too.
_ALSO_NAMES = {"name", "number", "total", "order"}
# Words of questions -> words in the names of the columns that answer them.
_ASKED_BY = {
    **dict.fromkeys(("old", "older", "oldest", "young", "younger", "youngest"), "age birth year date"),
    **dict.fromkeys(("when", "earliest", "latest", "recent"), "date time year day"),
    **dict.fromkeys(("where", "from"), "location city country state address"),
    **dict.fromkeys(("weigh", "heavy", "heavier", "heaviest"), "weight"),
    **dict.fromkeys(("tall", "taller", "tallest", "short", "shorter", "shortest"), "height length"),
    **dict.fromkeys(("male", "female", "gender", "sex"), "gender sex"),
    **dict.fromkeys(("cost", "expensive", "cheap", "cheapest", "paid"), "price cost amount"),
    **dict.fromkeys(("long", "longer", "longest"), "length duration"),
    **dict.fromkeys(("much", "many"), "amount number"),
    "who": "name",
}
_YEAR = re.compile(r"(?:19|20)\d\d")
_NAMES = {"name", "title", "id", "description"}


def token_counter(tokenizer: Tokenizer | None) -> Callable[[str], int]:
    """Return the function that counts tokens, or estimates them without a tokenizer."""
    if tokenizer is None:
        return lambda text: math.ceil(len(text) / _CHARACTERS)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def within_budget(
    tables: Sequence[DatabaseTable],
    question: str,
    matches: Iterable[MatchedValue],
    size: Callable[[Sequence[DatabaseTable]], int],
    max_tokens: int,
) -> list[DatabaseTable]:
    """Return the tables with the columns that fit, in their own order.

    The best columns come first, by the words of their names, of their comments and of their tables' names, and by the
    values that the question mentions. The keys between two kept tables come with them, also through other tables.

    Args:
        tables: all tables.
        question: the question.
        matches: the values that the question mentions.
        size: returns the number of tokens of the text of some tables.
        max_tokens: the maximum of tokens.
    """
    if size(tables) <= max_tokens:
        return list(tables)
    tables = _shortened(tables)
    if size(tables) <= max_tokens:
        return tables
    order = _ordered(tables, _scores(tables, question, matches))
    # The text grows with each column, so the longest beginning of the order that fits is found by bisection.
    fits, exceeds = 0, len(order) + 1
    while exceeds - fits > 1:
        middle = (fits + exceeds) // 2
        if size(_kept(tables, order[:middle])) <= max_tokens:
            fits = middle
        else:
            exceeds = middle
    chosen = order[:fits]
    for place in order[fits + 1 : fits + 1 + _TRIES]:  # a shorter one may still fit
        if size(_kept(tables, [*chosen, place])) <= max_tokens:
            chosen.append(place)
    return _kept(tables, chosen)


def _shortened(tables: Sequence[DatabaseTable]) -> list[DatabaseTable]:
    """Return the tables without types, keys of several columns, and targets that are a primary key.

    These cost the most tokens for what they tell.
    """
    keys = {table.full_name: table.primary_key for table in tables}
    return [
        replace(
            table,
            columns=tuple(replace(column, type="") for column in table.columns),
            primary_key=table.primary_key if len(table.primary_key) == 1 else (),
            foreign_keys=tuple(
                replace(key, targets=()) if key.targets == keys.get(key.table) and len(key.targets) == 1 else key
                for key in table.foreign_keys
            ),
        )
        for table in tables
    ]


def _kept(tables: Iterable[DatabaseTable], places: Collection[Place]) -> list[DatabaseTable]:
    """Return the tables with the columns at some places. Keys of columns that are left out are left out, too."""
    chosen = set(places)
    columns = {
        table.full_name: {column.name for column in table.columns if (table.full_name, column.name) in chosen}
        for table in tables
    }
    primary = {table.full_name: table.primary_key for table in tables}
    return [
        replace(
            table,
            columns=tuple(column for column in table.columns if column.name in names),
            primary_key=table.primary_key if names.issuperset(table.primary_key) else (),
            foreign_keys=tuple(
                key
                for key in table.foreign_keys
                if names.issuperset(key.columns)
                and columns.get(key.table)
                and columns[key.table].issuperset(key.targets or primary[key.table])
            ),
        )
        for table in tables
        if (names := columns[table.full_name])
    ]


def _ordered(tables: Sequence[DatabaseTable], scores: Mapping[Place, float]) -> list[Place]:
    """Return all columns, the best first. Columns of keys follow as soon as both of their tables are kept."""
    by_name = {table.full_name: table for table in tables}
    links = _links(tables)
    order: dict[Place, None] = {}
    kept: list[str] = []
    for place in sorted(scores, key=lambda one: -scores[one]):  # equal scores stay in the order of the schema
        if place[0] not in kept:
            for table in [*_path(place[0], kept, links), place[0]]:
                if table in kept:
                    continue
                key = by_name[table].primary_key
                places = [(table, key[0])] if len(key) == 1 else []
                places += [one for other in kept for one in links.get(table, {}).get(other, ())]
                order |= {one: None for one in places if one in scores}
                kept.append(table)
        order[place] = None
    return list(order)


def _links(tables: Sequence[DatabaseTable]) -> dict[str, dict[str, list[Place]]]:
    """Return the columns of the keys between two tables, in both directions."""
    links: dict[str, dict[str, list[Place]]] = {}
    primary = {table.full_name: table.primary_key for table in tables}
    for table in tables:
        for key in table.foreign_keys:
            targets = key.targets or primary.get(key.table, ())
            places = [(table.full_name, name) for name in key.columns] + [(key.table, name) for name in targets]
            for one, other in ((table.full_name, key.table), (key.table, table.full_name)):
                links.setdefault(one, {}).setdefault(other, []).extend(places)
    return links


def _path(start: str, ends: Collection[str], links: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Return the tables between one table and the nearest kept one, or [] if they are not connected."""
    before: dict[str, str] = {start: ""}
    waiting = deque([start])
    while waiting:
        table = waiting.popleft()
        if table in ends:
            path = []
            while (table := before[table]) and table != start:
                path.append(table)
            return path
        for other in links.get(table, ()):
            if other not in before:
                before[other] = table
                waiting.append(other)
    return []


def _scores(tables: Iterable[DatabaseTable], question: str, matches: Iterable[MatchedValue]) -> dict[Place, float]:
    asked = {word.stem for word in words(question)}
    asked |= {name for word in asked for name in _ASKED_BY.get(word, "").split()}
    asked |= {"year", "date"} if any(map(_YEAR.fullmatch, asked)) else set()
    asked -= STOP_WORDS - _ALSO_NAMES
    tables = list(tables)
    named = {(table.full_name, one.name): name_stems(one.name) for table in tables for one in table.columns}
    # A word that many columns have tells little: the inverse document frequency of Spärck Jones (1972).
    counts: dict[str, int] = {}
    for stems in named.values():
        for stem in set(stems):
            counts[stem] = counts.get(stem, 0) + 1

    def score(stems: Collection[str]) -> float:
        """Return a number from 0 to about 2: the mean over the words of how well and how rarely they match."""
        weights = {stem: math.log(1 + len(named) / counts.get(stem, 1)) for stem in stems}
        best = {stem: max((_likeness(stem, word) for word in asked), default=0.0) for stem in weights}
        total = sum(weights.values())
        return (1 + total / (1 + total)) * sum(weights[one] * best[one] for one in best) / total if total else 0.0

    found: dict[Place, float] = {}
    for table in tables:
        of_words = name_stems(table.name)
        of_table = score(of_words) + _OF_COMMENT * score(name_stems(table.comment))
        for column in table.columns:
            place = table.full_name, column.name
            # concert_name in the table concert is as good as name.
            own = score([stem for stem in named[place] if stem not in of_words] or named[place]) + _OF_COMMENT * score(
                name_stems(column.comment)
            )
            own += _BOTH * own * of_table
            # A table is kept by its key, also if no column of it is mentioned.
            stands_for_table = column.name in (table.primary_key or (table.columns[0].name,))
            own += (_PRIMARY_KEY + of_table) * stands_for_table
            own += _NAME_COLUMN * bool(_NAMES & {*named[place]})
            found[place] = own + _OF_TABLE * of_table
    for match in matches:
        if (match.table, match.column) in found:
            found[match.table, match.column] += _MATCHED_VALUE
    return found


def _likeness(name: str, asked: str) -> float:
    """Return from 0 to 1 how well a word of a name matches a word of a question."""
    if name == asked:
        return _SAME
    shorter, longer = sorted((name, asked), key=len)
    if len(shorter) < _SHORTEST_WORD and shorter.isascii():
        return 0.0
    if longer.startswith(shorter) or (len(shorter) > _SHORTEST_WORD and shorter in longer):
        return _CONTAINED
    signs = iter(asked)
    is_shortened = name[0] == asked[0] and len(name) < len(asked) and all(sign in signs for sign in name)
    return _SHORTENED if is_shortened else 0.0
