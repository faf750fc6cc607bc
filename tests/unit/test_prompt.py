"""PromptFormatter without a tokenizer library: wording, binding, fingerprints and files."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import PromptFormatter, Record
from sqlquarry.errors import ConfigError, IncompleteArtifactError, RecordError
from sqlquarry.prompt import HUMAN_ASSISTANT, BoundTokens
from sqlquarry.tokenizing.encoded import IGNORED_LABEL

RECORD = Record("How many heads?", "CREATE TABLE head (age INTEGER)", "SELECT COUNT(*) FROM head")
LLAMA_3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
filled = st.text().filter(str.strip)
records = st.builds(Record, filled, filled, filled)


@dataclass
class CharacterTokenizer:
    """A tokenizer with one token per character. BOS, if it is added, is also one token."""

    bos_token: str | None = None
    eos_token: str | None = "</s>"
    chat_template: str | dict[str, str] | None = CHATML
    adds_bos: bool = False
    bos_token_id: int = 1
    eos_token_id: int = 0

    def __call__(self, text: str | list[str], *, add_special_tokens: bool = True) -> dict[str, list[Any]]:
        if isinstance(text, list):
            return {"input_ids": [self(one, add_special_tokens=add_special_tokens)["input_ids"] for one in text]}
        bos = [self.bos_token_id] if self.adds_bos and add_special_tokens else []
        return {"input_ids": bos + [ord(character) + 2 for character in text]}


LLAMA = CharacterTokenizer("<|begin_of_text|>", "<|eot_id|>", LLAMA_3, adds_bos=True)


def test_the_default_prompt_is_the_published_one():
    prompt = PromptFormatter().prompt(RECORD, CharacterTokenizer())

    assert prompt == (
        "You are a powerful text-to-SQL model. Your job is to answer questions about a database. "
        "You can use the following table schema for context: CREATE TABLE head (age INTEGER)"
        "\n\nHuman: Return the SQL query that answers the following question: How many heads?</s>"
        "\n\nAssistant:"
    )


def test_the_completion_is_the_sql_and_the_stop_text():
    bound = PromptFormatter().bind(CharacterTokenizer())

    assert bound.completion(RECORD) == " SELECT COUNT(*) FROM head</s>"
    assert bound.tokens is not None
    assert bound.tokens.stop == "</s>"


def test_a_record_becomes_messages_with_roles():
    with_sql = PromptFormatter(system="S {schema}", user="Q {question}").messages(RECORD)
    without = PromptFormatter().messages(dataclasses.replace(RECORD, sql=None))

    assert [message["role"] for message in with_sql] == ["system", "user", "assistant"]
    assert with_sql[0]["content"] == "S CREATE TABLE head (age INTEGER)"
    assert with_sql[1]["content"] == "Q How many heads?"
    assert with_sql[2]["content"] == RECORD.sql
    assert [message["role"] for message in without] == ["system", "user"]


@given(records)
def test_white_space_around_the_texts_is_ignored(record):
    padded = Record(f" {record.question}\n", f"\n{record.schema} ", f"\t{record.sql} ")
    bound = PromptFormatter().bind(CharacterTokenizer())

    assert bound.prompt(padded) == bound.prompt(record)
    assert bound.completion(padded) == bound.completion(record)


@given(records, st.sampled_from(["human-assistant", "chat"]), st.sampled_from([CharacterTokenizer(), LLAMA]))
def test_the_answer_follows_the_prompt(record, template, tokenizer):
    bound = PromptFormatter(template=template).bind(tokenizer)
    assert bound.tokens is not None
    encoded = bound.encode(record, tokenizer)
    prompt = tokenizer(bound.prompt(record))["input_ids"]
    answer = encoded.labels[len(prompt) :]

    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.labels[: len(prompt)] == [IGNORED_LABEL] * len(prompt)
    assert encoded.input_ids[len(prompt) :] == answer
    text = "".join(chr(token - 2) for token in answer)
    assert text.removeprefix(" ") == (record.sql or "").strip() + bound.tokens.stop
    # The prompt must not depend on the answer.
    assert bound.prompt(record) == bound.prompt(dataclasses.replace(record, sql=None))


@pytest.mark.parametrize("hostile", ["{schema} {question}", "{{ bos_token }}", "{% for %}", "{# #}", "%s {0} $x \\n"])
@pytest.mark.parametrize("template", ["human-assistant", "chat"])
def test_braces_and_jinja_in_a_record_are_text(hostile: str, template: str):
    bound = PromptFormatter(template=template).bind(LLAMA)
    record = Record(f"Q {hostile} Q", f"S {hostile} S", f"A {hostile} A")

    assert f"S {hostile} S" in bound.prompt(record)
    assert f"Q {hostile} Q" in bound.prompt(record)
    assert f"A {hostile} A" in bound.completion(record)
    assert bound.prompt(record) == bound.prompt(Record("Q@Q", "S@S")).replace("S@S", f"S {hostile} S").replace(
        "Q@Q", f"Q {hostile} Q"
    )


@pytest.mark.parametrize("template", ["human-assistant", "chat", HUMAN_ASSISTANT, "{{ bos_token }}" + HUMAN_ASSISTANT])
def test_bos_is_there_once(template: str):
    bound = PromptFormatter(template=template).bind(LLAMA)

    assert LLAMA.bos_token
    assert LLAMA.bos_token not in bound.prompt(RECORD)
    assert bound.encode(RECORD, LLAMA).input_ids.count(LLAMA.bos_token_id) == 1


def test_bos_stays_in_the_prompt_if_only_the_template_adds_it():
    tokenizer = dataclasses.replace(LLAMA, adds_bos=False)
    bound = PromptFormatter(template="chat").bind(tokenizer)

    assert bound.prompt(RECORD).count("<|begin_of_text|>") == 1
    assert bound.prompt(RECORD).startswith("<|begin_of_text|><|start_header_id|>system")


def test_the_chat_template_contains_bos_if_the_tokenizer_adds_it():
    def bound(template: str, tokenizer: CharacterTokenizer) -> PromptFormatter:
        return PromptFormatter(template=template).bind(tokenizer)

    assert bound("human-assistant", LLAMA).chat_template == "{{ bos_token }}" + HUMAN_ASSISTANT
    assert bound("chat", LLAMA).chat_template == LLAMA_3
    assert bound("human-assistant", CharacterTokenizer()).chat_template == HUMAN_ASSISTANT
    assert bound("human-assistant", dataclasses.replace(LLAMA, adds_bos=False)).chat_template == HUMAN_ASSISTANT


@given(records, st.sampled_from(["human-assistant", "chat"]))
def test_a_bound_formatter_needs_no_tokenizer(record, template):
    formatter = PromptFormatter(template=template)
    bound = formatter.bind(LLAMA)

    assert bound.prompt(record) == formatter.prompt(record, LLAMA)
    assert bound.completion(record) == formatter.completion(record, LLAMA)
    assert bound.bind(CharacterTokenizer()) is bound


def test_an_unbound_formatter_needs_a_tokenizer():
    for use in (PromptFormatter().prompt, PromptFormatter().completion):
        with pytest.raises(ConfigError, match=r"\bbind\(\)"):
            use(RECORD)


def test_a_record_without_sql_has_no_completion():
    with pytest.raises(RecordError, match=r"\br7\b.*\bsql\b"):
        PromptFormatter().completion(Record("q", "s", id="r7"), CharacterTokenizer())


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"system": "missing"}, [r"\bsystem\b", r"\{schema\}", "'missing'"]),
        ({"user": "missing"}, [r"\buser\b", r"\{question\}", "'missing'"]),
        ({"system": "x", "user": "y"}, [r"\{schema\}.*\{question\}"]),
        ({"template": "chatml"}, ["'chatml'"]),
        ({"template": "{% for m in messages %}"}, ["Jinja", r"\(line 1\b"]),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, str], values: list[str]):
    with pytest.raises(ConfigError) as caught:
        PromptFormatter(**options)
    for value in values:
        assert re.search(value, str(caught.value))


@pytest.mark.parametrize(
    ("template", "tokenizer", "value"),
    [
        ("human-assistant", CharacterTokenizer(eos_token=None), "eos_token"),
        ("chat", CharacterTokenizer(chat_template=None), r"\bnone\b"),
        ("chat", CharacterTokenizer(chat_template={"a": CHATML, "b": CHATML}), r"\bseveral\b"),
        # The prompt changes when there is an answer, and the message quotes both from the first difference.
        ("{{ messages[-1].content }}", CharacterTokenizer(), r"'Return.* 'Select a'"),
        ("{% if messages | length > 2 %}!{% endif %}" + HUMAN_ASSISTANT, CharacterTokenizer(), r"'You are.* '!You are"),
        ("{{ messages | length }}" + HUMAN_ASSISTANT, CharacterTokenizer(), r"'2You are.* '3You are"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", CharacterTokenizer(), r"\{\{ eos_token \}\}"),
        ("{{ raise_exception('no system role') }}", CharacterTokenizer(), "no system role"),
    ],
)
def test_models_that_cannot_be_bound_are_refused(template: str, tokenizer: CharacterTokenizer, value: str):
    with pytest.raises(ConfigError, match=value):
        PromptFormatter(template=template).bind(tokenizer)


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ({"system": "{schema} {Schema}"}, "'{schema}'?"),
        ({"system": "{schema} in {dialects}"}, "'{dialect}'?"),
        ({"user": "{question} {qestion}"}, "'{question}'?"),
        ({"user": "{question} {sql}"}, "{sql}"),
        ({"user": "{question} {note}"}, "'{notes}'?"),
        ({"user": "{question} {notes}", "system": "{schema}{evidence_2}"}, "{evidence_2}"),
    ],
)
def test_unknown_placeholders_are_refused_with_the_one_meant(options: dict[str, str], meant: str):
    with pytest.raises(ConfigError) as refused:
        PromptFormatter(**options)
    assert meant in str(refused.value)


@pytest.mark.parametrize(
    ("dialect", "spelled"),
    [
        ("sqlite", "SQLite"),
        ("postgres", "PostgreSQL"),
        ("bigquery", "BigQuery"),
        ("oracle", "Oracle"),
        ("tsql", "T-SQL"),
    ],
)
def test_schema_and_dialect_may_be_in_either_message(dialect: str, spelled: str):
    record = dataclasses.replace(RECORD, dialect=dialect)
    in_user = PromptFormatter(system="Write {dialect}.", user="{schema}\n{question} ({dialect})").messages(record)
    alone = PromptFormatter(system="", user="{schema}\n{question}").messages(record)
    asked = {"role": "user", "content": "CREATE TABLE head (age INTEGER)\nHow many heads?"}

    assert in_user[0]["content"] == f"Write {spelled}."
    assert in_user[1]["content"] == f"{asked['content']} ({spelled})"
    assert alone == [asked, {"role": "assistant", "content": RECORD.sql}]


names = st.sampled_from(
    ["{schema}", "{question}", "{dialect}", "{notes}", "{{x}}", "{}", '{"sql": 1}', "{ a }", "$", "\\1"]
)


@given(st.lists(names).map("".join), st.lists(names).map("".join), st.lists(names).map("".join))
def test_placeholders_are_filled_in_one_pass_and_other_braces_stay(system: str, schema: str, question: str):
    formatter = PromptFormatter(system=f"<{system}>", user="[{schema}|{question}]")
    record = Record(f"Q{question}", f"S{schema}", notes="N")
    system_message, user_message = formatter.messages(record)

    asked = f"Q{question}" if "{notes}" in system else f"Q{question} (N)"
    assert user_message["content"] == f"[S{schema}|{asked}]"
    parts = re.split(r"(\{(?:schema|question|dialect|notes)\})", system)
    values = {"{schema}": record.schema, "{question}": asked, "{dialect}": "SQLite", "{notes}": "N"}
    assert system_message["content"] == f"<{''.join(values.get(part, part) for part in parts)}>"


def test_fingerprints_never_change():
    tokens = BoundTokens(HUMAN_ASSISTANT, "<s>", "</s>", adds_bos=True, stop="</s>")

    assert PromptFormatter().fingerprint == "9877d50347e6d98d"
    assert PromptFormatter("S {schema}", "Q {question}", "chat").fingerprint == "adddda3311db7839"
    assert PromptFormatter(tokens=tokens).fingerprint == "4ad50f53d4071af3"


NO_SYSTEM = {
    "refuses": "{% if messages[0].role == 'system' %}{{ raise_exception('only user and assistant') }}{% endif %}"
    + CHATML,
    # Like Mistral's newer templates, which put the system message into the last user message.
    "moves": (
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% endif %}"
        "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}[INST]"
        "{% if loop.last and system is defined %}{{ system }}{% endif %}{{ m.content }}[/INST]"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
}


@pytest.mark.parametrize(("kind", "start"), [("refuses", "<|im_start|>user\n"), ("moves", "[INST]")])
def test_a_template_without_a_system_role_works_with_an_empty_system_message(kind: str, start: str):
    tokenizer = CharacterTokenizer(chat_template=NO_SYSTEM[kind])
    with pytest.raises(ConfigError, match="system=''"):
        PromptFormatter(template="chat").bind(tokenizer)
    bound = PromptFormatter(system="", user="{schema} {question}", template="chat").bind(tokenizer)

    assert bound.prompt(RECORD).startswith(f"{start}CREATE TABLE head (age INTEGER) How many heads?")


def test_fingerprints_differ_if_any_part_differs():
    base = CharacterTokenizer("<s>")
    prompts = [
        PromptFormatter(),
        PromptFormatter().bind(base),
        PromptFormatter(system="S {schema}").bind(base),
        PromptFormatter(user="Q {question}").bind(base),
        PromptFormatter(template="chat").bind(base),
        PromptFormatter(template=HUMAN_ASSISTANT + " ").bind(base),
        PromptFormatter().bind(dataclasses.replace(base, bos_token="<b>")),
        PromptFormatter().bind(dataclasses.replace(base, eos_token="<e>")),
        PromptFormatter().bind(dataclasses.replace(base, adds_bos=True)),
    ]

    assert len({prompt.fingerprint for prompt in prompts}) == len(prompts)
    assert PromptFormatter().bind(base).fingerprint == prompts[1].fingerprint
    assert all(len(prompt.fingerprint) == 16 for prompt in prompts)


def test_fingerprint_is_the_same_in_another_process():
    code = "from sqlquarry import PromptFormatter; print(PromptFormatter(user='né {question}').fingerprint)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.strip()

    assert other == PromptFormatter(user="né {question}").fingerprint


@pytest.mark.parametrize("formatter", [PromptFormatter(system="é\u2028 {schema}"), PromptFormatter().bind(LLAMA)])
def test_save_and_load(tmp_path: Path, formatter: PromptFormatter):
    formatter.save(tmp_path / "new")

    assert PromptFormatter.load(tmp_path / "new") == formatter
    assert PromptFormatter.load(str(tmp_path / "new")).fingerprint == formatter.fingerprint


def test_load_refuses_an_edited_or_missing_file(tmp_path: Path):
    with pytest.raises(IncompleteArtifactError, match=r"prompt\.json") as caught:
        PromptFormatter.load(tmp_path)
    assert caught.value.__cause__ is None  # nothing was read
    PromptFormatter().bind(LLAMA).save(tmp_path)
    content = json.loads((tmp_path / "prompt.json").read_text())
    for edited in (
        content | {"user": "Another {question}"},
        content | {"tokens": content["tokens"] | {"adds_bos": False}},
        content | {"fingerprint": "0" * 16},
    ):
        (tmp_path / "prompt.json").write_text(json.dumps(edited))
        with pytest.raises(IncompleteArtifactError, match=edited["fingerprint"]):
            PromptFormatter.load(tmp_path)


def test_the_stop_text_of_a_template_that_thinks_first():
    # Like Qwen3's template renders the last assistant turn.
    thinking = CHATML.replace(
        "m['role'] + '\n' +",
        "m['role'] + '\n' + ('<think>\n\n</think>\n\n' if loop.last and m['role'] == 'assistant' else '') +",
    )
    bound = PromptFormatter(template="chat").bind(CharacterTokenizer(chat_template=thinking))

    assert bound.tokens is not None
    assert bound.tokens.stop == "<|im_end|>"
    assert bound.completion(RECORD) == f"<think>\n\n</think>\n\n{RECORD.sql}<|im_end|>"


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ strftime_now('%d') }}", "strftime_now"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% for %}", "TemplateSyntaxError"),
    ],
)
def test_chat_templates_that_cannot_be_rendered_are_refused(template: str, value: str):
    with pytest.raises(ConfigError, match=value):
        PromptFormatter(template="chat").bind(CharacterTokenizer(chat_template=template))


def test_a_tokenizer_that_ends_every_text_is_refused():
    class EndsTexts(CharacterTokenizer):
        def __call__(self, text: str | list[str], *, add_special_tokens: bool = True) -> dict[str, list[Any]]:
            return {"input_ids": [*super().__call__(text)["input_ids"], *([0] if add_special_tokens else [])]}

    with pytest.raises(ConfigError, match="EOS"):
        PromptFormatter().bind(EndsTexts())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"fingerprint": "x", "tokens": {"a": 1}}'])
def test_load_refuses_an_invalid_file(tmp_path: Path, content: str):
    (tmp_path / "prompt.json").write_text(content)

    with pytest.raises(IncompleteArtifactError, match=r"prompt\.json"):
        PromptFormatter.load(tmp_path)


TURNS = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
BEGIN = "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "value"),
    [
        (TURNS.replace("{{", "{% if m.role != 'system' %}{{").replace("}}", "}}{% endif %}") + BEGIN, r"\bschema\b"),
        (TURNS.replace("{{", "{% if m.role != 'user' %}{{").replace("}}", "}}{% endif %}") + BEGIN, r"\bquestion\b"),
        (TURNS.replace("m.content", "m.content | lower") + BEGIN, r"\bquestion\b.*\bschema\b"),
        (TURNS.replace("m.content", "m.content.replace('Select', 'select')") + BEGIN, "'Select a'.*'select a</s>'"),
        (TURNS, "'assistant: '"),
    ],
)
def test_templates_that_drop_or_change_text_are_refused(template: str, value: str):
    with pytest.raises(ConfigError, match=value):
        PromptFormatter(template=template).bind(CharacterTokenizer())


def test_white_space_around_blocks_of_a_template_is_trimmed_as_in_transformers():
    """Chat templates are written for `trim_blocks` and `lstrip_blocks`, so any other setting changes the prompt."""
    template = (
        "  {% for m in messages %}\n"
        "{{ m.role }}: {{ m.content }}{{ eos_token }}\n"
        "  {% endfor %}\n"
        "  {% if add_generation_prompt %}\nassistant:{% endif %}"
    )
    bound = PromptFormatter(system="", user="{schema}|{question}", template=template).bind(CharacterTokenizer())

    assert bound.prompt(Record("Q", "S")) == "user: S|Q</s>\nassistant:"


@pytest.mark.parametrize("user", ["{{question}} {schema}", "{question:>10} {question}", "{question!r} {question}"])
def test_placeholders_with_double_braces_or_a_format_are_refused(user: str):
    with pytest.raises(ConfigError):
        PromptFormatter(user=user)


def test_braces_around_a_placeholder_stay():
    user = PromptFormatter(user='{"s": {schema}, "q": {question}}').messages(Record("Q", "S"))[-1]
    assert user["content"] == '{"s": S, "q": Q}'
