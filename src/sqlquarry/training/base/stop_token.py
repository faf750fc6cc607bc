"""Check that the base model can write the token that ends an answer, which requires a trained row of the head.

Base models have tokens that never occurred in their training, such as reserved tokens and those of a chat template.
LoRA does not change the head, so training cannot repair their rows:

- A row that is the mean of all rows has the mean of all logits, whatever the hidden state. So its probability is at
  most 1 / vocabulary (Jensen's inequality). transformers initializes added tokens with the mean.
- A row of zeros has the logit 0.
- A row that equals another token's row has the same logit. Untrained rows stay near each other, because every step
  moves them alike (Land and Bartolo 2024, "Fishing for Magikarp", arXiv:2405.05417).
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

# Share of the median distance between a row and the mean row. In SmolLM2-135M-Instruct, the rows of tokens that were
# never used are within 0.001 of each other. <|im_end|>, which only fine-tuning has trained, is 0.2 away from them, and
# 99.9 % of all tokens are at least 0.4 away from the nearest row. A sample of 4,096 rows gives the mean to 0.016.
NEAR = 0.05
_SAMPLED_ROWS = 4096
_BLOCK_ROWS = 64  # number of rows that are read at once
_RESERVED_ROWS = 2048  # maximum number of rows of added or unused tokens that are compared
_ZERO = "a row of zeros"
_EMBEDDINGS, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


class UntrainedRow(NamedTuple):
    """A row of the head that was not trained.

    Args:
        like: what the row is close to: "the mean of all rows", "a row of zeros" or "the row of '<token>'".
        distance: distance from `like`, as a share of the median distance between a row and the mean.
    """

    like: str
    distance: float


class StopCheck(NamedTuple):
    """The result of checking the token that ends an answer.

    Args:
        problem: why the model could not learn to write it, and what to do, or "" if it can.
        note: a remark, for example on what could not be checked, or "" if there is none.
        trained_rows: ids of the tokens whose rows of embeddings and head the run trains.
    """

    problem: str
    note: str
    trained_rows: tuple[int, ...]


def check_stop(
    base: Path, formatter: PromptFormatter, tokenizer: PreTrainedTokenizerBase, config: TrainingConfig
) -> StopCheck:
    """Check whether the model can learn to end its answers, and find the rows that `config.trainable_tokens` trains.

    Args:
        base: the base model's directory. Without weights, only the configuration is checked.
        formatter: the prompt, bound to the tokenizer.
        tokenizer: the base's tokenizer.
        config: the run's configuration.

    Raises:
        ConfigError: `trainable_tokens` contains text that is not one token, or no special token ends an answer.
    """
    assert formatter.tokens is not None  # noqa: S101 - the prompt is bound
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
            # nn.Embedding initializes the row of its padding with zeros. Only an untrained base still has them.
            return StopCheck("", f"{text!r} ends each answer, but its row is zero. Answers may never end.", rows)
        other = eos != stop and untrained_row(base, eos, tokenizer) is None
    except (OSError, ValueError) as error:
        note = f"training will check whether the base model can write {text!r}, once its weights are here ({error})."
        return StopCheck("", note, rows)
    return StopCheck(
        f"the base model cannot write {text!r}, which ends each answer. Its row of the head is within "
        f"{untrained.distance:.3f} of {untrained.like} (about 1 is usual), so it was never trained, and LoRA does not "
        "change the head. Answers would not end before their token limit. Set "
        'TrainingConfig(trainable_tokens="auto") to train that row'
        + (f", or use template='human-assistant', which ends answers with {tokenizer.eos_token!r}." if other else "."),
        "",
        rows,
    )


def named_rows(config: TrainingConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the ids of the tokens that `config.trainable_tokens` lists. "auto" lists none.

    Raises:
        ConfigError: it contains text that is not one token.
    """
    names = () if config.trainable_tokens in (None, "auto") else config.trainable_tokens
    vocabulary = tokenizer.get_vocab()
    if unknown := [name for name in names if name not in vocabulary]:
        raise ConfigError(
            f"trainable_tokens contains {unknown[0]!r}, which is not a token of the base model. Leave it out."
        )
    return tuple(sorted({vocabulary[name] for name in names}))


