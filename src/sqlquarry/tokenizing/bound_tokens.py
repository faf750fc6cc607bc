"""Hold what a prompt takes from one tokenizer: the template, BOS, EOS and what ends an answer."""

from __future__ import annotations

from dataclasses import dataclass

from sqlquarry.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BoundTokens:
    """What a base model adds to the wording.

    Args:
        template: the Jinja source.
        bos: BOS text, "" where the model has none.
        eos: EOS text.
        adds_bos: whether the tokenizer puts BOS in front of any text by itself.
        stop: what ends an answer.
    """

    template: str
    bos: str
    eos: str
    adds_bos: bool
    stop: str

    def __post_init__(self) -> None:
        texts: tuple[object, ...] = (self.template, self.bos, self.eos, self.stop)
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.adds_bos, bool):
            raise ConfigError(f"a bound prompt needs four texts and whether BOS is added, but has {self!r:.200}")
