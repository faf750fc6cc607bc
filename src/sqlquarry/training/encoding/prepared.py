"""Encode and pack the records of a run, once for its plan and its training."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sqlquarry.errors import RecordError
from sqlquarry.progress.bar import phase
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.text import first_of
from sqlquarry.tokenizing.control_tokens import note_in_prompts
from sqlquarry.tokenizing.encoded import EncodedRecords
from sqlquarry.tokenizing.tokenizer import Tokenizer
from sqlquarry.training.base.limits import base_problems
from sqlquarry.training.base.outline import BaseOutline
from sqlquarry.training.base.shape import ModelShape
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.encoding.kept import Kept, content_key, keep, recall
from sqlquarry.training.encoding.packing import Family, PackedRow, RowSize, pack
from sqlquarry.training.encoding.whole_text import count_wrapped, encode_whole, wrap


@dataclass(frozen=True, slots=True)
class PreparedRecords:
    """Encoded records and their packed rows.

    Args:
        examples: all records, in their order.
        rows: rows of all records that can be learned from. Empty if TRL makes the rows.
        row_sizes: sizes of the rows, also of TRL's.
        over_length: (name, tokens) of records longer than a row, longest first. `check_run` refuses them.
        unlearnable: names of records without any answer token. `check_run` refuses them.
        tokens_unshared: tokens of the packed records, with shared beginnings counted once per record.
        base_problems: reasons why the base cannot learn from the records. `check_run` refuses them.
        note: a note on special tokens in questions and schemas, or "" if there are none.
        cut: number of records that TRL's packing cuts (`TrainingConfig.cuts_records`).
    """

    examples: EncodedRecords
    rows: Sequence[PackedRow]
    row_sizes: tuple[RowSize, ...]
    over_length: tuple[tuple[str, int], ...]
    unlearnable: tuple[str, ...]
    tokens_unshared: int
    base_problems: tuple[str, ...] = ()
    note: str = ""
    cut: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the number of records, their lengths, their prompt lengths and their token ids."""
        digest = hashlib.sha256(f"{len(self.examples)}\n".encode())
        for part in self.examples.buffers():
            digest.update(part)
        return digest.hexdigest()


def prepare(
    records: Sequence[Record],
    formatter: PromptFormatter,
    tokenizer: Tokenizer,
    config: TrainingConfig,
    *,
    shape: ModelShape,
    kind: str = "",
) -> PreparedRecords:
    """Encode records and pack those that fit a row. If the same was done before, return that result (see `kept`).

    Args:
        records: records with SQL.
        formatter: the prompt.
        tokenizer: the base's tokenizer.
        config: `max_length`, `share_prefixes` and `seed` are used.
        shape: the base's sizes.
        kind: purpose of the records ("evaluation") for messages, or "" for training.

    Raises:
        RecordError: there are no records, or some have no SQL.
        ConfigError: prompt and tokenizer do not fit (see `PromptFormatter.bind`).
    """
    _require_sql(records, kind)
    settings = {
        "kind": kind,
        "backend": config.backend,
        "packing": config.packing_strategy,
        "whole_text": config.learns_whole_text,
        "max_length": config.max_length,
        "share_prefixes": config.share_prefixes,
        "seed": config.seed,
        "positions": shape.positions,
        "vocabulary": shape.vocabulary,
    }
    key = content_key(records, formatter.bind(tokenizer), tokenizer, settings)
    if key and (kept := recall(key)):
        return _unfolded(kept)
    prepared = _prepared(records, formatter, tokenizer, config, shape=shape, kind=kind)
    # A run with such problems is refused, so nobody needs its rows again.
    if key and not (prepared.over_length or prepared.unlearnable or prepared.base_problems):
        keep(key, _folded(prepared))
    return prepared


def _prepared(
    records: Sequence[Record],
    formatter: PromptFormatter,
    tokenizer: Tokenizer,
    config: TrainingConfig,
    *,
    shape: ModelShape,
    kind: str,
) -> PreparedRecords:
    examples = _encoded(records, formatter, tokenizer, kind, whole=config.learns_whole_text)
    limit = math.inf if config.cuts_records else config.max_length
    lengths = examples.lengths
    unlearnable = [prompt == tokens for prompt, tokens in zip(examples.prompt_lengths, lengths, strict=True)]
    fine = [index for index, tokens in enumerate(lengths) if tokens <= limit and not unlearnable[index]]
    learned = examples.select(fine)
    rows, row_sizes, cut = _packed(learned, [records[index].schema for index in fine], config)
    note = note_in_prompts(records, tokenizer) or ""
    problems = base_problems(records, examples, shape, tokenizer)
    over = [(_name(records, index, kind), tokens) for index, tokens in enumerate(lengths) if tokens > limit]
    return PreparedRecords(
        examples,
        rows,
        row_sizes,
        over_length=tuple(sorted(over, key=lambda item: -item[1])),
        unlearnable=tuple(_name(records, index, kind) for index, empty in enumerate(unlearnable) if empty),
        tokens_unshared=sum(lengths[index] for index in fine),
        base_problems=tuple(f"{kind}: {problem}" if kind else problem for problem in problems),
        note=f"{kind}: {note}" if kind and note else note,
        cut=cut,
    )


