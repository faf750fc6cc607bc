"""Judges whose replies a test scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from sqlquarry.answers import Generation
from sqlquarry.judging.llm import LLMGrader, Rubric
from sqlquarry.records import Record

RECORD = Record("How many?", "CREATE TABLE t (a)", "SELECT COUNT(*) FROM t")
RIGHT, WRONG = "SELECT COUNT(a) FROM t", "SELECT a FROM t"
GRADED = Rubric("graded", "Give a score from 0 to 100.", {score: score for score in range(101)}, passing_score=90)


def graded(judge: Any, **options: Any) -> LLMGrader:
    return LLMGrader(judge, rubric=GRADED, **options)


def candidate_in(prompt: str) -> str:
    found = re.search(r"<candidate-(\w+)>\n(.*)\n</candidate-\1>", prompt, re.DOTALL)
    assert found
    return found[2]


def tags(prompt: str, verdict: object, reason: str = "because") -> str:
    code = re.findall(r"<verdict-(\w+)>", prompt)[-1]  # the instructions are at the end
    return f"Hm.\n<reason-{code}>{reason}</reason-{code}>\n<verdict-{code}>{verdict}</verdict-{code}>\n"


def honest(prompt: str) -> str:
    return tags(prompt, 100 if "COUNT" in candidate_in(prompt) else 20)


class Scripted:
    """A judge that answers with tags and remembers every batch of prompts."""

    def __init__(self, reply: Callable[[str], str | Exception] = honest, model_id: str = "scripted") -> None:
        self.reply, self.model_id, self.batches = reply, model_id, list[list[str]]()

    @property
    def prompts(self) -> list[str]:
        return [prompt for batch in self.batches for prompt in batch]

    def generate(self, inputs: Sequence[Record] | Sequence[str], /) -> list[Generation]:
        self.batches.append([str(prompt) for prompt in inputs])
        return [self._answer(str(prompt)) for prompt in inputs]

    def _answer(self, prompt: str) -> Generation:
        reply = self.reply(prompt)
        if isinstance(reply, Exception):
            raise reply
        return Generation(reply, prompt_tokens=100, completion_tokens=10)


class Structured:
    """A judge that answers with JSON."""

    def __init__(self, reply: Callable[[str], Any]) -> None:
        self.reply, self.asked = reply, list[tuple[Sequence[str], Any, str]]()

    def generate_json(self, prompts: Sequence[str], schema: Any, /, *, system: str = "") -> list[Generation]:
        self.asked.append((prompts, schema, system))
        replies = [self.reply(prompt) for prompt in prompts]
        return [Generation(reply if isinstance(reply, str) else json.dumps(reply)) for reply in replies]
