"""Check the tokenizer's files, class, vocabulary and special tokens, and the chat template.

Sources: for tokenizers "Use Custom model import …", for templates "Handling Custom Chat Templates and Tokenizers" and
"Invoke your imported model" (userguide/custom-chat-templates-tokenizers.html, userguide/invoke-imported-model.html).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlquarry.bedrock.export.chat_template import (
    ANSWER,
    PROMPT,
    PROMPT_IN_PARTS,
    USER,
    WHOLE,
    render,
    special_tokens,
    turn_end,
)
from sqlquarry.bedrock.export.dialect import special_token_id
from sqlquarry.bedrock.export.token_parity import first_difference, formatter_prompts
from sqlquarry.bedrock.export.tokenizer_repair import prompted_reading, saved_by_5
from sqlquarry.bedrock.preflight.checkpoint import Checkpoint
from sqlquarry.bedrock.preflight.config import MULTIMODAL_ARCHITECTURES
from sqlquarry.bedrock.preflight.findings import PreflightFinding, error, listed, note, warning
from sqlquarry.errors import ConfigError, UnsupportedModelError
from sqlquarry.prompt import PROMPT_FILE
from sqlquarry.tokenizing.added_tokens import token_text
from sqlquarry.tokenizing.reading_equality import same_tokens
from sqlquarry.tokenizing.readings import served_reading, trained_reading
from sqlquarry.tokenizing.special_ids import token_ids
from sqlquarry.tokenizing.tokenizer_files import SENTENCEPIECE_FILES, SERVED_TOKENIZERS

_SENTENCEPIECE = SENTENCEPIECE_FILES | {"CodeLlamaTokenizer": "tokenizer.model"}
_CONFIG = "tokenizer_config.json"
_RESTORE_TEMPLATE = "Restore the base model's template"


def tokenizer_class(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that the service can load the tokenizer's class and that its files exist."""
    name = str(checkpoint.tokenizer_config.get("tokenizer_class"))
    family = name.removesuffix("Fast")
    if family not in SERVED_TOKENIZERS:
        yield error(
            "tokenizer-class",
            _CONFIG,
            f"tokenizer_class {name!r} is not one of {', '.join(SERVED_TOKENIZERS)} (or their Fast variants)",
            "The service's version of transformers supports no other class",
            "Save the tokenizer as PreTrainedTokenizerFast",
            repairable=name in ("TokenizersBackend", "None"),
        )
    sentencepiece = _SENTENCEPIECE.get(family)
    if sentencepiece and sentencepiece not in checkpoint.sizes:
        why = "The service's page lists it as required, but users report imports with tokenizer.json alone"
        fix = "Copy it from the base model if the base model has one"
        yield note("tokenizer-files", sentencepiece, f"the file is missing, but the tokenizer is a {name}", why, fix)


