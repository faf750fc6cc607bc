"""How near a merged model is to the adapter on the weights that it was trained on, measured on answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlquarry.artifacts import Record
from sqlquarry.errors import ConfigError, MergeError
from sqlquarry.merging.forward import Architecture, final_states
from sqlquarry.merging.rows import TensorRows
from sqlquarry.merging.storage import Storage
from sqlquarry.merging.tokenizing import base_tokenizer
from sqlquarry.options import check_options
from sqlquarry.progress.bar import phase
from sqlquarry.prompt import IGNORED_LABEL, PromptFormatter

if TYPE_CHECKING:
    import torch

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_MAX_TOKENS = 4096  # an 8B model's widest activations then take 0.5 GB


@check_options()
@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What a merged model must reach.

    The defaults part a right merge from a wrong one: measured on SmolLM2-135M, a merge into the dequantised weights
    rounded to bf16 has a KL of 2e-4 and the same greedy answers, a merge into the original weights 4e-2.

    Args:
        max_kl: mean KL(adapter ‖ merged) on answer tokens, nats.
        min_greedy_agreement: share of answer tokens with the same most likely token. It is missed where the measured
            share is lower by more than two standard errors of that many tokens: 3 of 122 tokens prove nothing of 98 %.
        max_relative_update: largest ‖ΔW‖/‖W‖ of a tensor; beyond it the adapter has overwritten the base.
    """

    max_kl: float = 5e-3
    min_greedy_agreement: float = 0.98
    max_relative_update: float = 1.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """A model beside the adapter on its training base, over the tokens of the gold answers.

    Args:
        kl: mean KL(adapter ‖ model) of the next-token distributions, nats.
        greedy_agreement: share of tokens with the same most likely token.
        answer_log_likelihood: mean log-likelihood of the gold tokens, nats per token.
        adapter_log_likelihood: the same of the adapter on its training base.
        answer_tokens: tokens compared.
        records: records they come from.
    """

    kl: float
    greedy_agreement: float
    answer_log_likelihood: float
    adapter_log_likelihood: float
    answer_tokens: int
    records: int


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found out about a merged model.

    Args:
        agreement: with the adapter on its training base.
        coverage: share of the adapter's tensors that are in the merged model.
        largest_update: largest ‖ΔW‖/‖W‖ of a tensor.
        changed_tensors: how many tensors the adapter changes.
    """

    agreement: Agreement
    coverage: float
    largest_update: float
    changed_tensors: int

    def require(self, thresholds: Thresholds) -> None:
        """Refuse a model that is not near enough.

        Raises:
            MergeError: with each number that misses its threshold.
        """
        found, least = self.agreement, thresholds.min_greedy_agreement
        chance = 2 * math.sqrt(least * (1 - least) / max(1, found.answer_tokens))
        bad = [
            message
            for wrong, message in (
                (not found.kl <= thresholds.max_kl, f"KL {found.kl:.2e} > {thresholds.max_kl:g}"),
                (
                    not found.greedy_agreement >= least - chance,
                    f"greedy agreement {found.greedy_agreement:.2%} < {least:.2%}",
                ),
                (
                    not self.largest_update <= thresholds.max_relative_update,
                    f"relative update {self.largest_update:.2f} > {thresholds.max_relative_update:g}",
                ),
                (self.coverage < 1, f"only {self.coverage:.2%} of the adapter's tensors were merged"),
            )
            if wrong
        ]
        if bad:
            raise MergeError(
                f"the merged model is not the model that was trained: {'; '.join(bad)}, over {found.answer_tokens} "
                f"answer tokens of {found.records} records. Merge with base='auto', or dtype='float32'."
            )


@dataclass(frozen=True, slots=True)
class Examples:
    """Prompts with their answers as tokens.

    Args:
        sequences: token ids of each.
        states: places in the concatenated sequences whose next token is part of an answer.
        gold: these next tokens.
    """

    sequences: Sequence[Sequence[int]]
    states: Sequence[int]
    gold: Sequence[int]

    @classmethod
    def encode(cls, records: Sequence[Record], formatter: PromptFormatter, base: Storage) -> Examples:
        """The records that fit into 4,096 tokens, from the first on.

        Raises:
            ConfigError: there is no record, or the first is longer than that.
            RecordError: a record has no SQL.
        """
        sequences: list[list[int]] = []
        states: list[int] = []
        gold: list[int] = []
        tokens = 0
        for encoded in formatter.encode_all(records, base_tokenizer(base)):
            if tokens + len(encoded.input_ids) > _MAX_TOKENS:
                break
            answer = [place for place, label in enumerate(encoded.labels) if place and label != IGNORED_LABEL]
            states += [tokens + place - 1 for place in answer]
            gold += [encoded.labels[place] for place in answer]
            sequences.append(encoded.input_ids)
            tokens += len(encoded.input_ids)
        if not sequences:
            raise ConfigError(f"none of the {len(records)} evaluation records has at most {_MAX_TOKENS} tokens.")
        return cls(sequences, states, gold)


def compare(
    config: Mapping[str, Any], reference: TensorRows, candidates: Sequence[TensorRows], examples: Examples
) -> list[Agreement]:
    """Run the adapter unmerged on its training base, and each candidate, over the same tokens.

    Args:
        config: the model's config.json.
        reference: the training base with the adapter's updates, in fp32.
        candidates: models to compare with it.
        examples: what to run.

    Raises:
        UnsupportedModelError: the architecture is not known here.
        MergeError: the weights hold NaN or infinity.
    """
    import torch

    architecture = Architecture.of(config)
    name = f"comparing the model with the adapter on {len(examples.sequences)} records"
    with torch.inference_mode(), phase(name):
        models = [_Model(rows, unmerged=number == 0) for number, rows in enumerate([reference, *candidates])]
        states = [final_states(architecture, model, examples.sequences)[list(examples.states)] for model in models]
        tied = bool(config.get("tie_word_embeddings")) or _HEAD not in reference.tensors
        return _compared([model.head(tied=tied) for model in models], states, examples)


def _compared(heads: Sequence[_Projection], states: Sequence[torch.Tensor], examples: Examples) -> list[Agreement]:
    """KL by block of the vocabulary, so that no logits of a whole vocabulary are ever in memory."""
    import torch

    gold = torch.tensor(examples.gold)
    totals = [_Softmax(gold) for _ in heads]
    cross = [torch.zeros(len(gold), dtype=torch.float64) for _ in heads]
    for rows in heads[0].tensor.blocks():
        logits = [head.block(state, rows).double() for head, state in zip(heads, states, strict=True)]
        rescale, *_ = [total.add(block, rows.start) for total, block in zip(totals, logits, strict=True)]
        weights = (logits[0] - totals[0].largest[:, None]).exp()
        for number, block in enumerate(logits):
            cross[number] = cross[number] * rescale + (weights * (logits[0] - block)).sum(dim=1)
    first = totals[0]
    found = []
    for total, one in list(zip(totals, cross, strict=True))[1:]:
        kl = one / first.sum - (first.log_sum() - total.log_sum())
        if not bool(kl.isfinite().all()):
            raise MergeError("the model's logits hold NaN or infinity: check base and adapter")
        found.append(
            Agreement(
                kl=max(0.0, kl.mean().item()),
                greedy_agreement=(total.best == first.best).double().mean().item(),
                answer_log_likelihood=(total.gold_logit - total.log_sum()).mean().item(),
                adapter_log_likelihood=(first.gold_logit - first.log_sum()).mean().item(),
                answer_tokens=len(gold),
                records=len(examples.sequences),
            )
        )
    return found


class _Softmax:
    """Σ exp(logit), the largest logit and the gold one of each token, block by block of the vocabulary."""

    def __init__(self, gold: torch.Tensor) -> None:
        import torch

        self.largest = torch.full((len(gold),), -torch.inf, dtype=torch.float64)
        self.sum = torch.zeros(len(gold), dtype=torch.float64)
        self.best = torch.zeros(len(gold), dtype=torch.int64)
        self.gold_logit = torch.zeros(len(gold), dtype=torch.float64)
        self._gold = gold

    def add(self, logits: torch.Tensor, start: int) -> torch.Tensor:
        """Take (tokens, block) logits of the vocabulary from `start` on; what earlier sums are to be multiplied by."""
        import torch

        largest, best = logits.max(dim=1)
        self.best = torch.where(largest > self.largest, best + start, self.best)
        before, self.largest = self.largest, torch.maximum(self.largest, largest)
        rescale = (before - self.largest).exp()
        self.sum = self.sum * rescale + (logits - self.largest[:, None]).exp().sum(dim=1)
        here = (self._gold >= start) & (self._gold < start + logits.shape[1])
        self.gold_logit[here] = logits[here, self._gold[here] - start]
        return rescale

    def log_sum(self) -> torch.Tensor:
        return self.largest + self.sum.log()


class _Projection:
    """x Wᵀ by rows of W; unmerged, the adapter's factors are multiplied with x instead of being added to W."""

    def __init__(self, rows: TensorRows, name: str, *, unmerged: bool) -> None:
        self.tensor = rows.open(name)
        update = rows.updates.get(name)
        self._low_rank = update.low_rank() if update and unmerged else None

    def block(self, x: torch.Tensor, rows: slice) -> torch.Tensor:
        import torch

        weight = self.tensor.values(rows, updated=self._low_rank is None)
        y = x @ weight.T
        if self._low_rank is None:
            return y
        factors, magnitude = self._low_rank
        for a, b, scale in factors:
            y += (x @ a.T) @ b[rows].T * scale
        if magnitude is not None:  # DoRA: the sum's rows have length `magnitude`
            for a, b, scale in factors:
                weight += b[rows] @ a * scale
            y *= magnitude[rows] / torch.linalg.norm(weight, dim=1)
        return y


