"""Constrain answers to a form: JSON of a schema, a regular expression, one of several texts, or a grammar.

A decoding loop asks a `Matcher` before each token which tokens may come next; tokens that end an answer are among them
only where the answer may end. llguidance does the work (docs/emulator.md says why). It reads JSON schemas as its
docs/json_schema.md describes, and regular expressions as Rust's regex crate does; an expression matches the whole
answer. Grammars are written in Lark's language (the first rule is `start`) or in GBNF (`root`), as vLLM takes both.
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
# Characters. At three times as many, chains of rules overflow llguidance's native stack, which ends the process.
_LIMITS: Mapping[FormKind, int] = {"json": 32_768, "regex": 8_192, "choice": 32_768, "grammar": 8_192}
_SHOWN_CHARACTERS = 300
# llguidance builds a state for each remainder before an answer begins: a multipleOf of 999,983 takes eight seconds.
_LARGEST_DIVISOR = 10_000
# What follows of itself is left to the model like everything else: llguidance would write it as the tokenizer reads it,
# and so "<|im_end|>" as the special token, which is not that text.
_OPTIONS = '\n%llguidance {"no_forcing": true}'
_GBNF_RULE = re.compile(r"^\s*[\w-]+\s*::=", re.MULTILINE)
# Between two tokens of JSON: enough to indent, not without end, which models that never learned JSON fall into.
_WHITE_SPACE = r"[\x20\x0A\x0D\x09]{1,40}"


class Vocabulary:
    """Hold the tokens of a model in the form that constraints read; built once per model, which takes about a second.

    Args:
        tokenizer: a fast tokenizer of transformers.
        ending_ids: tokens that end an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, ending_ids: Collection[int]) -> None:
        self._tokenizer, self._ending_ids = tokenizer, sorted(ending_ids)

    @functools.cached_property
    def table(self) -> llguidance.LLTokenizer:
        """Build the table of tokens.

        Raises:
            ConfigError: the model names no token that ends an answer, or its tokenizer is of another kind.
        """
        from llguidance.hf import from_tokenizer

        if not self._ending_ids:
            raise ConfigError("a constrained answer needs a token that ends it, but the model names no eos_token")
        try:
            return from_tokenizer(self._tokenizer, eos_token=self._ending_ids)
        except ValueError as error:
            raise ConfigError(f"this model's tokenizer cannot be constrained: {_first(str(error))}") from error


class Constraint(Protocol):
    """Says what answers must look like; `AnswerForm` is one."""

    def begin(self, vocabulary: Vocabulary) -> Matcher:
        """Return a matcher for a new answer.

        Raises:
            ConfigError: the constraint cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """Constrain answers by JSON schema, regular expression, choice or grammar; `of` makes one.

    Args:
        kind: which of the four.
        source: the schema or the list of texts as JSON, else the expression or grammar itself.
    """

    kind: FormKind
    source: str

    @classmethod
    def of(cls, kind: str, value: object) -> Self:
        """Read a constraint and check it, which takes milliseconds, and seconds at most for a hostile one.

        Args:
            kind: "json", "regex", "choice" or "grammar".
            value: a JSON schema (mapping, or JSON text), a regular expression, a list of texts, or a grammar.

        Raises:
            ConfigError: another kind, a value of the wrong type, too long, not valid, or with features that are not
                supported.
            MissingExtraError: llguidance is not installed.
        """
        require("emulator", "a constrained answer")
        known = next((one for one in _LIMITS if one == kind), None)
        if known is None:
            raise ConfigError(f"an answer can be constrained by {', '.join(_LIMITS)}, but not by {kind!r}")
        form = cls(known, _source(known, value))
        form._check()
        return form

    def begin(self, vocabulary: Vocabulary) -> Matcher:
        """Return a matcher for a new answer.

        Raises:
            ConfigError: the tokenizer is of a kind that cannot be constrained, or the form cannot be read or takes too
                much work.
        """
        from llguidance import LLMatcher, LLParserLimits

        limits = LLParserLimits(verbose_errors=False)  # else messages end with the parser's whole state
        return Matcher(LLMatcher(vocabulary.table, self._grammar(), log_level=0, limits=limits), self.kind)

    def _check(self) -> None:
        from llguidance import LLMatcher

        limit = _LIMITS[self.kind]
        if len(self.source) > limit:
            raise ConfigError(f"{self.kind} has {len(self.source):,} characters, but may have {limit:,}")
        try:
            failed, messages = LLMatcher.validate_grammar_with_warnings(self._grammar())
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{self.kind} cannot be read: {_first(str(error))}") from error
        if failed:
            raise ConfigError(f"{self.kind} cannot be read: {_first(messages[0])}")
        if self.kind == "json" and (large := max(_divisors(json.loads(self.source)), default=0)) > _LARGEST_DIVISOR:
            raise ConfigError(
                f"json takes too much work: multipleOf, without its decimal point, is {large:,}, but may be "
                f"{_LARGEST_DIVISOR:,}"
            )

    def _grammar(self) -> str:
        """Return it in Lark's language.

        Raises:
            ValueError: it cannot be read.
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
            except Exception as error:  # it fails with whatever comes, such as IndexError
                raise ValueError(f"as GBNF: {error}") from error
        expression = "|".join(map(_literal, json.loads(self.source))) if self.kind == "choice" else self.source
        (grammar,) = json.loads(LLMatcher.grammar_from_regex(expression))["grammars"]
        return f"{grammar['lark_grammar']}{_OPTIONS}"


