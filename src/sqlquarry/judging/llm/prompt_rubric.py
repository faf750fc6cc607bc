"""A rubric with its own prompt, whose judge answers with a score between tags, such as the published workflow's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sqlquarry.errors import ConfigError
from sqlquarry.judging.llm.prompts import Question
from sqlquarry.judging.llm.replies import Opinion
from sqlquarry.options import check_options, did_you_mean
from sqlquarry.records import Record, noted_question

_PLACEHOLDERS = ("question", "schema", "dialect", "gold", "candidate")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")


@check_options()
@dataclass(frozen=True, slots=True)
class PromptRubric:
    """A prompt of your own for a judge, which answers with a score from 0 to 100.

    The prompt is sent as it is written, and the record and the candidate are inserted unchanged. So comments in a
    candidate can address the judge. `Rubric` prevents that.

    Args:
        name: the rubric's name in reports.
        prompt: the complete prompt. It must contain ``{candidate}``, and ``{question}``, ``{schema}``, ``{dialect}``
            and ``{gold}`` (`Record.sql`) are replaced, too. The record's notes follow the question in parentheses.
            Other braces are plain text.
        passing_score: the lowest score that counts as correct.
        score_tag: name of the tag around the score in the answer. The prompt must ask for it.

    Raises:
        ConfigError: a placeholder is missing or unknown, the prompt does not contain the tag, or the passing score is
            not above 0 and at most 100.
    """

    name: str
    prompt: str
    passing_score: float = 90
    score_tag: str = "SCORE"

    is_graded = True  # a score can differ from 0 and 100

    def __post_init__(self) -> None:
        if bad := list(self._problems()):
            raise ConfigError(f"PromptRubric {self.name!r}: " + "; ".join(bad))

    def question(self, record: Record, candidate: str) -> Question:
        """Return the prompt about a candidate for the gold SQL of a record."""
        parts = (noted_question(record), record.schema, record.dialect, record.sql or "", candidate)
        values = dict(zip(_PLACEHOLDERS, parts, strict=True))
        # One pass only, so that text in a candidate that looks like a placeholder is not replaced.
        return Question(_PLACEHOLDER.sub(lambda found: values[found[1]], self.prompt), code="")

    def read(self, reply: str) -> Opinion | None:
        """Return the opinion if the reply contains exactly one score from 0 to 100 between tags, otherwise None.

        The score is what Python's `float` accepts, so it may have a fraction. The reason is the complete reply.
        """
        tag = re.escape(self.score_tag)
        found = re.search(rf"<{tag}>([^<>]*)</{tag}>", reply)
        # A second tag may be a quotation from the candidate, so it is unknown which one is the judge's.
        if found is None or len(re.findall(rf"</?\s*{tag}\b", reply, re.IGNORECASE)) != 2:
            return None
        try:
            score = float(found[1])
        except ValueError:
            return None
        return Opinion(score, reply.strip(), None) if 0 <= score <= 100 else None

    def _problems(self) -> Iterator[str]:
        named = set(_PLACEHOLDER.findall(self.prompt))
        if "candidate" not in named:
            yield f"prompt must contain {{candidate}}, but is {self.prompt!r:.80}"
        for unknown in sorted(named - {*_PLACEHOLDERS}):
            known = [f"{{{name}}}" for name in _PLACEHOLDERS]
            meant = did_you_mean(f"{{{unknown}}}", known) or f"; use {', '.join(known)}"
            yield f"prompt has the unknown placeholder {{{unknown}}}{meant}"
        if not re.fullmatch(r"[A-Za-z]\w*", self.score_tag):
            yield f"score_tag is {self.score_tag!r}, but it must be a name of letters, digits and underscores"
        elif f"<{self.score_tag}>" not in self.prompt:
            yield f"score_tag is {self.score_tag!r}, but the prompt does not contain <{self.score_tag}>"
        if not 0 < self.passing_score <= 100:
            yield f"passing_score is {self.passing_score}, but it must be above 0 and at most 100"


PUBLISHED = PromptRubric(
    "published",
    "You are a data science teacher that is introducing students to SQL. "
    "Consider the following question and schema:\n"
    "<question>{question}</question>\n"
    "<schema>{schema}</schema>\n"
    "    \n"
    "Here is the correct answer:\n"
    "<correct_answer>{gold}</correct_answer>\n"
    "    \n"
    "Here is the student's answer:\n"
    "<student_answer>{candidate}<student_answer>\n"
    "\n"
    "Please provide a numeric score from 0 to 100 on how well the student's answer matches the correct answer for "
    "this question.\n"
    "The score should be high if the answers say essentially the same thing.\n"
    "The score should be lower if some parts are missing, or if extra unnecessary parts have been included.\n"
    "The score should be 0 for an entirely wrong answer. Put the score in <SCORE> XML tags.\n"
    "Do not consider your own answer to the question, but instead score based only on the correct answer above.\n",
)
"""The judge prompt of the published workflow, unchanged, with its tag that is not closed.

Source: AWS notebook "customized-text-to-sql-model" (aws-samples/amazon-bedrock-samples, commit 3ba3170, MIT-0).
"""
