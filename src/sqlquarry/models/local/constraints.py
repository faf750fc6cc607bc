"""Constrain answers to a JSON schema, a regular expression, one of several texts, or a grammar.

Before each token, the decoding loop asks a `Matcher` which tokens may come next. Tokens that end an answer are allowed
only if the answer may end there. docs/emulator-requests.md explains the choice of llguidance, whose docs/json_schema.md
describes the JSON schemas that it supports. Regular expressions follow Rust's regex crate and must match the whole
answer. Grammars are written in Lark (the first rule is `start`) or in GBNF (`root`), because vLLM accepts both.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, Protocol, Self

from sqlquarry.errors import ConfigError
from sqlquarry.extras import require

if TYPE_CHECKING:
    import llguidance
    import torch
    from transformers import PreTrainedTokenizerFast

FormKind = Literal["json", "regex", "choice", "grammar"]
# Maximum number of characters. At three times as many, long chains of rules overflow llguidance's native stack, which
# kills the process.
_LIMITS: Mapping[FormKind, int] = {"json": 32_768, "regex": 8_192, "choice": 32_768, "grammar": 8_192}
_SHOWN_CHARACTERS = 300
# llguidance builds a state for each remainder before an answer starts. A multipleOf of 999,983 takes eight seconds.
_LARGEST_DIVISOR = 10_000
# If only one continuation is possible, llguidance would write it by itself and tokenize it. It would write the text
# "<|im_end|>" as the special token, so the model writes forced text too.
_OPTIONS = '\n%llguidance {"no_forcing": true}'
_GBNF_RULE = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)
# White space between two JSON tokens. It is enough to indent, but limited, because models that never learned JSON would
# write white space forever.
_WHITE_SPACE = r"[\x20\x0A\x0D\x09]{1,40}"


class Vocabulary:
    """The tokens of a model in the form that constraints use. It is built once per model, in about a second.

    Args:
        tokenizer: a fast tokenizer of transformers.
        ending_ids: ids of the tokens that end an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, ending_ids: Collection[int]) -> None:
        self._tokenizer, self._ending_ids = tokenizer, sorted(ending_ids)

    @functools.cached_property
    def table(self) -> llguidance.LLTokenizer:
        """The table of tokens that llguidance uses.

        Raises:
            ConfigError: the model has no token that ends an answer, or llguidance does not support its tokenizer.
        """
        from llguidance.hf import from_tokenizer

        if not self._ending_ids:
            raise ConfigError(
                "a constrained answer needs a token that ends it, but the model has no eos_token. Set it in "
                "tokenizer_config.json."
            )
        try:
            return from_tokenizer(self._tokenizer, eos_token=self._ending_ids)
        except ValueError as error:
            raise ConfigError(f"this model's tokenizer cannot be constrained: {_first(str(error))}") from error


