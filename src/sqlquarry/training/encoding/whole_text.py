"""Encode records as complete texts, and cut them into rows: what the published recipe learns from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.tokenizing.batches import BATCH
from sqlquarry.tokenizing.control_tokens import refuse_in_answers
from sqlquarry.tokenizing.encoded import EncodedRecords
from sqlquarry.tokenizing.pieces import PieceEncoder
from sqlquarry.tokenizing.tokenizer import Tokenizer
from sqlquarry.training.encoding.packing import RowSize

_BATCH = 1000


def encode_whole(records: Sequence[Record], formatter: PromptFormatter, tokenizer: Tokenizer) -> EncodedRecords:
    """Encode prompt and answer of each record as one text, with the loss on every token.

    Raises:
        RecordError: a record has no SQL, or its SQL contains the text of a special token.
        ConfigError: the formatter does not fit the tokenizer.
    """
    bound = formatter.bind(tokenizer)
    refuse_in_answers(records, tokenizer)
    encoded = EncodedRecords()
    encoder = PieceEncoder(tokenizer, records, bound.text, add_special_tokens=bound.add_special_tokens)
    for start in range(0, len(records), BATCH):
        batch = records[start : start + BATCH]
        for ids in encoder.encode(batch, [bound.text(record) for record in batch]):
            encoded.append((), ids)
    return encoded


def wrap(examples: EncodedRecords, max_tokens: int) -> list[RowSize]:
    """Return the sizes of the rows that TRL's packing "wrapped" makes.

    It writes the examples one after the other and cuts them into rows of `max_tokens` tokens. It does this for each
    1,000 examples, the batch of `datasets.map`. A record counts for the row in which it begins.
    """
    sizes = []
    for first in range(0, len(examples), _BATCH):
        batch = examples[first : first + _BATCH]
        learned = b"".join(
            bytes(prompt) + bytes([1]) * (tokens - prompt)
            for tokens, prompt in zip(batch.lengths, batch.prompt_lengths, strict=True)
        )
        begins = b"".join(bytes([1]) + bytes(tokens - 1) for tokens in batch.lengths)
        for start in range(0, len(learned), max_tokens):
            part = slice(start, start + max_tokens)
            sizes.append(RowSize(len(learned[part]), learned[part].count(1), begins[part].count(1)))
    return sizes


def count_wrapped(lengths: Iterable[int], max_tokens: int) -> int:
    """Return the number of examples that `wrap` cuts."""
    cut = end = 0
    for index, tokens in enumerate(lengths):
        begin = end if index % _BATCH else 0
        end = begin + tokens
        cut += begin // max_tokens != (end - 1) // max_tokens
    return cut
