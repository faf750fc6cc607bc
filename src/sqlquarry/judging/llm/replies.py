"""Parse the replies of judges, which must contain one verdict in the required form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from sqlquarry.judging.llm.rubric import NO_MISTAKE, Rubric


class Opinion(NamedTuple):
    """A readable reply of a judge.

    Args:
        score: the score of the verdict, 0 to 100.
        reason: the judge's explanation.
        mistake: a mistake of the rubric, or None.
    """

    score: float
    reason: str
    mistake: str | None


def read_json(text: str, rubric: Rubric) -> Opinion | None:
    """Return the opinion if the reply is exactly one JSON object of the rubric's schema, otherwise None."""
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):  # the token limit bounds the length of a reply
        return None
    if not isinstance(content, dict) or content.keys() != rubric.fields.keys():
        return None
    return _opinion(content, rubric)


def read_tags(text: str, rubric: Rubric, code: str) -> Opinion | None:
    """Return the opinion if the reply ends with its only verdict tag with the prompt's code, otherwise None.

    Tags without the code are ignored, because they are quotations, for example from the candidate.
    """
    ends = re.search(rf"<verdict-{code}>([^<>]*)</verdict-{code}>\s*\Z", text)
    if ends is None or len(re.findall(rf"verdict-{code}", text, re.IGNORECASE)) != 2:
        return None
    content = {"verdict": ends[1].strip()}
    for name in ("reason", "mistake"):
        found = re.findall(rf"<{name}-{code}>(.*?)</{name}-{code}>", text, re.DOTALL)
        # A verdict without a reason is still valid.
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
        return None  # the reply contradicts itself
    return Opinion(score, reason, None if mistake == NO_MISTAKE else mistake)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("duplicate key")
    return content
