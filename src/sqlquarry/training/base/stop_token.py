"""Whether the base model can write the token that ends an answer: the head's row for it must have been trained.

Base models come with tokens that no text of their training held, reserved ones and those of a chat template. LoRA
leaves the head as it is, so what such a row cannot do no training changes:

- The logit of a row that is the mean of all rows is the mean of all logits, whatever the hidden state; so its
  probability is at most 1 / vocabulary (Jensen's inequality). transformers initialises added tokens with the mean.
- A row of zeros has the logit 0.
- A row that equals another token's has that token's logit. Rows that no text trained stay near each other, because
  every step moves them alike (Land and Bartolo 2024, "Fishing for Magikarp", arXiv:2405.05417).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.checkpoints.model_files import weight_files
from sqlquarry.errors import ConfigError
from sqlquarry.files.metadata import read_object
from sqlquarry.prompt import PromptFormatter
from sqlquarry.tokenizing.control_tokens import stop_token_id
from sqlquarry.training.config import TrainingConfig

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

# Of the median distance between a row and the mean row. In SmolLM2-135M-Instruct, rows of tokens that were never used
# are within 0.001 of each other, <|im_end|> (trained in fine-tuning alone) is 0.2 from them, and 99.9 % of all tokens
# are 0.4 or more from the next row. A sample of 4,096 rows gives the mean to 0.016.
NEAR = 0.05
_SAMPLED_ROWS = 4096
_BLOCK_ROWS = 64  # that are read at once
_RESERVED_ROWS = 2048  # most rows of added or unused tokens that are compared
_ZERO = "a row of zeros"
_EMBEDDINGS, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


class UntrainedRow(NamedTuple):
    """A row of the head that was not trained: what it is like, and how far from that.

    Args:
        like: "the mean of all rows", "a row of zeros" or "the row of '<token>'".
        distance: as a share of the median distance between a row and the mean.
    """

    like: str
    distance: float


class StopCheck(NamedTuple):
    """What a run has to know of the token that ends an answer.

    Args:
        problem: why it could not be learnt, with what to do; "" if it can.
        note: what could not be checked; "" for nothing.
        trained_rows: ids of the tokens whose rows of embeddings and head the run trains.
    """

    problem: str
    note: str
    trained_rows: tuple[int, ...]


def check_stop(
    base: Path, formatter: PromptFormatter, tokenizer: PreTrainedTokenizerBase, config: TrainingConfig
) -> StopCheck:
    """Find out whether answers can learn to end, and which rows `config.trainable_tokens` trains.

    Args:
        base: the base model's directory; without weights nothing is checked but the configuration.
        formatter: the bound prompt.
        tokenizer: the base's.
        config: of the run.

    Raises:
        ConfigError: `trainable_tokens` names what is not one token, or answers end with no special token.
    """
    assert formatter.tokens is not None  # noqa: S101 - it is bound
    text, eos = formatter.tokens.stop, tokenizer.eos_token_id
    stop = stop_token_id(tokenizer, text)
    named = config.trainable_tokens
    rows = named_rows(config, tokenizer)
    if stop in rows:
        return StopCheck("", "", rows)
    try:
        untrained = untrained_row(base, stop, tokenizer, stops=frozenset({eos}))
        if untrained is None:
            return StopCheck("", "", rows)
        if named == "auto":
            return StopCheck("", "", (stop,))
        if untrained.like == _ZERO and read_object(base / "config.json").get("pad_token_id") == stop:
            # nn.Embedding begins with zeros in the row of its padding. Only a base that nobody trained still has them.
            return StopCheck("", f"{text!r} ends each answer, but its row is zero: answers may never end", rows)
        other = eos != stop and untrained_row(base, eos, tokenizer) is None
    except (OSError, ValueError) as error:
        return StopCheck(
            "", f"whether the base can write {text!r} is checked once its weights are there ({error})", rows
        )
    return StopCheck(
        f"the base model cannot write {text!r}, which ends each answer: its row of the head is within "
        f"{untrained.distance:.3f} of {untrained.like} (1 is usual), so no training used "
        "it, and LoRA does not change the head. Every answer would run on to its limit. Set "
        'TrainingConfig(trainable_tokens="auto") to train that row'
        + (f", or use template='human-assistant', which ends answers with {tokenizer.eos_token!r}" if other else ""),
        "",
        rows,
    )


def named_rows(config: TrainingConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the ids of the tokens that `config.trainable_tokens` names; "auto" names none.

    Raises:
        ConfigError: it names what is not one token.
    """
    names = () if config.trainable_tokens in (None, "auto") else config.trainable_tokens
    vocabulary = tokenizer.get_vocab()
    if unknown := [name for name in names if name not in vocabulary]:
        raise ConfigError(f"trainable_tokens names {unknown[0]!r}, which is not a token of the base's tokenizer")
    return tuple(sorted({vocabulary[name] for name in names}))


