"""Compare merged models with the adapter on its training base, token by token of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlquarry.errors import MergeError
from sqlquarry.files.metadata import JsonObject
from sqlquarry.merging.merged_tensors import MergedTensors
from sqlquarry.merging.verification.examples import Examples
from sqlquarry.merging.verification.forward import Architecture, final_states
from sqlquarry.progress.bar import phase
from sqlquarry.provenance import AdapterAgreement

if TYPE_CHECKING:
    import torch

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


def compare(
    config: JsonObject, reference: MergedTensors, candidates: Sequence[MergedTensors], examples: Examples
) -> list[AdapterAgreement]:
    """Run the unmerged adapter on its training base and each candidate over the same tokens, and compare the results.

    Args:
        config: the model's config.json.
        reference: the training base with the adapter's updates, in fp32.
        candidates: the models to compare with `reference`.
        examples: the tokens to run over.

    Raises:
        UnsupportedModelError: verification is not available for this architecture.
        MergeError: the weights contain NaN or infinity.
    """
    import torch

    architecture = Architecture.of(config)
    name = f"comparing the model with the adapter on {len(examples.sequences)} records"
    with torch.inference_mode(), phase(name):
        models = [_Model(rows, unmerged=number == 0) for number, rows in enumerate([reference, *candidates])]
        states = [final_states(architecture, model, examples.sequences)[list(examples.states)] for model in models]
        tied = bool(config.get("tie_word_embeddings")) or _HEAD not in reference.tensors
        return _compared([model.head(tied=tied) for model in models], states, examples)


def _compared(
    heads: Sequence[_Projection], states: Sequence[torch.Tensor], examples: Examples
) -> list[AdapterAgreement]:
    """Compute the agreement by blocks of the vocabulary, so that the full logits are never in memory."""
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
            raise MergeError("the model's logits contain NaN or infinity. Check the base and the adapter.")
        found.append(
            AdapterAgreement(
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
    """Σ exp(logit), the largest logit and the gold logit of each token, computed by blocks of the vocabulary."""

    def __init__(self, gold: torch.Tensor) -> None:
        import torch

        self.largest = torch.full((len(gold),), -torch.inf, dtype=torch.float64)
        self.sum = torch.zeros(len(gold), dtype=torch.float64)
        self.best = torch.zeros(len(gold), dtype=torch.int64)
        self.gold_logit = torch.zeros(len(gold), dtype=torch.float64)
        self._gold = gold

    def add(self, logits: torch.Tensor, start: int) -> torch.Tensor:
        """Add a block of logits, (tokens, block), that begins at token `start` of the vocabulary.

        Returns:
            for each token the factor by which sums over earlier blocks must be scaled.
        """
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
    """x Wᵀ by rows of W. If unmerged, the adapter's factors are multiplied with x instead of being added to W."""

    def __init__(self, rows: MergedTensors, name: str, *, unmerged: bool) -> None:
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
        if magnitude is not None:  # DoRA scales each row of the sum to the length `magnitude`
            for a, b, scale in factors:
                weight += b[rows] @ a * scale
            y *= magnitude[rows] / torch.linalg.norm(weight, dim=1)
        return y


class _Model:
    """The weights of a merged model for `final_states`. The model need not be written yet."""

    def __init__(self, rows: MergedTensors, *, unmerged: bool) -> None:
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
