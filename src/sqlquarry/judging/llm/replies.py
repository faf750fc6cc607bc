"""Read what a judge answered: one verdict in the one right form, or nothing that counts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from sqlquarry.judging.llm.rubric import NO_MISTAKE, Rubric


class Opinion(NamedTuple):
    """Hold one readable answer.

    Args:
        score: 0 to 100, of the verdict by the rubric.
        reason: the judge's own words.
        mistake: one of the rubric's, or None.
    """

    score: int
    reason: str
    mistake: str | None


def read_json(text: str, rubric: Rubric) -> Opinion | None:
    """Return the opinion in a reply that is one JSON object of the rubric's schema and nothing else; None otherwise."""
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):  # the length of a reply is bounded by the tokens asked for
        return None
    if not isinstance(content, dict) or content.keys() != rubric.fields.keys():
        return None
    return _opinion(content, rubric)


def read_tags(text: str, rubric: Rubric, code: str) -> Opinion | None:
    """Return the opinion in a reply that ends in the only verdict tag with the prompt's code; None otherwise.

    Tags without the code are a quotation, of the candidate for example, and count for nothing.
    """
    ends = re.search(rf"<verdict-{code}>([^<>]*)</verdict-{code}>\s*\Z", text)
    if ends is None or len(re.findall(rf"verdict-{code}", text, re.IGNORECASE)) != 2:
        return None
    content = {"verdict": ends[1].strip()}
    for name in ("reason", "mistake"):
        found = re.findall(rf"<{name}-{code}>(.*?)</{name}-{code}>", text, re.DOTALL)
        # A verdict without its reason still is one.
        content[name] = found[0].strip() if len(found) == 1 else ""
    if rubric.mistakes and not content["mistake"]:
        content["mistake"] = NO_MISTAKE if (rubric.score(content["verdict"]) or 0) >= rubric.passing_score else "other"
    return _opinion(content, rubric)


def _opinion(content: Mapping[str, object], rubric: Rubric) -> Opinion | None:
    score, reason, mistake = rubric.score(content["verdict"]), content["reason"], content.get("mistake") or NO_MISTAKE
    if score is None or not isinstance(reason, str) or not isinstance(mistake, str):
        return None
    if mistake not in (NO_MISTAKE, *rubric.mistakes):
        return None
    if score >= rubric.passing_score and mistake != NO_MISTAKE:
        return None  # it contradicts itself
    return Opinion(score, reason, None if mistake == NO_MISTAKE else mistake)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key is there twice")
    return content