def untrained_row(
    base: Path, token: int, tokenizer: PreTrainedTokenizerBase, *, stops: frozenset[int] = frozenset()
) -> UntrainedRow | None:
    """Compare a token's row of the head with the mean row, zero and other rows; None if it is unlike all of them.

    Reads some 6,000 rows: a sample, and those of added and unused tokens.

    Args:
        base: config.json and safetensors.
        token: whose row.
        tokenizer: the base's.
        stops: other tokens that end an answer; a row that equals one of theirs stops generation as well.

    Raises:
        OSError, ValueError: the weights are not there, or cannot be read.
    """
    import torch

    rows = _read_rows(base, token, tokenizer)
    if rows is None:
        return None  # a token without a row is another fault
    row, sample, others, places = rows
    mean = sample.mean(dim=0, keepdim=True)
    spread = (sample - mean).norm(dim=1).median().item()
    if not spread > 0:  # weights that hold nothing, or NaN
        return None
    distances = (others - row).norm(dim=1) / spread
    if any(distances[places == stop].min() <= NEAR for stop in stops - {token} if (places == stop).any()):
        return None
    distances[places == token] = torch.inf
    nearest = int(distances.argmin())
    found = [
        ("the mean of all rows", ((row - mean).norm() / spread).item()),
        (_ZERO, (row.norm() / spread).item()),
        (f"the row of {_text(tokenizer, int(places[nearest]))}", distances[nearest].item()),
    ]
    like, distance = min(found, key=lambda one: one[1])
    return UntrainedRow(like, distance) if distance <= NEAR else None


class _HeadRows(NamedTuple):
    """Rows of the head: a token's (1, width), a sample (sampled, width), and the sample with added and unused tokens'.

    `places` are the tokens of the last.
    """

    row: torch.Tensor
    sample: torch.Tensor
    others: torch.Tensor
    places: torch.Tensor


def _read_rows(base: Path, token: int, tokenizer: PreTrainedTokenizerBase) -> _HeadRows | None:
    import torch
    from safetensors import SafetensorError, safe_open

    path, name = _head(base)
    try:
        with safe_open(path, "pt") as file:
            rows = file.get_slice(name)
            count = rows.get_shape()[0]
            if token >= count:
                return None
            row = rows[token : token + 1].float()
            sampled = list(_sample(count))
            reserved = _reserved(tokenizer, count, token)
            sample = torch.cat([rows[part.start : part.stop].float() for part in sampled])
            special = [rows[part.start : part.stop].float() for part in reserved]
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    places = torch.tensor([place for part in (*sampled, *reserved) for place in part])
    return _HeadRows(row, sample, torch.cat([sample, *special]), places)


def _head(base: Path) -> tuple[Path, str]:
    """Return the file that holds the head, and the tensor's name in it.

    Raises:
        ValueError: no file holds it.
    """
    from safetensors import SafetensorError, safe_open

    tied = bool(read_object(base / "config.json").get("tie_word_embeddings"))
    name = _EMBEDDINGS if tied else _HEAD
    for path in weight_files(base):
        try:
            with safe_open(path, "pt") as file:
                if name in file.keys():  # noqa: SIM118 - it is not a dict
                    return path, name
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read ({error})") from error
    raise ValueError(f"no file of {base} holds {name}")


def _sample(count: int) -> Iterator[range]:
    """Yield blocks of rows, evenly spaced; all rows if there are few."""
    blocks = _SAMPLED_ROWS // _BLOCK_ROWS
    if count <= _SAMPLED_ROWS:
        yield range(count)
        return
    for block in range(blocks):
        start = block * (count - _BLOCK_ROWS) // (blocks - 1)
        yield range(start, start + _BLOCK_ROWS)


def _reserved(tokenizer: PreTrainedTokenizerBase, count: int, token: int) -> list[range]:
    """Return rows of added tokens and those beyond the tokenizer's as ranges; if many, those nearest to `token`."""
    places = {place for place in tokenizer.added_tokens_decoder if place < count} | {*range(len(tokenizer), count)}
    chosen = sorted(sorted(places, key=lambda place: abs(place - token))[:_RESERVED_ROWS])
    parts: list[range] = []
    for place in chosen:
        if parts and parts[-1].stop == place:
            parts[-1] = range(parts[-1].start, place + 1)
        else:
            parts.append(range(place, place + 1))
    return parts


def _text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return repr(tokenizer.convert_ids_to_tokens(token)) if token < len(tokenizer) else f"unused token {token}"
