"""Test with real tokenizers that training and serving give the same tokens for a prompt."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry import PromptFormatter, Record
from sqlquarry.prompt import HUMAN_ASSISTANT
from sqlquarry.tokenizing.encoded import IGNORED_LABEL

from conftest import CHATML, tiny_tokenizer, toy_examples

LLAMA_3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# One template for each feature that chat templates on the hub use beyond plain Jinja.
HUB_TEMPLATES = {
    "generation tags": (
        "{% for m in messages %}\n{{ '<|im_start|>' + m['role'] + '\n' }}\n{% if m['role'] == 'assistant' %}\n"
        "{% generation %}\n{{ m['content'] + '<|im_end|>' }}\n{%- endgeneration %}\n{% else %}\n"
        "{{ m['content'] + '<|im_end|>' }}\n{% endif %}\n{% endfor %}\n"
        "{% if add_generation_prompt %}\n{{ '<|im_start|>assistant\n' }}\n{% endif %}"
    ),
    "break": "{% for m in messages %}{% if not m['role'] %}{% break %}{% endif %}"
    + CHATML.removeprefix("{% for m in messages %}"),
    "tools": "{% if tools is not none or documents is not none %}[TOOLS]{% endif %}" + CHATML,
    "tojson": CHATML.replace("m['content']", "m['content'] | tojson"),
    "date": "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}2024{% endif %}\n" + CHATML,
}


def llama_3_like() -> Any:
    """Return a byte-level BPE tokenizer whose post-processor adds BOS and whose template renders BOS too."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    backend = Tokenizer(models.BPE(ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, show_progress=False, special_tokens=specials, initial_alphabet=alphabet
    )
    backend.train_from_iterator((" ".join(example.values()) for example in toy_examples(300)), trainer)
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"{specials[0]} $A", special_tokens=[(specials[0], 0)]),
        ]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", chat_template=LLAMA_3
    )
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return tokenizer


TOKENIZERS = {"tiny": tiny_tokenizer(), "llama 3": llama_3_like()}
text = st.one_of(
    st.text(),
    st.text(st.sampled_from(" \n\t\u2028aZ0é漢😀{}%'\"`")),
    st.sampled_from(["<|im_end|>", "<|eot_id|>x", "<|begin_of_text|>", "<|endoftext|> SELECT", "{{ bos_token }}"]),
).filter(str.strip)
special = ("<|im_end|>", "<|im_start|>", "<|pad|>", "<|eot_id|>", "<|begin_of_text|>", "<|endoftext|>")
answers = text.filter(lambda sql: not any(token in sql for token in special))  # answers may not contain them
records = st.builds(Record, text, text, answers)
every_pair = pytest.mark.parametrize(
    ("name", "template"), [(name, template) for name in TOKENIZERS for template in ("human-assistant", "chat")]
)


@every_pair
@given(record=records)
def test_training_tokens_begin_with_the_serving_tokens(name: str, template: str, record: Record):
    tokenizer = TOKENIZERS[name]
    bound = PromptFormatter(template=template).bind(tokenizer)
    assert bound.tokens is not None
    prompt, (ids, labels) = tokenizer(bound.prompt(record))["input_ids"], bound.encode(record, tokenizer)
    border = len(prompt)

    assert ids[:border] == prompt
    assert labels == [IGNORED_LABEL] * border + ids[border:]
    assert border < len(ids)
    assert not (ids[0] == ids[1] == tokenizer.bos_token_id)
    assert (ids[0] == tokenizer.bos_token_id) == (name == "llama 3")
    space = " " if template == "human-assistant" else ""
    answer = tokenizer.decode(labels[border:], clean_up_tokenization_spaces=False)
    assert answer == space + (record.sql or "").strip() + bound.tokens.stop


@every_pair
@given(record=records)
def test_a_server_that_renders_messages_makes_the_same_tokens(name: str, template: str, record: Record):
    tokenizer = TOKENIZERS[name]
    bound = PromptFormatter(template=template).bind(tokenizer)

    served = tokenizer.apply_chat_template(
        bound.messages(dataclasses.replace(record, sql=None)),
        chat_template=bound.chat_template,
        add_generation_prompt=True,
        return_dict=False,
    )

    assert served == tokenizer(bound.prompt(record))["input_ids"]


@every_pair
def test_many_records_are_encoded_as_one_by_one(name: str, template: str):
    tokenizer = TOKENIZERS[name]
    bound = PromptFormatter(template=template).bind(tokenizer)
    some = [Record(e["question"], e["schema"], e["sql"]) for e in toy_examples(20)]

    assert list(bound.encode_all(some, tokenizer)) == [bound.encode(record, tokenizer) for record in some]
    assert len(bound.encode_all([], tokenizer)) == 0


@given(record=records)
def test_the_chat_template_renders_as_transformers_does(record: Record):
    tokenizer = TOKENIZERS["tiny"]
    bound = PromptFormatter(template="chat").bind(tokenizer)
    messages = bound.messages(record)

    assert bound.prompt(record) == tokenizer.apply_chat_template(
        messages[:2], tokenize=False, add_generation_prompt=True
    )
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert bound.prompt(record) + bound.completion(record) == whole.rstrip()


def test_the_stop_text_is_the_turn_end():
    stops = {
        (name, template): PromptFormatter(template=template).bind(tokenizer).tokens.stop  # type: ignore[union-attr] - bound
        for name, tokenizer in TOKENIZERS.items()
        for template in ("human-assistant", "chat")
    }

    assert set(stops.values()) == {"<|im_end|>", "<|eot_id|>"}


@pytest.mark.parametrize("feature", HUB_TEMPLATES)
def test_templates_of_the_hub_render_as_transformers_renders_them(feature: str):
    tokenizer = TOKENIZERS["tiny"]
    record = Record('What "is" <it>?', "CREATE TABLE é (a)", "SELECT a FROM é")
    bound = PromptFormatter(template=HUB_TEMPLATES[feature]).bind(tokenizer)
    messages = bound.messages(record)
    # A server renders `chat_template`.
    prompt = tokenizer.apply_chat_template(
        messages[:2], chat_template=bound.chat_template, tokenize=False, add_generation_prompt=True
    )
    whole = tokenizer.apply_chat_template(messages, chat_template=bound.chat_template, tokenize=False)

    assert bound.prompt(record) == prompt
    assert prompt + bound.completion(record) == whole.rstrip()


def test_the_human_assistant_template_is_plain_jinja():
    tokenizer = TOKENIZERS["tiny"]
    bound = PromptFormatter().bind(tokenizer)
    record = Record("q", "s", "SELECT 1")

    whole = tokenizer.apply_chat_template(bound.messages(record), chat_template=HUMAN_ASSISTANT, tokenize=False)

    assert whole == bound.prompt(record) + bound.completion(record)
