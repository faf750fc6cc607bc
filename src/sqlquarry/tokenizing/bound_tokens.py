"""Define the parts of a prompt that depend on the tokenizer: the template, BOS, EOS and the stop text."""

from __future__ import annotations

from dataclasses import dataclass

from sqlquarry.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BoundTokens:
    """The parts of a prompt that come from the base model's tokenizer.

    Args:
        template: the Jinja source of the chat template.
        bos: the text of BOS, or "" if the model has no BOS.
        eos: the text of EOS.
        adds_bos: whether the tokenizer itself adds BOS before every text.
        stop: the text that ends an answer.
    """

    template: str
    bos: str
    eos: str
    adds_bos: bool
    stop: str

    def __post_init__(self) -> None:
        texts: tuple[object, ...] = (self.template, self.bos, self.eos, self.stop)
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.adds_bos, bool):
            raise ConfigError(
                f"a bound prompt needs template, bos, eos and stop as text and adds_bos as a boolean, not {self!r:.200}"
            )