def _packed(
    examples: EncodedRecords, schemas: Sequence[str], config: TrainingConfig
) -> tuple[list[PackedRow], tuple[RowSize, ...], int]:
    """Return the rows, their sizes, and the number of records that are cut.

    TRL packs by itself, so only the sizes of its rows are returned. It shares no prefixes.
    """
    limit, seed = config.max_length, config.seed
    if config.backend == "sqlquarry":
        rows = pack(examples, schemas, max_tokens=limit, share_prefixes=config.share_prefixes, seed=seed)
        return rows, tuple(row.size for row in rows), 0
    lengths = examples.lengths
    if config.packing_strategy is None:
        sizes = zip(lengths, examples.prompt_lengths, strict=True)
        return [], tuple(RowSize(tokens, tokens - prompt, 1) for tokens, prompt in sizes), 0
    if config.packing_strategy == "wrapped":
        return [], tuple(wrap(examples, limit)), count_wrapped(lengths, limit)
    pieces = examples.split(limit)
    rows = pack(pieces, [""] * len(pieces), max_tokens=limit, share_prefixes=False, seed=seed)
    return [], tuple(row.size for row in rows), sum(tokens > limit for tokens in lengths)


def _folded(prepared: PreparedRecords) -> Kept:
    """Return prepared records without problems in the form in which they are kept."""
    facts = {
        "rows": [row.families for row in prepared.rows],
        "row_sizes": prepared.row_sizes,
        "note": prepared.note,
        "cut": prepared.cut,
    }
    return Kept(prepared.examples, facts)


def _unfolded(kept: Kept) -> PreparedRecords:
    examples, facts = kept
    sizes = tuple(RowSize(*size) for size in facts["row_sizes"])
    rows = [
        PackedRow(examples, tuple(Family(tuple(members), *counts) for members, *counts in families), size)
        for families, size in zip(facts["rows"], sizes, strict=False)  # TRL's rows are not known
    ]
    return PreparedRecords(examples, rows, sizes, (), (), sum(examples.lengths), note=facts["note"], cut=facts["cut"])


def _name(records: Sequence[Record], index: int, kind: str) -> str:
    return f"{kind} {records[index].id or f'record {index}'}".strip()


def _require_sql(records: Sequence[Record], kind: str) -> None:
    label = f"{kind} record".strip()
    if not records:
        raise RecordError(f"there are no {label}s. Training needs at least one with sql.")
    if without := [_name(records, index, kind) for index, record in enumerate(records) if record.sql is None]:
        raise RecordError(
            f"{len(without)} of {len(records)} {label}s have no sql to learn: {first_of(without, 5)}. "
            "Add their SQL, or leave them out."
        )


def _encoded(
    records: Sequence[Record], formatter: PromptFormatter, tokenizer: Tokenizer, kind: str, *, whole: bool
) -> EncodedRecords:
    label = f"{kind} record".strip()
    with phase(f"encoding {len(records):,} {label}s"):
        try:
            return encode_whole(records, formatter, tokenizer) if whole else formatter.encode_all(records, tokenizer)
        except RecordError as error:
            raise RecordError(f"{kind}: {error}" if kind else str(error)) from error


def prepare_both(
    records: Sequence[Record],
    evaluation: Sequence[Record] | None,
    formatter: PromptFormatter,
    outline: BaseOutline,
    config: TrainingConfig,
) -> tuple[PreparedRecords, PreparedRecords | None]:
    """Prepare the records of a run and its evaluation records, if it has any.

    Raises:
        RecordError, ConfigError: as `prepare`.
    """
    tokenizer, shape = outline.tokenizer, outline.shape
    prepared = prepare(records, formatter, tokenizer, config, shape=shape)
    if not evaluation:
        return prepared, None
    return prepared, prepare(evaluation, formatter, tokenizer, config, shape=shape, kind="evaluation")
