"""The options of decoding, and the loop that writes the answers to a batch of prompts token by token."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlquarry.answers import Generation
from sqlquarry.errors import ConfigError
from sqlquarry.inputs import is_whole, option_problems, stop_problems
from sqlquarry.models.local.constraints import Constraint, Matcher, Vocabulary
from sqlquarry.models.local.prefill import PromptReader
from sqlquarry.models.local.sampling import GREEDY, Sampling, adjusted, pick
from sqlquarry.options import check_options

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast


@check_options()
@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingOptions:
    """Options that determine how completions are written and when they end.

    Args:
        max_tokens: longest completion, in tokens. A completion also ends where the model's context does.
        min_tokens: shortest completion, in tokens.
        sampling: how tokens are chosen. The default is greedy.
        seed: seed of the sampling. None uses a random seed.
        stop: texts that end a completion. They are removed from its end.
        stop_token_ids: ids of tokens that end a completion, in addition to the model's own.
        ignore_eos: continue after the model's own end tokens.
        constraint: the form that each completion must have. A completion that is cut off may have only its beginning.
        logprobs: report the log-probability of each written token, including the token that ends the answer. The values
            are the model's own, before sampling and constraint.
        add_special_tokens: allow the tokenizer to add BOS in front. Turn it off for rendered chat templates.
        skip_special_tokens: leave special tokens out of the text.

    Raises:
        ConfigError: an option has the wrong type, is out of range, or contradicts the constraint.
    """

    max_tokens: int = 256
    min_tokens: int = 0
    sampling: Sampling = GREEDY
    seed: int | None = None
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    constraint: Constraint | None = None
    logprobs: bool = False
    add_special_tokens: bool = True
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        bad = option_problems({"max_tokens": self.max_tokens}, {"min_tokens": self.min_tokens})
        bad += stop_problems(self.stop)
        if not bad and self.min_tokens > self.max_tokens:
            bad.append(f"min_tokens is {self.min_tokens}, but must be at most max_tokens, which is {self.max_tokens}")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            bad.append(f"seed is {self.seed!r:.60}, but must be None or a whole number of 64 bits")
        if not all(is_whole(token) and token >= 0 for token in self.stop_token_ids):
            bad.append(f"stop_token_ids is {self.stop_token_ids!r:.60}, but must be a list of token ids")
        if self.constraint and (self.min_tokens or self.ignore_eos):
            bad.append("a constraint determines where an answer ends, so min_tokens and ignore_eos cannot be set too")
        if bad:
            raise ConfigError("DecodingOptions: " + "; ".join(bad))
        for name in ("stop", "stop_token_ids"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def check_token_ids(self, size: int) -> None:
        """Check that a model with `size` tokens has every token id in these options.

        Raises:
            ConfigError: the model lacks a token id.
        """
        if any(token >= size for token in self.stop_token_ids):
            raise ConfigError(
                f"stop_token_ids is {list(self.stop_token_ids)!r:.60}, but must be a list of token ids below {size:,}"
            )
        if unknown := [token for token in self.sampling.logit_bias if token >= size]:
            raise ConfigError(f"logit_bias is set for token {unknown[0]}, but the model has only {size:,} tokens")


@dataclass(slots=True)
class _Draft:
    """An answer that is being written. `answer` is None until it ends."""

    prompt: list[int]
    max_tokens: int
    matcher: Matcher | None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    answer: Generation | None = None


class Decoder:
    """A decoder of prompt batches for one model and one set of options.

    Args:
        reader: runs the forward passes.
        tokenizer: turns tokens into text.
        vocabulary: the tokens in the form that constraints use.
        options: how to decode.
        eos_ids: the model's own end tokens.
        context_tokens: the model's limit for prompt and answer together, or None if there is no limit.
        device: "cpu" or "cuda".
    """

    def __init__(
        self,
        reader: PromptReader,
        tokenizer: PreTrainedTokenizerFast,
        vocabulary: Vocabulary,
        options: DecodingOptions,
        *,
        eos_ids: frozenset[int],
        context_tokens: int | None,
        device: str,
    ) -> None:
        import torch

        self._reader, self._tokenizer, self._vocabulary, self._options = reader, tokenizer, vocabulary, options
        self._context_tokens = sys.maxsize if context_tokens is None else context_tokens
        self._ending_ids = frozenset(options.stop_token_ids) | (frozenset() if options.ignore_eos else eos_ids)
        self._never_first = list(self._ending_ids | eos_ids)  # not allowed before `min_tokens`
        self._random = torch.Generator(device=device)
        self._random.manual_seed(int(options.seed) if options.seed is not None else torch.seed() % 2**63)

    def decode(self, prompts: Sequence[list[int]]) -> list[Generation]:
        """Return the answer to each prompt, in order. Prompts are lists of token ids.

        Raises:
            ConfigError: the constraint does not fit the tokenizer.
        """
        import torch

        started = time.monotonic()
        drafts = [self._draft(prompt) for prompt in prompts]
        logits, cache, mask, order = self._reader.read(prompts)
        rows = [drafts[index] for index in order]  # the draft of each row of the cache
        while True:
            tokens = self._next_tokens(logits, rows)
            self._extend(rows, tokens, logits)
            unfinished = [row for row, draft in enumerate(rows) if draft.answer is None]
            if not unfinished:
                break
            # A finished row costs as much as any other, but dropping rows copies the cache.
            if 2 * len(unfinished) <= len(rows):
                keep = torch.tensor(unfinished, device=tokens.device)
                cache.batch_select_indices(keep)
                tokens, mask = tokens[keep], mask[keep]
                rows = [rows[row] for row in unfinished]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            positions = mask.sum(dim=1, keepdim=True) - 1
            logits = self._reader.step(tokens[:, None], mask, positions, cache)
        latency_s = time.monotonic() - started
        return [self._finished(draft, draft.answer, latency_s) for draft in drafts if draft.answer]

    def _draft(self, prompt: list[int]) -> _Draft:
        constraint, room = self._options.constraint, self._context_tokens - len(prompt)
        matcher = constraint.begin(self._vocabulary) if constraint else None
        return _Draft(prompt, min(self._options.max_tokens, room), matcher)

    def _next_tokens(self, logits: torch.Tensor, rows: Sequence[_Draft]) -> torch.Tensor:
        """Choose the next token of each row: logits (rows, vocabulary) -> (rows,)."""
        sampling = self._options.sampling
        prompts, written = [draft.prompt for draft in rows], [draft.tokens for draft in rows]
        allowed = adjusted(logits, sampling, prompts, written)
        for row, draft in enumerate(rows):
            if draft.answer is None:
                self._forbid(allowed[row], draft)
        return pick(allowed, sampling, self._random)

    def _forbid(self, logits: torch.Tensor, draft: _Draft) -> None:
        """Set the logits (vocabulary,) of tokens that may not come next to minus infinity, in place."""
        import torch

        if len(draft.tokens) < self._options.min_tokens:
            logits[self._never_first] = float("-inf")
        if draft.matcher:
            allowed = torch.zeros(len(logits), dtype=torch.bool)
            # Models pad their vocabulary, and masks are padded to whole words. So either may be longer.
            known = draft.matcher.allowed()[: len(logits)]
            allowed[: len(known)] = known
            logits[~allowed.to(logits.device)] = float("-inf")

    def _extend(self, rows: Sequence[_Draft], tokens: torch.Tensor, logits: torch.Tensor) -> None:
        """Append the chosen tokens (rows,) to the answers that have not ended."""
        scores: list[float] = []
        if self._options.logprobs:
            scores = logits.log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0].tolist()
        for row, (draft, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if draft.answer is not None:
                continue
            if scores:
                draft.logprobs.append(scores[row])
            if draft.matcher:
                draft.matcher.take(token)
            draft.tokens.append(token)
            draft.answer = self._ended(draft)

    def _ended(self, draft: _Draft) -> Generation | None:
        """Return the answer if its last token ends it, otherwise None."""
        least, tokens = self._options.min_tokens, draft.tokens
        if tokens[-1] in self._ending_ids:
            return Generation(self._text(tokens[:-1]))
        if self._options.stop and len(tokens) > least:
            text = self._text(tokens)
            # A stop text may start within the first `min_tokens` tokens, but must end after them.
            fixed = len(self._text(tokens[:least])) if least else 0
            matches = [(text.find(word, max(0, fixed + 1 - len(word))), word) for word in self._options.stop]
            if first := min((match for match in matches if match[0] >= 0), default=None):
                return Generation(text[: first[0]], stop_text=first[1])
        return Generation(self._text(tokens), "length") if len(tokens) >= draft.max_tokens else None

    def _finished(self, draft: _Draft, answer: Generation, latency_s: float) -> Generation:
        return dataclasses.replace(
            answer,
            prompt_tokens=len(draft.prompt),
            completion_tokens=len(draft.tokens),
            latency_s=latency_s,
            logprobs=tuple(draft.logprobs) if self._options.logprobs else None,
        )

    def _text(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=self._options.skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text
