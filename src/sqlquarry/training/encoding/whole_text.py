"""Encode records as complete texts, and cut them into rows: what the published recipe learns from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from sqlquarry.prompt import Encoded, PromptFormatter
from sqlquarry.records import Record
from sqlquarry.tokenizing.control_tokens import refuse_in_answers
from sqlquarry.tokenizing.tokenizer import Tokenizer
from sqlquarry.training.encoding.packing import PackedRow


def encode_whole(records: Sequence[Record], formatter: PromptFormatter, tokenizer: Tokenizer) -> list[Encoded]:
    """Encode prompt and answer of each record as one text, with the loss on every token.

    Raises:
        RecordError: a record has no SQL, or its SQL contains the text of a special token.
        ConfigError: the formatter does not fit the tokenizer.
    """
    bound = formatter.bind(tokenizer)
    refuse_in_answers(records, tokenizer)
    texts = [bound.prompt(record) + bound.completion(record) for record in records]
    return [Encoded(ids, list(ids)) for ids in tokenizer(texts)["input_ids"]]


def wrap(examples: Sequence[Encoded], max_tokens: int) -> list[PackedRow]:
    """Write examples one after the other and cut them into rows of `max_tokens` tokens, as TRL's "wrapped" packing.

    The positions run through a row, because its examples see each other.
    """
    ids = list(chain.from_iterable(example.input_ids for example in examples))
    labels = list(chain.from_iterable(example.labels for example in examples))
    ends = [0]
    for example in examples:
        ends.append(ends[-1] + len(example.input_ids))
    rows = []
    for start in range(0, len(ids), max_tokens):
        part = ids[start : start + max_tokens]
        begun = sum(start <= one < start + max_tokens for one in ends[:-1])
        rows.append(
            PackedRow(
                part,
                labels[start : start + max_tokens],
                [*range(len(part))],
                [0] * len(part),
                [0] * len(part),
                begun,
            )
        )
    return rows
