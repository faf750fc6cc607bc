"""The forms in which a judge is asked and answers: JSON, tags with a code, or a rubric's own prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeGuard

from sqlquarry.answers import Generation, TextGenerator
from sqlquarry.errors import JudgingError
from sqlquarry.judging.llm.prompt_rubric import PromptRubric
from sqlquarry.judging.llm.prompts import Question, tag_instructions
from sqlquarry.judging.llm.replies import Opinion, read_json, read_tags
from sqlquarry.judging.llm.rubric import Rubric
from sqlquarry.judging.storable import JSON

Ask = Callable[[Sequence[Question]], Sequence[Generation]]
Read = Callable[[str, Question], Opinion | None]  # the opinion in a reply, or None if it is unreadable


class StructuredGenerator(Protocol):
    """An object that answers prompts with JSON of a given schema, such as `FoundationModel`."""

    def generate_json(
        self, prompts: Sequence[str], schema: dict[str, JSON], /, *, system: str = ""
    ) -> list[Generation]:
        """Answer each prompt in order, with a text that is a JSON object of `schema`. `system` precedes each prompt."""
        ...


def form(generator: TextGenerator | StructuredGenerator, rubric: Rubric | PromptRubric) -> tuple[Ask, Read]:
    """Return how the generator is asked, and how its replies are read.

    A `PromptRubric` sends its prompt as text. With a `Rubric`, the generator answers with JSON if it has
    `generate_json`, otherwise with tags.

    Raises:
        JudgingError: the generator lacks the method that the rubric needs.
    """
    if isinstance(rubric, PromptRubric):
        if not _answers_text(generator):
            raise _lacks("generate", generator)
        return (
            lambda questions: generator.generate([question.text for question in questions]),
            lambda reply, _: rubric.read(reply),
        )
    if _answers_json(generator):
        return (
            lambda questions: generator.generate_json(
                [question.text for question in questions], rubric.schema, system=rubric.instructions
            ),
            lambda reply, _: read_json(reply, rubric),
        )
    if _answers_text(generator):
        return (
            lambda questions: generator.generate([_tagged(question, rubric) for question in questions]),
            lambda reply, question: read_tags(reply, rubric, question.code),
        )
    raise _lacks("generate or generate_json", generator)


def _tagged(question: Question, rubric: Rubric) -> str:
    return f"{rubric.instructions}\n\n{question.text}\n\n{tag_instructions(rubric, question.code)}"


def _lacks(methods: str, generator: object) -> JudgingError:
    return JudgingError(
        f"a judge with this rubric must have {methods}, but {type(generator).__name__} does not. Pass a generator such "
        "as FoundationModel(model_id)."
    )


def _answers_json(generator: object) -> TypeGuard[StructuredGenerator]:
    return hasattr(generator, "generate_json")


def _answers_text(generator: object) -> TypeGuard[TextGenerator]:
    return hasattr(generator, "generate")
