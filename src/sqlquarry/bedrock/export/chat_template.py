"""Find and render the chat templates of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlquarry.files.metadata import JsonObject, parse_json
from sqlquarry.tokenizing.added_tokens import NAMED_TOKENS, token_text

# Training prompts go through the same renderer, so preflight and serving cannot disagree about Jinja.
from sqlquarry.tokenizing.rendering import Conversation, render_bounded

TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
USER = {"role": "user", "content": "QUESTION"}
ANSWER = {"role": "assistant", "content": "ANSWER"}
PROMPT = Conversation([USER], generation=True)
# Multimodal templates expect this form.
PROMPT_IN_PARTS = Conversation(
    [{"role": "user", "content": [{"type": "text", "text": USER["content"]}]}], generation=True
)
WHOLE = Conversation([USER, ANSWER], generation=False)
PROBES = (PROMPT, PROMPT_IN_PARTS, WHOLE)


def templates(read: Callable[[str], bytes | None], tokenizer_config: JsonObject) -> dict[str, str]:
    """Find every chat template of a checkpoint: file -> Jinja source, in order of precedence.

    Separate files win over the embedded template ("Handling Custom Chat Templates and Tokenizers",
    docs.aws.amazon.com/bedrock/latest/userguide/custom-chat-templates-tokenizers.html).

    Args:
        read: returns the content of a file, or None if the file does not exist.
        tokenizer_config: the content of tokenizer_config.json.

    Raises:
        ValueError: a file is not text, or not JSON.
    """
    found: dict[str, str] = {}
    if (content := read("chat_template.jinja")) is not None:
        found["chat_template.jinja"] = content.decode()
    if (content := read("chat_template.json")) is not None:
        source = parse_json(content, "chat_template.json")
        source = source.get("chat_template") if isinstance(source, dict) else None
        if isinstance(source, str):
            found["chat_template.json"] = source
    embedded = tokenizer_config.get("chat_template")
    if isinstance(embedded, str):
        found["tokenizer_config.json"] = embedded
    elif isinstance(embedded, list):
        pairs = [(entry.get("name"), entry.get("template")) for entry in embedded if isinstance(entry, dict)]
        named = {name: source for name, source in pairs if isinstance(name, str) and isinstance(source, str)}
        for name in sorted(named, key=lambda name: (name != "default", name)):
            found[f"tokenizer_config.json ({name})"] = named[name]
    return found


def special_tokens(*configs: JsonObject) -> dict[str, str]:
    """Return the texts of bos_token, eos_token, …, each from the first config that has it.

    Pass tokenizer_config.json before special_tokens_map.json.
    """
    found = {name: next((text for c in configs if (text := token_text(c.get(name)))), "") for name in NAMED_TOKENS}
    return {name: text for name, text in found.items() if text}


def render(template: str, conversation: Conversation, tokens: Mapping[str, str]) -> str:
    """Render one of `PROBES` as a server would. All probes are rendered together in a process with limited resources.

    Raises:
        ConfigError: the template does not parse, refuses these messages, or needs too much time or memory.
    """
    rendered = render_bounded(template, PROBES, tokens, date="26 Jul 2024")
    return rendered[PROBES.index(conversation)].require()


def turn_end(template: str, tokens: Mapping[str, str]) -> str:
    """Return the text that a template writes after an answer. A model trained with it ends its answers with that text.

    Raises:
        ConfigError: the template cannot be rendered.
    """
    return render(template, WHOLE, tokens).rpartition(ANSWER["content"])[2].rstrip()
