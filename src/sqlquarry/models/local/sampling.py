"""Choose the next token from logits, with bias, penalties, temperature and truncation as vLLM defines them.

The order is that of vLLM ("Sampler", docs.vllm.ai/en/latest/api/vllm/v1/sample/sampler). Logit bias comes first, then
the penalties. With temperature 0 the likeliest token is chosen. Otherwise temperature, `min_p`, `top_k` and `top_p` are
applied, and one of the remaining tokens is drawn at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlquarry.errors import ConfigError
from sqlquarry.options import check_options

if TYPE_CHECKING:
    import torch

# Below `_GREEDY_BELOW` vLLM takes the likeliest token. From there to `_LEAST_TEMPERATURE` it samples at
# `_LEAST_TEMPERATURE`, which keeps the logits finite.
_GREEDY_BELOW, _LEAST_TEMPERATURE = 1e-5, 0.01
# Limit of penalized logits. Divided by the least temperature, such a logit is still finite in float32 and bfloat16.
_LARGEST_LOGIT = 1e30


@check_options()
@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Options that determine how tokens are chosen. By default the likeliest token is taken.

    Args:
        temperature: divisor of the logits. 0 takes the likeliest token.
        top_p: keep the likeliest tokens whose probabilities add up to this value.
        top_k: keep this number of the likeliest tokens. 0 or -1 keeps all.
        min_p: keep tokens whose probability is at least this fraction of the highest probability.
        repetition_penalty: for tokens that occur in the prompt or answer, divides positive logits and multiplies
            negative ones.
        presence_penalty: subtracted from the logit of each token that occurs in the answer.
        frequency_penalty: subtracted from the logit once for each time that the token occurs in the answer.
        logit_bias: token id -> value that is added to its logit.

    Raises:
        ConfigError: an option has the wrong type or is out of range. The message lists all such options.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if bad := list(self._problems()):
            raise ConfigError("; ".join(bad))

    def _problems(self) -> Iterator[str]:
        # Ranges: vLLM's SamplingParams, and OpenAI's for logit_bias. NaN is outside all of them.
        if not 0 <= self.temperature < float("inf"):
            yield f"temperature is {self.temperature!r}, but must be a number of at least 0"
        if not 0 < self.top_p <= 1:
            yield f"top_p is {self.top_p!r}, but must be greater than 0 and at most 1"
        if not self.top_k >= -1:
            yield f"top_k is {self.top_k!r}, but must be a positive integer, or 0 or -1 for all tokens"
        if not 0 <= self.min_p <= 1:
            yield f"min_p is {self.min_p!r}, but must be a number from 0 to 1"
        if not 0 < self.repetition_penalty < float("inf"):
            yield f"repetition_penalty is {self.repetition_penalty!r}, but must be a number greater than 0"
        for name in ("presence_penalty", "frequency_penalty"):
            if not -2 <= getattr(self, name) <= 2:
                yield f"{name} is {getattr(self, name)!r}, but must be a number from -2 to 2"
        for token, bias in self.logit_bias.items():
            if token < 0 or not -100 <= bias <= 100:
                yield f"logit_bias is {{{token}: {bias!r}}}, but must map token ids to numbers from -100 to 100"

    @property
    def greedy(self) -> bool:
        """True if the likeliest token is always taken, so that nothing is random."""
        return self.temperature < _GREEDY_BELOW


GREEDY = Sampling()


def adjusted(
    logits: torch.Tensor, sampling: Sampling, prompts: Sequence[Sequence[int]], written: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Return a copy of logits (rows, vocabulary) with bias and penalties for each row's prompt and answer so far."""
    import torch

    size, logits = logits.shape[1], logits.clone()
    if sampling.logit_bias:
        for token, bias in sampling.logit_bias.items():
            logits[:, token] += bias
    if (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1, 0, 0):
        return logits
    counts = torch.stack([_counts(tokens, size) for tokens in written]).to(logits)
    if sampling.repetition_penalty != 1:
        seen = counts + torch.stack([_counts(tokens, size) for tokens in prompts]).to(logits) > 0
        penalty = min(max(sampling.repetition_penalty, 1 / _LARGEST_LOGIT), _LARGEST_LOGIT)
        logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
        logits = logits.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
    return logits - sampling.frequency_penalty * counts - sampling.presence_penalty * (counts > 0)


def truncated(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return the logits with minus infinity for the tokens that min_p, top_k and top_p exclude."""
    least = float("-inf")
    if sampling.min_p > 0:
        chances = logits.softmax(dim=-1)
        logits = logits.masked_fill(chances < sampling.min_p * chances.amax(dim=-1, keepdim=True), least)
    if 0 < sampling.top_k < logits.shape[-1]:
        last = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < last, least)
    if sampling.top_p < 1:
        ordered, tokens = logits.sort(dim=-1)
        dropped = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - sampling.top_p
        dropped[:, -1] = False  # always keep the likeliest token
        logits = logits.masked_fill(dropped.scatter(-1, tokens, dropped), least)
    return logits


def pick(logits: torch.Tensor, sampling: Sampling, random: torch.Generator) -> torch.Tensor:
    """Choose the next token of each row: adjusted logits (rows, vocabulary) -> (rows,)."""
    import torch

    if sampling.greedy:
        return logits.argmax(dim=-1)
    chances = truncated(logits / max(sampling.temperature, _LEAST_TEMPERATURE), sampling).softmax(dim=-1)
    return torch.multinomial(chances, 1, generator=random)[:, 0]


def _counts(tokens: Sequence[int], size: int) -> torch.Tensor:
    import torch

    return torch.bincount(torch.tensor(tokens, dtype=torch.long), minlength=size)