def untrained_row(
    base: Path, token: int, tokenizer: PreTrainedTokenizerBase, *, stops: frozenset[int] = frozenset()
) -> UntrainedRow | None:
    """Compare a token's row of the head with the mean row, zero and other rows. Return None if it differs from all.

    About 6,000 rows are read: a sample, and the rows of added and unused tokens.

    Args:
        base: directory with config.json and safetensors.
        token: id of the token.
        tokenizer: the base's tokenizer.
        stops: other tokens that end an answer. A row that equals one of their rows is fine, because it also stops
            generation.

    Raises:
        OSError, ValueError: the weights are missing or cannot be read.
    """
    import torch

    rows = _read_rows(base, token, tokenizer)
    if rows is None:
        return None  # `base_problems` reports a token without a row
    row, sample, others, ids = rows
    mean = sample.mean(dim=0, keepdim=True)
    spread = (sample - mean).norm(dim=1).median().item()
    if not spread > 0:  # all weights are equal, or some are NaN
        return None
    distances = (others - row).norm(dim=1) / spread
    if any(distances[ids == stop].min() <= NEAR for stop in stops - {token} if (ids == stop).any()):
        return None
    distances[ids == token] = torch.inf
    nearest = int(distances.argmin())
    found = [
        ("the mean of all rows", ((row - mean).norm() / spread).item()),
        (_ZERO, (row.norm() / spread).item()),
        (f"the row of {_text(tokenizer, int(ids[nearest]))}", distances[nearest].item()),
    ]
    like, distance = min(found, key=lambda one: one[1])
    return UntrainedRow(like, distance) if distance <= NEAR else None


class _HeadRows(NamedTuple):
    """Rows of the head.

    Args:
        row: the token's row, (1, width).
        sample: a sample of all rows, (sampled, width).
        others: the sample and the rows of added and unused tokens, (others, width).
        ids: token ids of `others`, (others,).
    """

    row: torch.Tensor
    sample: torch.Tensor
    others: torch.Tensor
    ids: torch.Tensor


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
    ids = torch.tensor([index for part in (*sampled, *reserved) for index in part])
    return _HeadRows(row, sample, torch.cat([sample, *special]), ids)


def _head(base: Path) -> tuple[Path, str]:
    """Return the file that contains the head, and the name of the tensor.

    Raises:
        ValueError: no file contains the head.
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
    raise ValueError(f"no file of {base} contains {name}")


def _sample(count: int) -> Iterator[range]:
    """Yield evenly spaced blocks of rows, or all rows if there are few."""
    blocks = _SAMPLED_ROWS // _BLOCK_ROWS
    if count <= _SAMPLED_ROWS:
        yield range(count)
        return
    for block in range(blocks):
        start = block * (count - _BLOCK_ROWS) // (blocks - 1)
        yield range(start, start + _BLOCK_ROWS)


def _reserved(tokenizer: PreTrainedTokenizerBase, count: int, token: int) -> list[range]:
    """Return ranges of the rows of added and unused tokens. If there are many, return those nearest to `token`."""
    ids = {index for index in tokenizer.added_tokens_decoder if index < count} | {*range(len(tokenizer), count)}
    chosen = sorted(sorted(ids, key=lambda index: abs(index - token))[:_RESERVED_ROWS])
    parts: list[range] = []
    for index in chosen:
        if parts and parts[-1].stop == index:
            parts[-1] = range(parts[-1].start, index + 1)
        else:
            parts.append(range(index, index + 1))
    return parts


def _text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return repr(tokenizer.convert_ids_to_tokens(token)) if token < len(tokenizer) else f"unused token {token}"
