"""Fill a collector with questions from templates."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict

from sqlquarry.data.proposals.asked import AskedDatabase
from sqlquarry.data.proposals.checking import level_of
from sqlquarry.data.proposals.chooser import Chooser, DeadEndError, Draft, Template
from sqlquarry.data.proposals.collecting import LEVELS, Collector
from sqlquarry.data.proposals.dice import Dice
from sqlquarry.data.proposals.templates import TEMPLATES

_ATTEMPTS = 400  # without a record, after which a level counts as impossible
_FIRST_ATTEMPTS = 8  # drafts of a template that show its levels
_ATTEMPTS_PER_RECORD = 20  # as many attempts make a template as unattractive as one record
_AHEAD = 2  # records that a level may have more than the wanted one
_OPENINGS = (
    "Show",
    "Show",
    "List",
    "Give",
    "Find",
    "Return",
    "Display",
    "Show me",
    "Give me",
    "I want to see",
    "Report",
)
_OPENING = re.compile(r"(?:Show|List|Give|Find)(?= (?:the|every|each|all)\b)")


def fill(collector: Collector, asked: AskedDatabase, *, wanted: int, seed: int, deadline: float) -> None:
    """Add records from templates until there are `wanted`, or until nothing new is found.

    Each level of hardness gets the same number of records if the tables allow it.

    Args:
        collector: keeps the records.
        asked: the tables.
        wanted: number of records in the collector at the end.
        seed: seed of all choices.
        deadline: the time of `time.monotonic` at which the search ends.
    """
    dice = Dice(f"proposals {seed}")
    chooser = Chooser(asked, dice)
    choice = _TemplateChoice()
    failures: Counter[str] = Counter()
    levels = list(LEVELS)
    while len(collector.records) < wanted and levels and time.monotonic() < deadline:
        level = min(levels, key=lambda one: collector.by_level[one])
        failures[level] += 1
        if failures[level] > _ATTEMPTS:
            levels.remove(level)
        template = choice.template(level)
        draft = _draft(template, chooser)
        if draft is None:
            continue
        found = level_of(draft.sql, asked.dialect)
        choice.levels[template.name][found] += 1
        if found not in levels or collector.by_level[found] > collector.by_level[level] + _AHEAD:
            continue
        if collector.offer(_phrased(draft, dice), draft.sql, template.name, weaker=draft.weaker):
            chooser.keep()
            choice.kept[template.name, found] += 1
            failures[found] = 0


class _TemplateChoice:
    """The next template for a level, which is the one with the fewest records and attempts."""

    def __init__(self) -> None:
        self.kept: Counter[tuple[str, str]] = Counter()
        self.levels: dict[str, Counter[str]] = defaultdict(Counter)
        self._attempts: Counter[tuple[str, str]] = Counter()

    def template(self, level: str) -> Template:
        known = [
            template
            for template in TEMPLATES
            if self.levels[template.name][level] or self._attempts[template.name, level] < _FIRST_ATTEMPTS
        ]
        chosen = min(known or TEMPLATES, key=lambda one: self._weight(one.name, level))
        self._attempts[chosen.name, level] += 1
        return chosen

    def _weight(self, name: str, level: str) -> float:
        return self.kept[name, level] + self._attempts[name, level] / _ATTEMPTS_PER_RECORD


def _draft(template: Template, chooser: Chooser) -> Draft | None:
    chooser.begin()
    try:
        return template.draft(chooser)
    except DeadEndError:
        return None


def _phrased(draft: Draft, dice: Dice) -> str:
    """Return one of the questions, with one of several verbs if it is an imperative."""
    question = _OPENING.sub(lambda _: dice.pick(_OPENINGS), dice.pick(draft.questions), count=1)
    return question[0].upper() + question[1:]
