"""Ask a judge model in batches, count its tokens, and give up only after several failures in a row."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from sqlquarry.answers import Generation, TextGenerator
from sqlquarry.errors import ConfigError, JudgeFailedError, JudgingError, MissingExtraError
from sqlquarry.judging.llm.forms import StructuredGenerator, form
from sqlquarry.judging.llm.prompt_rubric import PromptRubric
from sqlquarry.judging.llm.prompts import Question
from sqlquarry.judging.llm.replies import Opinion
from sqlquarry.judging.llm.rubric import Rubric

Reply = Opinion | str  # an opinion, or the reason why there is none
UNREADABLE = "unreadable reply"
_FAILURES_IN_A_ROW = 5


@dataclass(frozen=True, slots=True)
class JudgeUsage:
    """The usage of judges so far.

    Args:
        requests: number of received answers.
        prompt_tokens: number of tokens read.
        completion_tokens: number of tokens written.
        unmetered: number of answers whose tokens the service did not report. They are missing from both sums.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unmetered: int = 0

    def __add__(self, other: JudgeUsage) -> JudgeUsage:
        return JudgeUsage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.unmetered + other.unmetered,
        )

    def usd(self, usd_per_million_tokens: Sequence[float]) -> float:
        """Return US dollars at a pair of prices per million tokens read and written."""
        read, written = usd_per_million_tokens
        return (self.prompt_tokens * read + self.completion_tokens * written) / 1e6


class JudgeModel:
    """A model that judges by a rubric, with its usage.

    Args:
        generator: the model.
        rubric: decides in which form the model is asked and answers (see `form`).

    Raises:
        JudgingError: the generator lacks the method that the rubric needs.
    """

    def __init__(self, generator: TextGenerator | StructuredGenerator, rubric: Rubric | PromptRubric) -> None:
        self._generate, self._opinion = form(generator, rubric)
        self.model = str(getattr(generator, "model_id", type(generator).__name__))
        self.fingerprint: str | None = getattr(generator, "fingerprint", None)
        self.usage = JudgeUsage()
        self._counting, self._failed_in_a_row = threading.Lock(), 0
        # A Bedrock batch job has a minimum size, so a few of its prompts cannot be asked again.
        self._divisible = getattr(generator, "min_records", 1) == 1

    def ask(self, questions: Sequence[Question], outcomes: list[Reply | None]) -> None:
        """Fill `outcomes` with an opinion for each question, or the reason why there is none.

        Questions with unreadable replies are asked once more, except in batch jobs.

        Raises:
            JudgeFailedError: the model failed five times in a row. `outcomes` has the outcomes so far.
            ConfigError, MissingExtraError: the generator cannot work at all.
        """
        if not questions:
            return
        self._fill(questions, list(range(len(questions))), outcomes)
        unreadable = [place for place, outcome in enumerate(outcomes) if outcome == UNREADABLE]
        if unreadable and self._divisible:
            self._fill(questions, unreadable, outcomes)

    def _fill(self, questions: Sequence[Question], places: list[int], outcomes: list[Reply | None]) -> None:
        answers, failure = self._answers([questions[place] for place in places])
        missing = []
        for place, answer in zip(places, answers, strict=True):
            if answer is None:
                missing.append(place)
            else:
                outcomes[place] = self._read(answer, questions[place])
        if len(missing) < len(places):
            self._failed_in_a_row = 0
        if len(missing) > 1 and self._divisible:
            # A single refused prompt must not prevent the answers to the others.
            for part in (missing[: len(missing) // 2], missing[len(missing) // 2 :]):
                self._fill(questions, part, outcomes)
            return
        for place in missing:
            outcomes[place] = f"the judge failed: {_kind(failure)}"
        if len(missing) == len(places):
            self._failed_in_a_row += len(missing)
        if self._failed_in_a_row >= _FAILURES_IN_A_ROW:
            raise JudgeFailedError(
                f"{self.model} failed {self._failed_in_a_row} times in a row, last with {_kind(failure)}. The "
                "attribute `partial` of this error has the finished judgements. Correct the cause and judge again."
            ) from failure

    def _answers(self, questions: Sequence[Question]) -> tuple[Sequence[Generation | None], Exception | None]:
        """Return an answer for each question, or None if it failed, and the reason for the failure."""
        failure: Exception | None = None
        answers: Sequence[Generation | None]
        try:
            answers = self._generate(questions)
        except (ConfigError, MissingExtraError):
            raise
        except Exception as error:  # noqa: BLE001 - after any error of a client, the other records are judged
            answers, failure = list(getattr(error, "partial", ())) or [None] * len(questions), error
        if len(answers) != len(questions):
            raise JudgingError(
                f"{self.model} returned {len(answers)} answers for {len(questions)} prompts. "
                "It must return one per prompt."
            )
        return answers, failure

    def _read(self, answer: Generation, question: Question) -> Reply:
        metered = answer.prompt_tokens is not None or answer.completion_tokens is not None
        with self._counting:
            self.usage += JudgeUsage(1, answer.prompt_tokens or 0, answer.completion_tokens or 0, not metered)
        return self._opinion(answer.text, question) or UNREADABLE


def _kind(error: Exception | None) -> str:
    """Return the class of an error, and its AWS code if it has one. Its text could contain a secret."""
    response = getattr(getattr(error, "__cause__", None), "response", None) or {}
    code = response.get("Error", {}).get("Code")
    return type(error).__name__ + (f" ({code})" if code else "")
