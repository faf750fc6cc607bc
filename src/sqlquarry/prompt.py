"""The one prompt: what a record looks like to the model, in training and in serving.

Training tokens and serving prompt come from the same rendered text. Where the tokenizer puts BOS in front by itself,
the text carries none, because a server tokenizes the text the same way; so the tokens are equal and BOS is never
doubled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2

from sqlquarry.errors import ConfigError, IncompleteArtifactError, RecordError
from sqlquarry.files.locations import local_path
from sqlquarry.files.metadata import read_object
from sqlquarry.files.writing import write_json
from sqlquarry.options import check_options, did_you_mean
from sqlquarry.records import Message, Record
from sqlquarry.tokenizing.bound_tokens import BoundTokens
from sqlquarry.tokenizing.control_tokens import refuse_in_answers, special_tokens, stop_token_id
from sqlquarry.tokenizing.rendering import Conversation, compile_template, require_bounded
from sqlquarry.tokenizing.tokenizer import Tokenizer

PROMPT_FILE = "prompt.json"
IGNORED_LABEL = -100  # torch's CrossEntropyLoss(ignore_index=-100)

DEFAULT_SYSTEM = (
    "You are a powerful text-to-SQL model. Your job is to answer questions about a database. "
    "You can use the following table schema for context: {schema}"
)
DEFAULT_USER = "Return the SQL query that answers the following question: {question}"

# The published recipe's form (AWS, "customized-text-to-sql-model" notebook). Its prompt ended with a space, which
# tokenizes apart from the answer's first word; here the space belongs to the answer.
HUMAN_ASSISTANT = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '\n\nHuman: ' + message['content'] + eos_token }}"
    "{% else %}{{ '\n\nAssistant: ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
PLACEHOLDERS = ("schema", "question", "dialect")
# Twice in braces, as Jinja and str.format write other things, a name is text.
_PLACEHOLDER = re.compile(r"(?<!\{)\{([A-Za-z_]\w*)\}(?!\})")
_FILLED = re.compile(r"(?:(?<!\{)\{(?=\w+\})|\{(?=\w+\}(?!\})))(schema|question|dialect)\}")
_FORMATTED = re.compile(r"\{(?:schema|question|dialect)[!:][^{}]*\}")
# How a reader spells the dialects that sqlglot's names do not show.
_DIALECTS = {
    "athena": "Amazon Athena",
    "bigquery": "BigQuery",
    "clickhouse": "ClickHouse",
    "databricks": "Databricks SQL",
    "duckdb": "DuckDB",
    "mysql": "MySQL",
    "postgres": "PostgreSQL",
    "postgresql": "PostgreSQL",
    "redshift": "Amazon Redshift",
    "spark": "Spark SQL",
    "sqlite": "SQLite",
    "tsql": "T-SQL",
}
_PROBE = Record(question="Question", schema="Schema", sql="Select a")  # a template may change case


class Encoded(NamedTuple):
    """One training example: `labels` is -100 on the prompt and equals `input_ids` on the answer; both (tokens,)."""

    input_ids: list[int]
    labels: list[int]


@check_options()
@dataclass(frozen=True, slots=True)
class PromptFormatter:
    """Render records as prompts and training examples, always in the same words and tokens.

    Args:
        system: system message; "" for a model whose template knows no system role.
        user: user message; must contain ``{question}``. One of both must contain ``{schema}``, and either may contain
            ``{dialect}``: the record's SQL dialect, as "SQLite" or "PostgreSQL".
        template: "human-assistant" (the published form), "chat" (the base model's own template) or a Jinja string.
        tokens: what the base model adds to it; filled by `bind`, not by hand.

    Raises:
        ConfigError: a placeholder is missing or unknown, or the Jinja string does not parse.
    """

    system: str = DEFAULT_SYSTEM
    user: str = DEFAULT_USER
    template: str = "human-assistant"
    tokens: BoundTokens | None = None

    def __post_init__(self) -> None:
        fields: dict[str, object] = {"system": self.system, "user": self.user, "template": self.template}
        if bad := [
            f"{name} is {value!r:.80}, but must be text" for name, value in fields.items() if type(value) is not str
        ]:
            raise ConfigError("PromptFormatter: " + "; ".join(bad))
        bad = list(_placeholder_problems(self.system, self.user))
        if self.template not in ("human-assistant", "chat"):
            try:
                compile_template(self.template)
            except jinja2.TemplateSyntaxError as error:
                bad.append(
                    f"template is neither 'human-assistant' nor 'chat' nor valid Jinja (line {error.lineno}: {error})"
                )
            else:
                if "{" not in self.template:
                    bad.append(
                        f"template {self.template!r} is unknown: use 'human-assistant', 'chat' or a Jinja string"
                    )
        if bad:
            raise ConfigError("PromptFormatter: " + "; ".join(bad))

    def messages(self, record: Record) -> list[dict[str, str]]:
        """Return the record as role/content messages.

        There is no system message if `system` is "", and an assistant's if the record has SQL.
        """
        values = {
            "schema": record.schema.strip(),
            "question": record.question.strip(),
            "dialect": _DIALECTS.get(record.dialect.lower(), record.dialect.capitalize()),
        }
        # In one pass: what looks like a placeholder in a schema is part of the schema.
        system, user = (_FILLED.sub(lambda found: values[found[1]], text) for text in (self.system, self.user))
        turns = [Message("system", system)] if self.system else []
        turns.append(Message("user", user))
        if record.sql is not None:
            turns.append(Message("assistant", record.sql.strip()))
        return [turn._asdict() for turn in turns]

    def bind(self, tokenizer: Tokenizer) -> PromptFormatter:
        """Resolve template, special tokens, BOS policy and stop text against a transformers tokenizer.

        A bound formatter needs no tokenizer for `prompt`, and is returned as it is. The tokenizer's own chat template
        is rendered in a child process first (`require_bounded`), and afterwards in this one, which is a hundred times
        faster.

        Raises:
            ConfigError: the tokenizer has no EOS token, no chat template where one is needed, or ends every text with
                EOS; or the template cannot be rendered, does not end the assistant's turn with a special token, or
                takes too much time or memory.
        """
        if self.tokens is not None:
            return self
        if tokenizer.eos_token is None:
            raise ConfigError("the tokenizer has no eos_token, so a trained model could never stop. Set one.")
        source = {"human-assistant": HUMAN_ASSISTANT, "chat": tokenizer.chat_template}.get(self.template, self.template)
        if not isinstance(source, str):
            raise ConfigError(
                "template='chat' needs a base model with one chat template, but the tokenizer has "
                f"{'none' if source is None else 'several'}. Use template='human-assistant', or pass the Jinja string."
            )
        ids = tokenizer("a")["input_ids"]
        if ids[-1] == tokenizer.eos_token_id:
            raise ConfigError(
                "the tokenizer puts EOS after every text, so every prompt would end there. Switch it off."
            )
        bos = tokenizer.bos_token
        adds_bos = bos is not None and ids[0] == tokenizer.bos_token_id
        draft = BoundTokens(source, bos or "", tokenizer.eos_token, adds_bos=adds_bos, stop="")
        if self.template == "chat":
            self._require_bounded(source, draft.bos, draft.eos)
        # Some templates write an empty thought before the answer: only what follows the answer ends it.
        tail = dataclasses.replace(self, tokens=draft)._checked_stop()  # noqa: SLF001 - the same class
        if not tail:
            raise ConfigError(
                f"the template ends no assistant turn: after {_PROBE.sql!r} nothing follows, so a trained model could "
                f"never stop. End the turn with {{{{ eos_token }}}}."
            )
        if special_tokens(tokenizer):  # else it is not a tokenizer that tells them
            stop_token_id(tokenizer, tail)
        return dataclasses.replace(self, tokens=dataclasses.replace(draft, stop=tail))

    def prompt(self, record: Record, tokenizer: Tokenizer | None = None) -> str:
        """The text to send to the model, up to where the answer begins.

        Without `tokenizer` the formatter must be bound (as `load` returns it).

        Raises:
            ConfigError: the formatter is not bound and there is no tokenizer, or the template cannot be rendered.
        """
        bound = self._bound(tokenizer)
        return bound._render(bound.messages(record.asked), generation=True)  # noqa: SLF001 - the same class

    def completion(self, record: Record, tokenizer: Tokenizer | None = None) -> str:
        """The text that the model learns to write after `prompt`: the SQL and the stop text.

        Raises:
            RecordError: the record has no SQL.
            ConfigError: the template renders another prompt with the answer than without it.
        """
        if record.sql is None:
            raise RecordError(f"record {record.id or '(no id)'} has no sql, so there is nothing to learn from it")
        bound = self._bound(tokenizer)
        prompt, whole = bound.prompt(record), bound._render(bound.messages(record), generation=False)  # noqa: SLF001 - the same class
        if not whole.startswith(prompt):
            raise ConfigError(
                "the chat template changes the prompt once there is an answer, so training and serving would differ: "
                f"{prompt[-60:]!r} is not how {whole[-120:]!r} begins. Pass a plain Jinja template{self._system_hint}."
            )
        # White space after the end-of-turn token is never generated.
        return whole[len(prompt) :].rstrip()

    def encode(self, record: Record, tokenizer: Tokenizer) -> Encoded:
        """The record as one training example with the loss on the answer only.

        Prompt and answer are tokenized apart, so no token spans the border and the prompt's tokens are exactly those
        that a server makes of `prompt(record)`.

        Raises:
            RecordError: the record has no SQL, or its SQL contains the text of a special token.
            ConfigError: the tokenizer or the template cannot be used (see `bind` and `completion`).
        """
        return self.encode_all([record], tokenizer)[0]

    def encode_all(self, records: Sequence[Record], tokenizer: Tokenizer) -> list[Encoded]:
        """Like `encode`, for many records in two calls of the tokenizer, which uses all cores.

        Raises:
            RecordError, ConfigError: as `encode`.
        """
        if not records:
            return []  # tokenizers refuse an empty batch
        bound = self.bind(tokenizer)
        refuse_in_answers(records, tokenizer)
        prompts = tokenizer([bound.prompt(record) for record in records])["input_ids"]
        answers = tokenizer([bound.completion(record) for record in records], add_special_tokens=False)["input_ids"]
        return [
            Encoded([*prompt, *answer], [IGNORED_LABEL] * len(prompt) + list(answer))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    @property
    def fingerprint(self) -> str:
        """16 hex digits over wording, template, special tokens, BOS policy and stop text.

        Binding to a tokenizer resolves the last four, so it changes the fingerprint; artifacts carry the bound one.
        """
        canonical = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def chat_template(self) -> str:
        """The bound template for `tokenizer_config.json`: a server that renders messages makes the training tokens.

        Such a server adds no special tokens of its own, so BOS stands in the template where the tokenizer adds it.

        Raises:
            ConfigError: the formatter is not bound.
        """
        tokens = self._bound(None).tokens
        assert tokens is not None  # noqa: S101 - _bound has checked it
        renders_bos = self._raw(self.messages(_PROBE), generation=False).startswith(tokens.bos) if tokens.bos else True
        source = tokens.template if renders_bos or not tokens.adds_bos else "{{ bos_token }}" + tokens.template
        # A server would put today's date where training had none.
        return "{% set strftime_now = undefined %}" + source if "strftime_now" in source else source

    def save(self, output_dir: str | Path) -> None:
        """Write the formatter to ``prompt.json`` in `output_dir`."""
        write_json(
            local_path(output_dir, "the prompt's directory") / PROMPT_FILE,
            dataclasses.asdict(self) | {"fingerprint": self.fingerprint},
        )

    @classmethod
    def load(cls, directory: str | Path) -> PromptFormatter:
        """Read the formatter that `save` wrote.

        Raises:
            IncompleteArtifactError: there is no ``prompt.json``, or its fingerprint is not that of its content.
        """
        path = local_path(directory, "the prompt's directory") / PROMPT_FILE
        if not path.is_file():
            raise IncompleteArtifactError(f"{path} does not exist: the directory holds no prompt. Train again.")
        try:
            content = read_object(path)
            fingerprint, tokens = content.pop("fingerprint"), content.pop("tokens")
            bound = BoundTokens(**tokens) if tokens else None
            # The directory may come from anyone, and even compiling a template can take forever.
            for template in {content["template"], bound.template if bound else "chat"}:
                if template not in ("human-assistant", "chat", HUMAN_ASSISTANT):
                    wording = cls(content["system"], content["user"])
                    wording._require_bounded(template, *((bound.bos, bound.eos) if bound else ("", "")))
            formatter = cls(**content, tokens=bound)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise IncompleteArtifactError(f"{path} holds no prompt ({error}). Restore the file.") from error
        if formatter.fingerprint != fingerprint:
            raise IncompleteArtifactError(
                f"{path} was edited: its fingerprint is {formatter.fingerprint}, but it says {fingerprint}. "
                "A model must be served the prompt it was trained with; restore the file."
            )
        return formatter

    def _require_bounded(self, template: str, bos: str, eos: str) -> None:
        """Check a template of unknown origin with the messages that binding and preflight render."""
        ends = [Conversation(self.messages(record), record is not _PROBE) for record in (_PROBE.asked, _PROBE)]
        require_bounded(template, {"bos_token": bos, "eos_token": eos}, ends)

    def _checked_stop(self) -> str:
        """Return what ends an answer, of a template that loses and changes nothing and begins the assistant's turn."""
        prompt, completion = self.prompt(_PROBE), self.completion(_PROBE)
        if lost := [name for name in ("question", "schema") if str(getattr(_PROBE, name)) not in prompt]:
            raise ConfigError(
                f"the template leaves out or changes the {' and the '.join(lost)}: a prompt ends with "
                f"{prompt[-120:]!r}. Pass a plain Jinja template{self._system_hint}."
            )
        before, answer, after = completion.partition(_PROBE.sql or "")
        if not answer:
            raise ConfigError(f"the template makes {completion[-120:]!r} of {_PROBE.sql!r}: it changes the answer")
        if before.strip() and prompt == self._render(self.messages(_PROBE.asked), generation=False):
            raise ConfigError(
                f"the template does not begin the assistant's turn, so the model would write {before!r} before each "
                "answer. End it with {% if add_generation_prompt %}{{ … }}{% endif %}, which writes that."
            )
        return after

    def _bound(self, tokenizer: Tokenizer | None) -> PromptFormatter:
        if self.tokens is not None:
            return self
        if tokenizer is None:
            raise ConfigError("this formatter is not bound to a base model yet: pass a tokenizer, or call bind()")
        return self.bind(tokenizer)

    def _raw(self, messages: list[dict[str, str]], *, generation: bool) -> str:
        tokens = self.tokens
        assert tokens is not None  # noqa: S101 - callers are bound
        try:
            return compile_template(tokens.template).render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=generation,
                bos_token=tokens.bos,
                eos_token=tokens.eos,
            )
        except ConfigError as error:
            raise ConfigError(f"{error}. Pass a plain Jinja template{self._system_hint}.") from error
        except Exception as error:  # a template is code of the model's makers, and can raise anything
            raise ConfigError(
                f"the chat template cannot be rendered ({type(error).__name__}: {error}). Pass a plain Jinja template."
            ) from error

    @property
    def _system_hint(self) -> str:
        return ", or set system='' and name {schema} in `user`, if it takes no system message" if self.system else ""

    def _render(self, messages: list[dict[str, str]], *, generation: bool) -> str:
        text = self._raw(messages, generation=generation)
        tokens = self.tokens
        # The tokenizer will put BOS there; left in the text it would be doubled.
        return text.removeprefix(tokens.bos) if tokens and tokens.adds_bos else text


def _placeholder_problems(system: str, user: str) -> Iterator[str]:
    found = {name: {one[1] for one in _FILLED.finditer(text)} for name, text in (("system", system), ("user", user))}
    if "schema" not in found["system"] | found["user"]:
        yield f"system must contain {{schema}}, but is {system!r} (or user must contain it)"
    if "question" not in found["user"]:
        yield f"user must contain {{question}}, but is {user!r}"
    for name, text in (("system", system), ("user", user)):
        for unknown in sorted({found[1] for found in _PLACEHOLDER.finditer(text)} - {*PLACEHOLDERS}):
            meant = did_you_mean(f"{{{unknown}}}", [f"{{{name}}}" for name in PLACEHOLDERS])
            hint = meant or ": use {schema}, {question} or {dialect}"
            yield f"{name} has the unknown placeholder {{{unknown}}}{hint}"
        for formatted in _FORMATTED.findall(text):
            yield f"{name} has {formatted}, but placeholders take no format: leave out what follows the name"


DEFAULT_FORMATTER = PromptFormatter()
