"""One model that judges: asked in batches, counted, and given up only when it fails again and again."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlquarry.artifacts import Generation, TextGenerator
from sqlquarry.errors import ConfigError, JudgeFailedError, JudgingError, MissingExtraError
from sqlquarry.judging.llm.prompts import Question, tag_instructions
from sqlquarry.judging.llm.replies import Opinion, read_json, read_tags
from sqlquarry.judging.llm.rubric import Rubric

UNREADABLE = "unreadable reply"
_FAILURES_IN_A_ROW = 5


class StructuredGenerator(Protocol):
    """Anything that answers prompts with JSON of a given schema, such as `FoundationModel`."""

    def generate_json(self, prompts: Sequence[str], schema: dict[str, Any], /, *, system: str = "") -> list[Generation]:
        """Answer each prompt, in order; each text is a JSON object of `schema`, `system` goes before all of them."""
        ...


@dataclass(frozen=True, slots=True)
class JudgeUsage:
    """What judging used so far.

    Args:
        requests: answers received.
        prompt_tokens: tokens read.
        completion_tokens: tokens written.
        unmetered: answers whose tokens the service did not say; they are in none of the sums.
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

    def usd(self, price_per_million_tokens: tuple[float, float]) -> float:
        """US dollars at a price per million tokens read and per million written."""
        read, written = price_per_million_tokens
        return (self.prompt_tokens * read + self.completion_tokens * written) / 1e6


class Judge:
    """One model, one rubric, and what it used.

    Args:
        generator: with structured output where it has `generate_json`, else with tags.
        rubric: what is asked.

    Raises:
        JudgingError: the generator has neither method.
    """

    def __init__(self, generator: TextGenerator | StructuredGenerator, rubric: Rubric) -> None:
        if not hasattr(generator, "generate_json") and not hasattr(generator, "generate"):
            raise JudgingError(
                f"a judge must have generate or generate_json, but {type(generator).__name__} has neither. Give a "
                "Bedrock model id, or an object such as FoundationModel or LocalModel."
            )
        self._generator: Any = generator
        self._rubric = rubric
        self.model = str(getattr(generator, "model_id", type(generator).__name__))
        self.fingerprint: str | None = getattr(generator, "fingerprint", None)
        self.usage = JudgeUsage()
        self._counting, self._failed_in_a_row = threading.Lock(), 0
        # Bedrock's batch jobs take no small batches, and none of their failures goes away in a part of it.
        self._divisible = getattr(generator, "minimum_records", 1) == 1

    def ask(self, questions: Sequence[Question], outcomes: list[Opinion | str | None]) -> None:
        """Fill `outcomes`, one for each question: an opinion, or why there is none; what cannot be read is asked again.

        Raises:
            JudgeFailedError: the model failed too often in a row; `outcomes` keeps what came before.
            ConfigError, MissingExtraError: the generator cannot work at all.
        """
        if not questions:
            return
        self._fill(questions, list(range(len(questions))), outcomes)
        unreadable = [place for place, outcome in enumerate(outcomes) if outcome == UNREADABLE]
        if unreadable and self._divisible:
            self._fill(questions, unreadable, outcomes)

    def _fill(self, questions: Sequence[Question], places: list[int], outcomes: list[Opinion | str | None]) -> None:
        failure: Exception | None = None
        try:
            answers = self._generate([questions[place] for place in places])
        except (ConfigError, MissingExtraError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a client raises, the other records are judged
            answers, failure = list(getattr(error, "partial", ())) or [None] * len(places), error
        if len(answers) != len(places):
            raise JudgingError(f"{self.model} gave {len(answers)} answers to {len(places)} prompts")
        for place, answer in zip(places, answers, strict=True):
            if answer is not None:
                outcomes[place] = self._read(answer, questions[place])
        missing = [place for place, answer in zip(places, answers, strict=True) if answer is None]
        if len(missing) < len(places):
            self._failed_in_a_row = 0
        if len(missing) > 1 and self._divisible:
            # One prompt that is refused must not cost the others their answers.
            for part in (missing[: len(missing) // 2], missing[len(missing) // 2 :]):
                self._fill(questions, part, outcomes)
            return
        reason = f"the judge failed: {_kind(failure)}"
        for place in missing:
            outcomes[place] = reason
        if len(missing) == len(places):
            self._failed_in_a_row += len(missing)
        if self._failed_in_a_row >= _FAILURES_IN_A_ROW:
            raise JudgeFailedError(
                f"{self.model} failed {self._failed_in_a_row} times in a row, last with {_kind(failure)}. Finished "
                "judgements are kept in the attribute `partial` of this error; put right what is wrong and judge again."
            ) from failure

    def _generate(self, questions: Sequence[Question]) -> list[Generation | None]:
        rubric = self._rubric
        if hasattr(self._generator, "generate_json"):
            texts = [question.text for question in questions]
            return list(self._generator.generate_json(texts, rubric.schema, system=rubric.instructions))
        prompts = [
            f"{rubric.instructions}\n\n{question.text}\n\n{tag_instructions(rubric, question.code)}"
            for question in questions
        ]
        return list(self._generator.generate(prompts))

    def _read(self, answer: Generation, question: Question) -> Opinion | str:
        metered = answer.prompt_tokens is not None or answer.completion_tokens is not None
        with self._counting:
            self.usage += JudgeUsage(1, answer.prompt_tokens or 0, answer.completion_tokens or 0, not metered)
        if hasattr(self._generator, "generate_json"):
            return read_json(answer.text, self._rubric) or UNREADABLE
        return read_tags(answer.text, self._rubric, question.code) or UNREADABLE


def _kind(error: Exception | None) -> str:
    """The error's class, and AWS's code where it has one; its text might hold a secret of the client's."""
    response = getattr(getattr(error, "__cause__", None), "response", None) or {}
    code = response.get("Error", {}).get("Code")
    return type(error).__name__ + (f" ({code})" if code else "")