def vocabulary(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that every token has an embedding, added tokens included."""
    size = checkpoint.token_rows
    if size is None:
        return
    for where, largest in (
        ("tokenizer.json", max(token_ids(checkpoint.file("tokenizer.json")).values(), default=-1)),
        ("added_tokens.json", max(_numbers(checkpoint.file("added_tokens.json").values()), default=-1)),
        (_CONFIG, max(_numbers(checkpoint.tokenizer_config.get("added_tokens_decoder") or {}), default=-1)),
    ):
        if largest >= size:
            message = f"token id {largest} has no embedding, because there are only {size}"
            why = "The first text with that token crashes the server"
            fix = "Resize the embeddings before training, or remove the added token"
            yield error("vocabulary-size", where, message, why, fix)


def _numbers(values: Iterable[object]) -> list[int]:
    whole = [value for value in values if isinstance(value, int) or str(value).isdigit()]
    return [int(value) if isinstance(value, int) else int(str(value)) for value in whole]


def special_token_lists(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that special tokens are under keys that 4.51.3 reads, and exist in the vocabulary."""
    for file in (_CONFIG, "special_tokens_map.json"):
        extra = checkpoint.file(file).get("extra_special_tokens")
        if isinstance(extra, list):
            yield error(
                "special-tokens",
                file,
                f"extra_special_tokens is a list ({listed(map(str, extra))})",
                "transformers 4.51.3 fails at it: 'list' object has no attribute 'keys'",
                "Rename it to additional_special_tokens",
                repairable=True,
            )
    known = token_ids(checkpoint.file("tokenizer.json"))
    additional = checkpoint.tokenizer_config.get("additional_special_tokens") or ()
    named = special_tokens(checkpoint.tokenizer_config, checkpoint.file("special_tokens_map.json"))
    wanted = {*named.values(), *map(token_text, additional if isinstance(additional, list) else ())} - {""}
    if known and (absent := wanted - known.keys()):
        why = "The server adds them after the vocabulary, and no embedding belongs to them"
        fix = "Use tokens in the vocabulary, or add and train them"
        yield error("special-tokens", _CONFIG, f"not in tokenizer.json: {listed(absent)}", why, fix)


def chat_template(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that there is exactly one chat template, in tokenizer_config.json."""
    found = checkpoint.templates
    why = "The service requires exactly one, and its Chat and Converse pages use the one in tokenizer_config.json"
    if not found:
        fix = "Embed one if you want to send `messages`. Prompts as text work without one"
        yield warning("chat-template", _CONFIG, "there is no chat template", why, fix)
    elif len(found) > 1:
        same = len(set(found.values())) == 1
        message = f"{len(found)} chat templates{', all equal' if same else ''}: {', '.join(found)}"
        severity = warning if same else error
        yield severity("chat-template", _CONFIG, message, why, "Keep the template of the training", repairable=True)
    elif _CONFIG not in found:
        (where,) = found
        message = "the chat template is in a separate file" if "json" in where or "jinja" in where else where
        yield warning("chat-template", where, message, why, "Embed it in tokenizer_config.json", repairable=True)


def template_renders(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that the template renders a conversation and ends a prompt with the answer's header."""
    where, template = next(iter(checkpoint.templates.items()), ("", None))
    if template is None:
        return
    tokens = special_tokens(checkpoint.tokenizer_config, checkpoint.file("special_tokens_map.json"))
    try:
        try:
            prompt = render(template, PROMPT, tokens)
        except ConfigError:
            if checkpoint.architecture not in MULTIMODAL_ARCHITECTURES:
                raise
            render(template, PROMPT_IN_PARTS, tokens)
            return
    except ConfigError as problem:
        why = "Every request with `messages` fails"
        yield error("template", where, str(problem).rstrip("."), why, _RESTORE_TEMPLATE)
        return
    if USER["content"] not in prompt:
        message = f"the user's text is missing from the rendered prompt {prompt[:80]!r}"
        yield error("template", where, message, "The model never sees the question", _RESTORE_TEMPLATE)
        return
    try:
        whole = render(template, WHOLE, tokens)
    except ConfigError:
        return  # the template supports one turn only, so there is nothing to compare
    header = whole[len(prompt) : whole.find(ANSWER["content"])] if whole.startswith(prompt) else ""
    if header.strip():
        yield warning(
            "generation-prompt",
            where,
            f"the template ignores add_generation_prompt, so {header!r} is missing before the answer",
            "The server's prompt lacks the text that preceded every answer in training",
            "Write the assistant's header if add_generation_prompt is true",
        )


def stop_token(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that an answer ends with a token at which the server stops."""
    tokenizer, formatter = checkpoint.file("tokenizer.json"), checkpoint.formatter
    why = "The server stops only at eos_token_id, so answers continue to their limit"
    if formatter is not None:
        where, end = PROMPT_FILE, formatter.tokens.stop if formatter.tokens else ""
    else:
        where, template = next(iter(checkpoint.templates.items()), ("", ""))
        try:
            end = turn_end(template, special_tokens(checkpoint.tokenizer_config)) if template else ""
        except ConfigError:
            end = ""
        if not end:
            return
    stop = special_token_id(tokenizer, end)
    generation = checkpoint.file("generation_config.json")
    eos = generation.get("eos_token_id", checkpoint.text_config.get("eos_token_id"))
    if stop is None:
        severity = error if formatter is not None else warning
        message = f"answers end with {end!r}, which does not end with a special token of tokenizer.json"
        fix = "Train with a template that ends the assistant's turn with {{ eos_token }}"
        yield severity("stop-token", where, message, why, fix)
    elif stop not in (eos if isinstance(eos, list) else [eos]):
        message = f"answers end with {end!r} (token {stop}), but eos_token_id is {eos}"
        fix = f"Add {stop} to eos_token_id"
        yield warning("stop-token", "generation_config.json", message, why, fix, repairable=True)


def served_tokens(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that the server makes the same tokens from a prompt as the training did."""
    files, trained = checkpoint.tokenizer, checkpoint.trained or checkpoint.tokenizer
    if files.class_name not in SERVED_TOKENIZERS:
        return  # `tokenizer_class` reports this
    if files.class_name == "T5Tokenizer":
        why = "It is unknown how the two versions of transformers read its SentencePiece model"
        fix = "Compare some prompts with both versions"
        yield note("served-tokens", "tokenizer.json", "the tokens of a T5Tokenizer are not compared", why, fix)
        return
    try:
        served = served_reading(files)
    except UnsupportedModelError as problem:
        message, _, fix = str(problem).rstrip(".").rpartition(". ")
        why = "Every invocation of the imported model fails"
        yield error("tokenizer-load", _CONFIG, message, why, f"{fix} (`repair` does this)", repairable=True)
        return
    by_5 = checkpoint.formatter is not None or PROMPT_FILE in checkpoint.sizes or saved_by_5(trained)
    reading = prompted_reading(trained_reading(trained), checkpoint.formatter)
    if same_tokens(served, reading):
        return
    differing = first_difference(files, served, reading, _prompts(checkpoint))
    if differing is None:
        return
    if by_5:
        why = "The model gets other tokens than in training, so its answers are worse, without an error"
        fix = "Repair a local copy with `repair` and upload it again, or import the local model with import_model"
        yield error("served-tokens", "tokenizer.json", str(differing), why, fix, repairable=True)
    else:
        why = "4.51.3 serves older checkpoints with its own reading, but LocalModel (transformers 5) may differ from it"
        fix = "Nothing to do if the training used an older transformers. Otherwise pass its formatter to import_model"
        yield warning("local-tokens", "tokenizer.json", str(differing), why, fix)


def _prompts(checkpoint: Checkpoint) -> list[str]:
    """Return prompts that the server may get, from the formatter or from the chat template."""
    if checkpoint.formatter is not None:
        return formatter_prompts(checkpoint.formatter)
    template = next(iter(checkpoint.templates.values()), "")
    try:
        return [render(template, PROMPT, special_tokens(checkpoint.tokenizer_config))] if template else []
    except ConfigError:
        return []  # `template_renders` reports this


CHECKS = (
    tokenizer_class,
    vocabulary,
    special_token_lists,
    chat_template,
    template_renders,
    stop_token,
    served_tokens,
)
