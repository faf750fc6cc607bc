"""Estimate token counts without a tokenizer, to plan with a base model whose files cannot be reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

# With the published prompt, a token of SmolLM2's tokenizer (49,152 tokens) has 3.8 bytes in the sample records, 3.6 in
# WikiSQL and 3.9 in Spider, and less than 3.0 in one of a hundred records (3,000 WikiSQL records, 2026-11-30). Llama 3
# and Qwen have larger vocabularies, which need fewer tokens. So the estimate is about a fifth too high.
BYTES_PER_TOKEN = 3
# A real chat template would have about this length.
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class TokenEstimator:
    """A stand-in for a tokenizer. Every three bytes are one token, so equal beginnings have equal tokens."""

    bos_token: str | None = None
    eos_token: str | None = "<|im_end|>"  # noqa: S105 - the end of a turn, not a password
    bos_token_id: int | None = None
    eos_token_id: int | None = -1
    pad_token_id: int | None = None
    chat_template: object = _CHAT_TEMPLATE

    @overload
    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Mapping[str, list[int]]: ...  # type: ignore[overload-overlap]  # as `Tokenizer`: text is a sequence
    @overload
    def __call__(self, text: Sequence[str], *, add_special_tokens: bool = True) -> Mapping[str, list[list[int]]]: ...
    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = True,  # noqa: ARG002 - there are none
    ) -> Mapping[str, list[int]] | Mapping[str, list[list[int]]]:
        """Return "input_ids" of one text, or a list for several texts."""
        if isinstance(text, str):
            return {"input_ids": _ids(text)}
        return {"input_ids": [_ids(one) for one in text]}


def _ids(text: str) -> list[int]:
    content = text.encode(errors="replace")
    return [
        int.from_bytes(content[start : start + BYTES_PER_TOKEN]) for start in range(0, len(content), BYTES_PER_TOKEN)
    ]