class Matcher:
    """Follows one answer while it is written, by llguidance's matcher."""

    def __init__(self, matcher: llguidance.LLMatcher, kind: FormKind) -> None:
        self._matcher, self._kind = matcher, kind
        self._raise_if_failed()

    def allowed(self) -> torch.Tensor:
        """Return which tokens may come next: a bool for each token of the vocabulary, on the CPU.

        Raises:
            ConfigError: no token may, or finding out takes too much work.
        """
        import torch

        packed = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        self._raise_if_failed()
        bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
        return bits.flatten().bool()

    def take(self, token: int) -> None:
        """Take the token that was written, one of the allowed ones."""
        self._matcher.consume_token(token)
        self._raise_if_failed()

    def _raise_if_failed(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error().removesuffix("<non-verbose/>")
            reason = "no text has this form" if reason.startswith("NoExtension") else _first(reason)
            raise ConfigError(f"{self._kind} cannot be followed: {reason}")


def _source(kind: FormKind, value: object) -> str:
    """Return a constraint as text."""
    if kind == "choice":
        fits = isinstance(value, list | tuple) and all(isinstance(text, str) and text for text in value)
        wanted = "a list of texts that are not empty"
    elif kind == "json":
        fits, wanted = isinstance(value, Mapping | str), "a JSON schema: an object, or its text"
    else:
        fits, wanted = isinstance(value, str), "a text"
    if not fits or value in ("", [], ()):
        raise ConfigError(f"{kind} is {value!r:.80}, but must be {wanted}")
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{kind} is {value!r:.80}, but must be something that JSON can hold") from error


def _divisors(schema: object) -> Iterator[int]:
    """Return each multipleOf of a schema as a whole number: 1225 for 12.25."""
    if isinstance(schema, Mapping):
        value = schema.get("multipleOf")
        if isinstance(value, int | float):
            number = Decimal(repr(value))
            yield int(number.scaleb(max(0, -int(number.as_tuple().exponent))))
    for inner in schema.values() if isinstance(schema, Mapping) else schema if isinstance(schema, list) else ():
        yield from _divisors(inner)


def _literal(text: str) -> str:
    """Return a regular expression that matches this text only."""
    return "".join(one if one.isascii() and one.isalnum() else f"\\x{{{ord(one):x}}}" for one in text)


def _first(message: str) -> str:
    """Return the beginning of a message on one line."""
    return " ".join(message.split())[:_SHOWN_CHARACTERS]
