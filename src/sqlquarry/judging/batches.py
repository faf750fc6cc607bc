"""Answer and grade one batch of records, reusing the answers and verdicts in the journal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

from sqlquarry.answers import Generation, Judgement, TextGenerator
from sqlquarry.errors import JudgeFailedError, JudgingError, SQLQuarryError
from sqlquarry.judging.grader import Grader
from sqlquarry.judging.journal import Journal, content_key
from sqlquarry.records import Record, record_fields


def answer_batch(model: TextGenerator, records: Sequence[Record], journal: Journal | None) -> Sequence[Generation]:
    """Let the model answer one batch. Answers that are in the journal are reused.

    Raises:
        JudgingError: the model returned a different number of answers.
        SQLQuarryError: the model failed. The journal, if there is one, has the answers so far.
    """
    fingerprint = getattr(model, "fingerprint", None)
    if journal is None or fingerprint is None:
        return model.generate([record.asked for record in records])
    keys = [content_key("answer", fingerprint, _content(record.asked)) for record in records]
    missing = [i for i, key in enumerate(keys) if journal.get(key) is None]

    def note(answers: Sequence[Generation | None]) -> None:
        for place, answer in zip(missing, answers, strict=False):  # `partial` may be shorter
            if answer is not None:
                journal.add(keys[place], dataclasses.asdict(answer))

    try:
        if missing:
            answers = model.generate([records[i].asked for i in missing])
            if len(answers) != len(missing):
                raise JudgingError(
                    f"the model returned {len(answers)} answers for {len(missing)} records. "
                    "Its generate must return one per record."
                )
            note(answers)
    except SQLQuarryError as error:
        note(getattr(error, "partial", ()))
        raise
    known = [journal.get(key) for key in keys]
    return [
        # The journal stores infinite logprobs as text.
        Generation(**value | {"logprobs": value["logprobs"] and tuple(map(float, value["logprobs"]))})
        for value in known
        if value
    ]


def grade_batch(
    grader: Grader,
    records: Sequence[Record],
    predicted: Sequence[str],
    refused: Mapping[int, str],
    *,
    journal: Journal | None,
    pool: Executor,
    advance: Callable[[], None],
) -> list[Judgement]:
    """Return one grader's verdicts on a batch. Verdicts in the journal are reused, and each new one is added to it.

    Args:
        grader: the grader.
        records: the records of the batch.
        predicted: the SQL of each record's answer.
        refused: position of an answer that is not graded -> the reason.
        journal: receives each verdict as soon as it is known. None stores no verdicts.
        pool: runs graders that judge one record at a time.
        advance: called once for each verdict.

    Raises:
        JudgeFailedError: the grader failed. The journal has the verdicts so far.
    """
    verdicts = _Verdicts(grader, records, predicted, journal, advance)
    for place, reason in refused.items():
        verdicts.found[place] = Judgement(grader.name, "unjudged", reason)
    missing = [i for i in range(len(records)) if i not in verdicts.found]
    for _ in verdicts.found:
        advance()
    grade_all = getattr(grader, "grade_all", None)
    if grade_all is None:
        list(pool.map(lambda place: verdicts.note(place, grader.grade(records[place], predicted[place])), missing))
    elif missing:
        try:
            made = grade_all([records[i] for i in missing], [predicted[i] for i in missing])
        except JudgeFailedError as error:
            for place, verdict in zip(missing, error.partial, strict=False):  # `partial` may be shorter
                if verdict is not None:
                    verdicts.note(place, verdict)
            raise
        for place, verdict in zip(missing, made, strict=True):
            verdicts.note(place, verdict)
    return [verdicts.found[i] for i in range(len(records))]


class _Verdicts:
    """The verdicts of one grader on one batch by position, starting with those in the journal."""

    def __init__(
        self,
        grader: Grader,
        records: Sequence[Record],
        predicted: Sequence[str],
        journal: Journal | None,
        advance: Callable[[], None],
    ) -> None:
        self._journal, self._advance = journal, advance
        self._keys = [
            _verdict_key(grader, record, sql) if journal else None
            for record, sql in zip(records, predicted, strict=True)
        ]
        known = {i: journal.get(key) for i, key in enumerate(self._keys) if journal and key}
        self.found = {i: Judgement(**value) for i, value in known.items() if value}

    def note(self, place: int, judgement: Judgement) -> None:
        self.found[place] = judgement
        self._advance()
        key = self._keys[place]
        if self._journal and key and judgement.verdict != "unjudged":
            self._journal.add(key, dataclasses.asdict(judgement))


def _verdict_key(grader: Grader, record: Record, predicted_sql: str) -> str | None:
    fingerprint = getattr(grader, "fingerprint", None)
    depends_on = fingerprint(record) if fingerprint else None
    if depends_on is None:
        return None
    return content_key("verdict", grader.name, depends_on, _content(record), predicted_sql)


def _content(record: Record) -> dict[str, object]:
    # The id only locates the record in a file. The same question under another id has the same verdict.
    return {name: value for name, value in record_fields(record).items() if name != "id"}
