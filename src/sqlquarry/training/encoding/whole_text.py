"""Encode records as complete texts, and cut them into rows: what the published recipe learns from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain

from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.tokenizing.batches import BATCH
from sqlquarry.tokenizing.control_tokens import refuse_in_answers
from sqlquarry.tokenizing.encoded import Encoded, EncodedRecords
from sqlquarry.tokenizing.pieces import PieceEncoder
from sqlquarry.tokenizing.tokenizer import Tokenizer
from sqlquarry.training.encoding.packing import PackedRow

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


def wrap(examples: Sequence[Encoded], max_tokens: int) -> list[PackedRow]:
    """Write examples one after the other and cut them into rows of `max_tokens` tokens, like TRL's packing "wrapped".

    A record counts for the row in which it begins. TRL does this for each 1,000 examples, the batch of `datasets.map`.
    """
    rows = []
    for first in range(0, len(examples), _BATCH):
        batch = examples[first : first + _BATCH]
        ids = list(chain.from_iterable(example.input_ids for example in batch))
        labels = list(chain.from_iterable(example.labels for example in batch))
        begins = [*accumulate((len(example.input_ids) for example in batch), initial=0)][:-1]
        for start in range(0, len(ids), max_tokens):
            part = slice(start, min(start + max_tokens, len(ids)))
            tokens = part.stop - start
            zeros, records = [0] * tokens, sum(start <= begin < part.stop for begin in begins)
            rows.append(PackedRow(ids[part], labels[part], [*range(tokens)], zeros, zeros, records))
    return rows


def count_wrapped(examples: Sequence[Encoded], max_tokens: int) -> int:
    """Return the number of examples that `wrap` cuts."""
    cut = end = 0
    for index, example in enumerate(examples):
        begin = end if index % _BATCH else 0
        end = begin + len(example.input_ids)
        cut += begin // max_tokens != (end - 1) // max_tokens
    return cut
