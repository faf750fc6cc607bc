"""Run the forward passes over a batch of prompts, computing a common prefix only once."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlquarry.checkpoints.attention import windows_of
from sqlquarry.tokenizing.prefixes import common_prefix, group_by_prefix

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache, PreTrainedModel


class PromptReader:
    """A reader that processes prompts into a cache and then adds one token at a time to each.

    Args:
        model: a causal language model of transformers, or a PEFT adapter on one.
        device: "cpu" or "cuda".
    """

    def __init__(self, model: PreTrainedModel, device: str) -> None:
        self._model, self._device = model, device
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        # transformers 5.40 renames the argument, and the old name causes a warning since 5.24.
        names = inspect.signature(base.forward).parameters
        self._cache_argument = "cache" if "cache" in names else "past_key_values"
        # transformers measures sliding windows in columns, so with a window all padding must be in front.
        self._has_window = windows_of(model.config.get_text_config(), sys.maxsize) is not None

    def read(self, prompts: Sequence[list[int]]) -> tuple[torch.Tensor, DynamicCache, torch.Tensor, list[int]]:
        """Read the prompts, one group with a common prefix at a time.

        Returns:
            The logits of the next tokens (batch, vocabulary), the cache, its mask, and the index of the prompt of each
            row.
        """
        import torch
        from transformers import DynamicCache

        # A GPU reads a thousand tokens in the time of one, so it gains more from fewer forward passes than from fewer
        # tokens.
        groups = group_by_prefix(prompts) if self._device == "cpu" else [list(range(len(prompts)))]
        parts = [self._read_group([prompts[index] for index in group]) for group in groups]
        width = max(mask.shape[1] for _, _, mask in parts)
        cache = DynamicCache()
        for number in range(len(parts[0][1].layers)):
            layers = [part.layers[number] for _, part, _ in parts]
            cache.update(
                torch.cat([_pad_left(layer.keys, width, dim=2) for layer in layers]),
                torch.cat([_pad_left(layer.values, width, dim=2) for layer in layers]),
                number,
            )
        mask = torch.cat([_pad_left(mask, width, dim=1) for _, _, mask in parts])
        rows = [index for group in groups for index in group]
        return torch.cat([logits for logits, _, _ in parts]), cache, mask, rows

    def _read_group(self, prompts: Sequence[list[int]]) -> tuple[torch.Tensor, DynamicCache, torch.Tensor]:
        """Read prompts with a common prefix: the prefix once, then the remainders side by side."""
        import torch
        from transformers import DynamicCache

        shared = common_prefix(prompts) if len(prompts) > 1 and not self._has_window else 0
        cache = DynamicCache()
        if shared:
            self.step(torch.tensor([prompts[0][:shared]], device=self._device), None, None, cache)
            cache.batch_repeat_interleave(len(prompts))
        width = max(len(prompt) for prompt in prompts) - shared
        # Padding goes between the shared prefix and a shorter remainder, so that all rows end in the same column.
        pads = [width - (len(prompt) - shared) for prompt in prompts]
        rests = torch.tensor([[0] * pad + prompt[shared:] for pad, prompt in zip(pads, prompts, strict=True)])
        mask = torch.tensor([[1] * shared + [0] * pad + [1] * (width - pad) for pad in pads], device=self._device)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, shared:]
        return self.step(rests.to(self._device), mask, positions, cache), cache, mask

    def step(
        self, tokens: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor | None, cache: DynamicCache
    ) -> torch.Tensor:
        """Read tokens (batch, tokens) into the cache and return the logits of the next token (batch, vocabulary)."""
        output = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_argument: cache},
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits


def _pad_left(tensor: torch.Tensor, width: int, *, dim: int) -> torch.Tensor:
    """Prepend zeros along `dim` until it is `width` long."""
    import torch

    shape = list(tensor.shape)
    shape[dim] = width - tensor.shape[dim]
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dim)