class _Model:
    """The weights of a merged model for `final_states`, written or not."""

    def __init__(self, rows: TensorRows, *, unmerged: bool) -> None:
        self._rows = rows
        self._unmerged = unmerged

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        import torch

        merged = self._rows.open(_EMBEDDING)
        wanted, places = torch.unique(ids, return_inverse=True)
        found = torch.empty(len(wanted), merged.tensor.shape[1])
        for block in merged.blocks_of(wanted.tolist()):
            inside = (wanted >= block.start) & (wanted < block.stop)
            found[inside] = merged.values(block)[wanted[inside] - block.start]
        return found[places]

    def vector(self, name: str) -> torch.Tensor | None:
        tensor = self._rows.tensors.get(name)
        return None if tensor is None else self._rows.open(name).values(slice(0, tensor.shape[0]))

    def linear(self, module: str, x: torch.Tensor) -> torch.Tensor:
        projection = _Projection(self._rows, f"{module}.weight", unmerged=self._unmerged)
        merged = projection.tensor
        y = x.new_empty(len(x), merged.tensor.shape[0])
        for block in merged.blocks():
            y[:, block] = projection.block(x, block)
        bias = self.vector(f"{module}.bias")
        return y if bias is None else y.add_(bias)

    def head(self, *, tied: bool) -> _Projection:
        return _Projection(self._rows, _EMBEDDING if tied else _HEAD, unmerged=self._unmerged and not tied)
