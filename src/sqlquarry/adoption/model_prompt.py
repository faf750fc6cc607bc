"""Find the prompt of a model made elsewhere, and check that the model's tokenizer can serve it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.errors import AdoptionError, ConfigError, IncompleteArtifactError, PromptMismatchError
from sqlquarry.extras import require
from sqlquarry.pretrained import load_tokenizer, reading_model
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter
from sqlquarry.tokenizing.control_tokens import special_tokens, stop_token_id
from sqlquarry.tokenizing.special_token_removal import files_without_special_tokens
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_TEMPLATE_CHARACTERS = 60


def bound_formatter(outline: Path, formatter: PromptFormatter | None) -> PromptFormatter:
    """Return the model's prompt, bound to a tokenizer.

    Args:
        outline: a directory with the model's small files.
        formatter: the prompt that the caller states. None uses a ``prompt.json`` in the directory.

    Raises:
        ConfigError: there is neither, or the model's tokenizer cannot serve the prompt.
        PromptMismatchError: there are both, and they differ.
        AdoptionError: the ``prompt.json`` is not valid.
        UnsupportedModelError: the tokenizer cannot be loaded or used, or it always adds special tokens although the
            prompt excludes them.
    """
    require("train", "adopt_model")
    tokenizer = load_tokenizer(outline)
    path = outline / PROMPT_FILE
    own = _own(outline) if path.is_file() else None
    if own is not None and own.tokens is None:
        raise ConfigError(
            f"{path} is not bound to a tokenizer. Delete it, and pass its prompt as formatter=PromptFormatter.load(…)."
        )
    if own is not None and formatter is not None:
        require_same_formatter(own, formatter, path, PROMPT_FILE)
    prompt = own or formatter
    if prompt is None:
        raise ConfigError(_question(outline, tokenizer.chat_template))
    if not prompt.add_special_tokens:
        files_without_special_tokens(TokenizerFiles.in_directory(outline))  # an import changes them like this
    with reading_model(outline, "a tokenizer that can encode text"):
        tokenizer("a")
    bound = prompt.bind(tokenizer)
    _require_served(bound, tokenizer)
    return bound


def _own(outline: Path) -> PromptFormatter:
    try:
        return PromptFormatter.load(outline)
    except IncompleteArtifactError as error:
        raise AdoptionError(f"{error} If it belongs to another program, move it away.") from error


def require_same_formatter(own: PromptFormatter, given: PromptFormatter, where: object, delete: str) -> None:
    """Check that the caller's formatter is the model's own. An unbound one is compared without its tokens.

    Args:
        own: the model's prompt.
        given: the caller's formatter.
        where: the file with the model's prompt, for the message.
        delete: the files to delete if the caller's formatter is right.

    Raises:
        PromptMismatchError: the two differ. The message lists the fields.
    """
    known = own if given.tokens is not None else dataclasses.replace(own, tokens=None)
    if different := [
        f"{field.name} is {getattr(known, field.name)!r:.120}, not {getattr(given, field.name)!r:.120}"
        for field in dataclasses.fields(known)
        if getattr(known, field.name) != getattr(given, field.name)
    ]:
        raise PromptMismatchError(
            f"{where} contains another prompt than `formatter`: {'; '.join(different)}. Leave out `formatter` to keep "
            f"that prompt. If `formatter` is the prompt of the training, delete {delete} and call adopt_model again."
        )


def _question(outline: Path, template: object) -> str:
    if isinstance(template, str):
        found = f"Its tokenizer has a chat template ({template[:_TEMPLATE_CHARACTERS]!r}…)"
        chat = "if the training used it: PromptFormatter(template='chat', system=…, user=…) with the training's wording"
    else:
        found = f"Its tokenizer has {'several chat templates' if template else 'no chat template'}"
        chat = "so the training's template must be given: PromptFormatter(template='…Jinja…', system=…, user=…)"
    return (
        f"adopt_model: formatter is missing, and {outline} has no {PROMPT_FILE}. A model answers well only to the "
        f"prompt of its training, which its files do not record. {found}, {chat}. Other choices are PromptFormatter(), "
        "the default prompt of this library, and PromptFormatter.published(), the prompt of AWS's notebook."
    )


def _require_served(formatter: PromptFormatter, tokenizer: PreTrainedTokenizerFast) -> None:
    """Check that a tokenizer makes the tokens that a bound prompt was trained with.

    Raises:
        ConfigError: another BOS is added, or the prompt's special tokens are ordinary text for the tokenizer.
    """
    tokens = formatter.tokens
    assert tokens is not None  # noqa: S101 - the caller has bound it
    ids = tokenizer("a", add_special_tokens=formatter.add_special_tokens)["input_ids"]
    adds_bos = tokenizer.bos_token is not None and ids[0] == tokenizer.bos_token_id
    if tokens.adds_bos != adds_bos:
        bound, found = ("adds BOS", "does not") if tokens.adds_bos else ("does not add BOS", "does")
        raise ConfigError(
            f"the formatter is bound to a tokenizer that {bound} before every text, but the model's own tokenizer "
            f"{found}. Pass a formatter that is not bound, or restore the tokenizer of the training."
        )
    known = {*special_tokens(tokenizer)}
    if missing := [text for text in (tokens.bos, tokens.eos) if text and text not in known]:
        raise ConfigError(
            f"the formatter is bound to a tokenizer with the special token {missing[0]!r}, which the model's own "
            "tokenizer does not have. Pass a formatter that is not bound, or restore the tokenizer of the training."
        )
    stop_token_id(tokenizer, tokens.stop)
