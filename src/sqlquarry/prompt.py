"""The prompt that a model sees for a record, the same in training and in serving.

Training tokens and serving prompt come from the same rendered text. If the tokenizer adds BOS itself, the text contains
no BOS, because a server tokenizes the text in the same way. So the tokens are equal and BOS is never doubled. If
`add_special_tokens` is False, the tokenizer adds nothing in training, and the merged model's tokenizer adds nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from sqlquarry.errors import ConfigError, IncompleteArtifactError, RecordError
from sqlquarry.files.locations import local_path
from sqlquarry.files.metadata import json_bytes, read_object
from sqlquarry.files.writing import write_atomically
from sqlquarry.options import check_options
from sqlquarry.records import Message, Record, noted_question
from sqlquarry.tokenizing.batches import BATCH
from sqlquarry.tokenizing.bound_tokens import BoundTokens
from sqlquarry.tokenizing.control_tokens import refuse_in_answers, special_tokens, stop_token_id
from sqlquarry.tokenizing.encoded import Encoded, EncodedRecords
from sqlquarry.tokenizing.label_view import LabelView, label_view
from sqlquarry.tokenizing.pieces import PieceEncoder
from sqlquarry.tokenizing.placeholders import filled, has_notes, placeholder_problems, spelled_dialect, without_notes
from sqlquarry.tokenizing.prompt_texts import DEFAULT_SYSTEM, DEFAULT_USER, HUMAN_ASSISTANT, PUBLISHED, PUBLISHED_SYSTEM
from sqlquarry.tokenizing.rendering import Conversation, compile_template, require_bounded
from sqlquarry.tokenizing.tokenizer import Tokenizer

PROMPT_FILE = "prompt.json"

# Mixed case reveals templates that change case.
_PROBE = Record(question="Question", schema="Schema", sql="Select a", notes="Notes")


@check_options()
@dataclass(frozen=True, slots=True)
class PromptFormatter:
    """A prompt format that renders records as prompts and training examples with the same wording and tokens.

    Args:
        system: system message. Use "" for a model whose template does not support a system role.
        user: user message. It must contain ``{question}``. One of the two messages must contain ``{schema}``, and
            either may contain ``{dialect}``, which becomes the SQL dialect of the record, such as "PostgreSQL", and
            ``{notes}``. If a record has no notes, each line whose only placeholder is ``{notes}`` is left out. Without
            ``{notes}``, the notes are appended to the question in parentheses.
        template: "human-assistant" (nearly the published format, see `published`), "chat" (the base model's own
            template) or a Jinja string.
        tokens: template and special tokens of the base model. `bind` sets it, so leave it out.
        add_special_tokens: let the tokenizer add its special tokens (BOS) before a prompt, in training and in serving.
            If False, the model is trained without them, and merging changes its tokenizer so that it adds none. A
            special token in the template is kept.

    Raises:
        ConfigError: a placeholder is missing or unknown, the Jinja string does not parse, or `tokens` was bound with
            another `add_special_tokens`.
    """

    system: str = DEFAULT_SYSTEM
    user: str = DEFAULT_USER
    template: str = "human-assistant"
    tokens: BoundTokens | None = None
    add_special_tokens: bool = True

    def __post_init__(self) -> None:
        bad = list(placeholder_problems(self.system, self.user))
        if self.tokens and self.tokens.adds_bos and not self.add_special_tokens:
            bad.append("add_special_tokens is False, but tokens.adds_bos is True. Leave tokens out, and bind again")
        if self.template not in ("human-assistant", "chat"):
            try:
                compile_template(self.template)
            except jinja2.TemplateSyntaxError as error:
                bad.append(
                    "template must be 'human-assistant', 'chat' or valid Jinja, but Jinja cannot parse it "
                    f"(line {error.lineno}: {error})"
                )
            else:
                if "{" not in self.template:
                    bad.append(
                        f"template {self.template!r} is unknown. Use 'human-assistant', 'chat' or a Jinja string"
                    )
        if bad:
            raise ConfigError("PromptFormatter: " + "; ".join(bad))

    @classmethod
    def published(cls) -> PromptFormatter:
        """Return the training prompt of the published recipe, character for character.

        It differs from `PromptFormatter()` in three ways. There is no space between the sentences of the system
        message, the tokenizer adds no BOS, and the prompt ends with a space. A server makes a token of its own from
        that space, and `encode` trains exactly these tokens. The recipe tokenizes prompt and answer as one text, so in
        its training the space belongs to the answer's first token.

        White space at the ends of schema, question and SQL is removed, as in every prompt here. The recipe keeps it.

        Source: AWS, notebook "customized-text-to-sql-model" (aws-samples/amazon-bedrock-samples, MIT-0).
        """
        return cls(system=PUBLISHED_SYSTEM, template=PUBLISHED, add_special_tokens=False)

    def messages(self, record: Record) -> list[dict[str, str]]:
        """Return the record as role/content messages.

        The system message is left out if it is "". An assistant message is added if the record has SQL.
        """
        wording, notes = (self.system, self.user), record.notes.strip()
        values = {
            "schema": record.schema.strip(),
            "question": (record.question if any(map(has_notes, wording)) else noted_question(record)).strip(),
            "dialect": spelled_dialect(record.dialect),
            "notes": notes,
        }
        system, user = (filled(text if notes else without_notes(text), values) for text in wording)
        turns = [Message("system", system)] if system else []
        turns.append(Message("user", user))
        if record.sql is not None:
            turns.append(Message("assistant", record.sql.strip()))
        return [turn._asdict() for turn in turns]

    def bind(self, tokenizer: Tokenizer) -> PromptFormatter:
        """Resolve template, special tokens, BOS policy and stop text with a transformers tokenizer.

        A bound formatter needs no tokenizer for `prompt`. If the formatter is already bound, it is returned unchanged.
        The tokenizer's own chat template is first rendered in a child process (`require_bounded`), and then in this
        process, which is a hundred times faster.

        Raises:
            ConfigError: the tokenizer has no EOS token, has no chat template although `template` is "chat", or ends
                every text with EOS although `add_special_tokens` is True. Or the template cannot be rendered, does not
                end the assistant's turn with a special token, or takes too much time or memory.
        """
        if self.tokens is not None:
            return self
        if tokenizer.eos_token is None:
            raise ConfigError(
                "the tokenizer has no eos_token, so a trained model would never stop. Set tokenizer.eos_token."
            )
        source = {"human-assistant": HUMAN_ASSISTANT, "chat": tokenizer.chat_template}.get(self.template, self.template)
        if not isinstance(source, str):
            raise ConfigError(
                "template='chat' needs a base model with one chat template, but the tokenizer has "
                f"{'none' if source is None else 'several'}. Use template='human-assistant' or pass a Jinja string."
            )
        ids = tokenizer("a", add_special_tokens=self.add_special_tokens)["input_ids"]
        if ids[-1] == tokenizer.eos_token_id:
            raise ConfigError(
                "the tokenizer adds EOS to every text, so every prompt would end with it. Switch that off in the "
                "tokenizer."
            )
        bos = tokenizer.bos_token
        adds_bos = bos is not None and ids[0] == tokenizer.bos_token_id
        draft = BoundTokens(source, bos or "", tokenizer.eos_token, adds_bos=adds_bos, stop="")
        if self.template == "chat":
            self._require_bounded(source, draft.bos, draft.eos)
        # Some templates write an empty thought before the answer, so the stop text is only what follows the answer.
        tail = dataclasses.replace(self, tokens=draft)._checked_stop()  # noqa: SLF001 - the same class
        if not tail:
            raise ConfigError(
                f"the template writes nothing after the answer {_PROBE.sql!r}, so a trained model would never stop. "
                "End the assistant's turn with {{ eos_token }}."
            )
        if special_tokens(tokenizer):  # empty for tokenizers that do not list them
            stop_token_id(tokenizer, tail)
        return dataclasses.replace(self, tokens=dataclasses.replace(draft, stop=tail))

    def prompt(self, record: Record, tokenizer: Tokenizer | None = None) -> str:
        """Return the text to send to the model, up to the start of the answer.

        Without `tokenizer` the formatter must be bound. `load` returns a bound one.

        Raises:
            ConfigError: the formatter is not bound and there is no tokenizer, or the template cannot be rendered.
        """
        bound = self._bound(tokenizer)
        return bound._render(bound.messages(record.asked), generation=True)  # noqa: SLF001 - the same class

    def completion(self, record: Record, tokenizer: Tokenizer | None = None) -> str:
        """Return the text that the model learns to write after `prompt`, which is the SQL and the stop text.

        Raises:
            RecordError: the record has no SQL.
            ConfigError: the template renders the prompt differently when there is an answer.
        """
        return self._bound(tokenizer)._pair(record)[1]  # noqa: SLF001 - the same class

    def _pair(self, record: Record) -> tuple[str, str]:
        """Return prompt and completion of a bound formatter."""
        messages = self._answered(record)
        prompt = self._render(messages[:-1], generation=True)
        whole = self._render(messages, generation=False)
        if not whole.startswith(prompt):
            pairs = enumerate(zip(prompt, whole, strict=False))
            start = next((index for index, (one, other) in pairs if one != other), len(whole))
            raise ConfigError(
                "the chat template changes the prompt when there is an answer, so training and serving would differ: "
                f"{prompt[start : start + 80]!r} becomes {whole[start : start + 80]!r}. Pass a plain Jinja template"
                f"{self._system_hint}."
            )
        # A server stops at the end-of-turn token, so white space after it is never generated.
        return prompt, whole[len(prompt) :].rstrip()

    def text(self, record: Record, tokenizer: Tokenizer | None = None) -> str:
        """Return prompt and answer as one text, as the template renders them.

        White space after the stop text is kept, unlike in `completion`. Tokenize the text with the formatter's own
        `add_special_tokens`.

        Raises:
            RecordError: the record has no SQL.
            ConfigError: as for `prompt`.
        """
        bound = self._bound(tokenizer)
        return bound._render(bound._answered(record), generation=False)  # noqa: SLF001 - the same class

    def _answered(self, record: Record) -> list[dict[str, str]]:
        if record.sql is None:
            raise RecordError(f"record {record.id or '(no id)'} has no sql to train on. Add it or drop the record.")
        return self.messages(record)

    def encode(self, record: Record, tokenizer: Tokenizer) -> Encoded:
        """Return the record as one training example with the loss on the answer only.

        Prompt and answer are tokenized separately. So no token spans the boundary, and the prompt's tokens are exactly
        those that a server gets from `prompt(record)`.

        Raises:
            RecordError: the record has no SQL, or its SQL contains the text of a special token.
            ConfigError: the tokenizer or the template cannot be used (see `bind` and `completion`).
        """
        return self.encode_all([record], tokenizer)[0]

    def encode_all(self, records: Sequence[Record], tokenizer: Tokenizer) -> EncodedRecords:
        """Encode many records as `encode` does, but on all cores, and equal texts only once.

        The result takes 4 bytes per token. Each `Encoded` is built when it is asked for.

        Raises:
            RecordError, ConfigError: see `encode`.
        """
        encoded = EncodedRecords()
        if not records:
            return encoded  # tokenizers refuse an empty batch
        bound = self.bind(tokenizer)
        refuse_in_answers(records, tokenizer)
        encoder = PieceEncoder(tokenizer, records, bound.prompt, add_special_tokens=self.add_special_tokens)
        for start in range(0, len(records), BATCH):
            batch = records[start : start + BATCH]
            prompts, answers = zip(*map(bound._pair, batch), strict=True)  # noqa: SLF001 - the same class
            answered = encoder.batches.ids(answers, add_special_tokens=False)
            for prompt, answer in zip(encoder.encode(batch, prompts), answered, strict=True):
                encoded.append(prompt, answer)
        return encoded

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify wording, template, special tokens, BOS policy and stop text.

        Binding to a tokenizer resolves the last four, so it changes the fingerprint. Artifacts store the bound one.
        """
        canonical = json.dumps(self._fields, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def _fields(self) -> dict[str, object]:
        """The fields for fingerprint and file. The default of a newer field is left out, so that neither changes."""
        fields = dataclasses.asdict(self)
        return fields if not self.add_special_tokens else {k: v for k, v in fields.items() if k != "add_special_tokens"}

    @property
    def chat_template(self) -> str:
        """The bound template for `tokenizer_config.json`, which gives a server the same tokens as in training.

        A server that renders messages adds no special tokens. So this template contains BOS if the tokenizer adds it.

        Raises:
            ConfigError: the formatter is not bound.
        """
        tokens = self._bound(None).tokens
        assert tokens is not None  # noqa: S101 - _bound has checked it
        renders_bos = self._raw(self.messages(_PROBE), generation=False).startswith(tokens.bos) if tokens.bos else True
        source = tokens.template if renders_bos or not tokens.adds_bos else "{{ bos_token }}" + tokens.template
        # Otherwise a server would insert today's date, which training did not have.
        return "{% set strftime_now = undefined %}" + source if "strftime_now" in source else source

    def show(self, record: Record, tokenizer: Tokenizer, *, completion_only_loss: bool = True) -> LabelView:
        """Return the tokens of a record and their labels, to print or to display in a notebook.

        If `completion_only_loss` (as in TRL) is False, every token is learned. Without SQL, only the prompt is shown.

        Raises:
            RecordError, ConfigError: see `encode`.
        """
        return label_view(record, self.bind(tokenizer), tokenizer, completion_only_loss=completion_only_loss)

    def save(self, output_dir: str | Path) -> None:
        """Write the formatter to ``prompt.json`` in `output_dir`."""
        write_atomically(local_path(output_dir, "the prompt's directory") / PROMPT_FILE, self.to_json())

    def to_json(self) -> bytes:
        """Return the content of ``prompt.json``."""
        return json_bytes(self._fields | {"fingerprint": self.fingerprint})

    @classmethod
    def load(cls, directory: str | Path) -> PromptFormatter:
        """Load the formatter that `save` wrote.

        Raises:
            IncompleteArtifactError: there is no ``prompt.json``, or its fingerprint does not match its content.
        """
        path = local_path(directory, "the prompt's directory") / PROMPT_FILE
        if not path.is_file():
            raise IncompleteArtifactError(f"{path} does not exist, so the directory has no prompt. Train again.")
        try:
            content = read_object(path)
            fingerprint, tokens = content.pop("fingerprint"), content.pop("tokens")
            bound = BoundTokens(**tokens) if tokens else None
            # The directory may come from anybody, and even compiling a hostile template can take forever.
            for template in {content["template"], bound.template if bound else "chat"}:
                if template not in ("human-assistant", "chat", HUMAN_ASSISTANT, PUBLISHED):
                    wording = cls(content["system"], content["user"])
                    wording._require_bounded(template, *((bound.bos, bound.eos) if bound else ("", "")))
            formatter = cls(**content, tokens=bound)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise IncompleteArtifactError(f"{path} is not a valid prompt ({error}). Restore the file.") from error
        if formatter.fingerprint != fingerprint:
            raise IncompleteArtifactError(
                f"{path} was edited: its fingerprint is {formatter.fingerprint}, but the file contains {fingerprint}. "
                "A model must be served with the prompt that it was trained with. Restore the file."
            )
        return formatter

    def _require_bounded(self, template: str, bos: str, eos: str) -> None:
        """Check a template of unknown origin on the messages that binding and preflight render."""
        ends = [Conversation(self.messages(record), record is not _PROBE) for record in (_PROBE.asked, _PROBE)]
        require_bounded(template, {"bos_token": bos, "eos_token": eos}, ends)

    def _checked_stop(self) -> str:
        """Return the text that ends an answer. Refuse a template that drops or changes text, or begins no answer."""
        prompt, completion = self.prompt(_PROBE), self.completion(_PROBE)
        if lost := [name for name in ("question", "schema", "notes") if str(getattr(_PROBE, name)) not in prompt]:
            raise ConfigError(
                f"the template drops or changes the {' and the '.join(lost)}: its prompt ends with "
                f"{prompt[-120:]!r}. Pass a plain Jinja template{self._system_hint}."
            )
        before, answer, after = completion.partition(_PROBE.sql or "")
        if not answer:
            raise ConfigError(
                f"the template changes the answer {_PROBE.sql!r} to {completion[-120:]!r}. Pass a plain Jinja template."
            )
        if before.strip() and prompt == self._render(self.messages(_PROBE.asked), generation=False):
            raise ConfigError(
                f"the template does not begin the assistant's turn, so the model would write {before!r} before each "
                "answer. Write that text at the end with {% if add_generation_prompt %}{{ … }}{% endif %}."
            )
        return after

    def _bound(self, tokenizer: Tokenizer | None) -> PromptFormatter:
        if self.tokens is not None:
            return self
        if tokenizer is None:
            raise ConfigError("this formatter is not bound to a base model yet. Pass a tokenizer or call bind().")
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
        except Exception as error:  # a template is somebody else's code and can raise anything
            raise ConfigError(
                f"the chat template cannot be rendered ({type(error).__name__}: {error}). Pass a plain Jinja template."
            ) from error

    @property
    def _system_hint(self) -> str:
        return ". If it has no system role, set system='' and put {schema} into `user`" if self.system else ""

    def _render(self, messages: list[dict[str, str]], *, generation: bool) -> str:
        text = self._raw(messages, generation=generation)
        tokens = self.tokens
        # The tokenizer adds BOS later, so BOS in the text would be doubled.
        return text.removeprefix(tokens.bos) if tokens and tokens.adds_bos else text


DEFAULT_FORMATTER = PromptFormatter()