class Constraint(Protocol):
    """A form that answers must have, for example an `AnswerForm`."""

    def begin(self, vocabulary: Vocabulary) -> Matcher:
        """Return a matcher for a new answer.

        Raises:
            ConfigError: the constraint is not valid.
        """
        ...


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """A constraint on answers: a JSON schema, regular expression, choice or grammar. Use `of` to create one.

    Args:
        kind: "json", "regex", "choice" or "grammar".
        source: the schema or the list of texts as JSON, or the expression or grammar itself.
    """

    kind: FormKind
    source: str

    @classmethod
    def of(cls, kind: str, value: object) -> Self:
        """Create a constraint and check it. The check takes milliseconds, or a few seconds for a malicious constraint.

        Args:
            kind: "json", "regex", "choice" or "grammar".
            value: a JSON schema (mapping or JSON text), a regular expression, a list of texts, or a grammar.

        Raises:
            ConfigError: the kind is unknown, or the value has the wrong type, is too long, is not valid, or uses
                features that are not supported.
            MissingExtraError: llguidance is not installed.
        """
        require("emulator", "a constrained answer")
        known = next((one for one in _LIMITS if one == kind), None)
        if known is None:
            raise ConfigError(f"an answer cannot be constrained by {kind!r}, only by one of {', '.join(_LIMITS)}")
        form = cls(known, _source(known, value))
        form._check()
        return form

    def begin(self, vocabulary: Vocabulary) -> Matcher:
        """Return a matcher for a new answer.

        Raises:
            ConfigError: llguidance does not support the tokenizer, or the constraint is not valid or too complex.
        """
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(verbose_errors=False)  # Verbose messages contain the complete state of the parser.
        return Matcher(LLMatcher(vocabulary.table, self._grammar(), log_level=0, limits=limits), self.kind)

    def _check(self) -> None:
        from llguidance import LLMatcher

        limit = _LIMITS[self.kind]
        if len(self.source) > limit:
            raise ConfigError(f"{self.kind} has {len(self.source):,} characters, but may have at most {limit:,}")
        try:
            failed, messages = LLMatcher.validate_grammar_with_warnings(self._grammar())
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{self.kind} is not valid: {_first(str(error))}") from error
        if failed:
            raise ConfigError(f"{self.kind} is not valid: {_first(messages[0])}")
        if self.kind == "json" and (large := max(_divisors(json.loads(self.source)), default=0)) > _LARGEST_DIVISOR:
            raise ConfigError(
                f"json is too complex: multipleOf, without its decimal point, is {large:,}, but may be at most "
                f"{_LARGEST_DIVISOR:,}"
            )

    def _grammar(self) -> str:
        """Return the constraint as a Lark grammar.

        Raises:
            ValueError: the constraint is not valid.
        """
        from llguidance import LLMatcher
        from llguidance.gbnf_to_lark import gbnf_to_lark

        if self.kind == "json":
            written = LLMatcher.grammar_from_json_schema(self.source, overrides={"whitespace_pattern": _WHITE_SPACE})
            return f"start: %json {json.dumps(json.loads(written)['grammars'][0]['json_schema'])}{_OPTIONS}"
        if self.kind == "grammar":
            if not _GBNF_RULE.search(self.source):
                return self.source + _OPTIONS
            try:
                return gbnf_to_lark(self.source) + _OPTIONS
            except Exception as error:  # The converter fails with various exceptions, such as IndexError.
                raise ValueError(f"as GBNF: {error}") from error
        expression = "|".join(map(_literal, json.loads(self.source))) if self.kind == "choice" else self.source
        (grammar,) = json.loads(LLMatcher.grammar_from_regex(expression))["grammars"]
        return f"{grammar['lark_grammar']}{_OPTIONS}"


class Matcher:
    """The state of one constrained answer while it is written. It wraps llguidance's matcher."""

    def __init__(self, matcher: llguidance.LLMatcher, kind: FormKind) -> None:
        self._matcher, self._kind = matcher, kind
        self._raise_if_failed()

    def allowed(self) -> torch.Tensor:
        """Return which tokens may come next, as one bool per token of the vocabulary, on the CPU.

        Raises:
            ConfigError: no token is allowed, or the constraint is too complex.
        """
        import torch

        packed = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        self._raise_if_failed()
        bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
        return bits.flatten().bool()

    def take(self, token: int) -> None:
        """Advance by the token that was written, which must be allowed."""
        self._matcher.consume_token(token)
        self._raise_if_failed()

    def _raise_if_failed(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error().removesuffix("<non-verbose/>")
            reason = "no text has this form" if reason.startswith("NoExtension") else _first(reason)
            raise ConfigError(f"{self._kind} cannot be satisfied: {reason}")


def _source(kind: FormKind, value: object) -> str:
    """Return the value of a constraint as text."""
    if kind == "choice":
        fits = isinstance(value, list | tuple) and all(isinstance(text, str) and text for text in value)
        wanted = "a list of non-empty texts"
    elif kind == "json":
        fits, wanted = isinstance(value, Mapping | str), "a JSON schema, as a mapping or as JSON text"
    else:
        fits, wanted = isinstance(value, str), "a non-empty text"
    if not fits or value in ("", [], ()):
        raise ConfigError(f"{kind} is {value!r:.80}, but must be {wanted}")
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{kind} is {value!r:.80}, but must contain only JSON values") from error


def _divisors(schema: object) -> Iterator[int]:
    """Yield each multipleOf of a schema as an integer, without its decimal point (1225 for 12.25)."""
    if isinstance(schema, Mapping):
        value = schema.get("multipleOf")
        if isinstance(value, int | float):
            number = Decimal(repr(value))
            yield int(number.scaleb(max(0, -int(number.as_tuple().exponent))))
    for inner in schema.values() if isinstance(schema, Mapping) else schema if isinstance(schema, list) else ():
        yield from _divisors(inner)


def _literal(text: str) -> str:
    """Return a regular expression that matches only this text."""
    return "".join(one if one.isascii() and one.isalnum() else f"\\x{{{ord(one):x}}}" for one in text)


def _first(message: str) -> str:
    """Return the beginning of a message as one line."""
    return " ".join(message.split())[:_SHOWN_CHARACTERS]
