"""Test that untrusted chat templates always end, and that ordinary ones render the same bytes as in transformers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sqlquarry import PromptFormatter
from sqlquarry.errors import ConfigError, IncompleteArtifactError
from sqlquarry.tokenizing.bound_tokens import BoundTokens
from sqlquarry.tokenizing.rendering import (
    SAMPLES,
    Conversation,
    compile_template,
    render_bounded,
    require_bounded,
    template_variables,
)

LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
QWEN = (
    "{%- if tools %}\n    {{- '<|im_start|>system\\n' }}\n    {%- for tool in tools %}{{ tool | tojson }}{% endfor %}\n"
    "{%- else %}\n    {%- if messages[0].role == 'system' %}\n"
    "        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}\n    {%- endif %}\n{%- endif %}\n"
    "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n"
    "{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n"
    "    {%- if ns.multi_step_tool and message.role == 'user' %}\n        {%- set ns.multi_step_tool = false %}\n"
    "        {%- set ns.last_query_index = index %}\n    {%- endif %}\n{%- endfor %}\n"
    "{%- for message in messages %}\n    {%- if message.role == 'user' or message.role == 'system' "
    "and not loop.first %}"
    "\n        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    "    {%- elif message.role == 'assistant' %}\n"
    "        {{- '<|im_start|>' + message.role + '\\n' + message.content.split('</think>')[-1].lstrip('\\n') }}\n"
    "        {{- '<|im_end|>\\n' }}\n    {%- endif %}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = "{% for m in messages %}\n{% generation %}\n{{ m.content|tojson }}é\n{% endgeneration %}\n{% endfor %}"
ORDINARY = {"Llama 3": LLAMA_3, "Mistral": MISTRAL, "Qwen": QWEN, "ChatML": CHATML, "generation": MARKED}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

HOSTILE = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "long string": "{{ 'a' * 10**9 }}",
    "power, folded by the compiler": "{{ 10 ** (10**8) }}",
    "power of a variable": "{% set x = messages|length %}{{ (x + 9) ** (10**8) }}",
    "doubling": "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "join": "{{ (['x' * 1000] * 1000000)|join }}",
    "replace in replace": "{{ ('a' * 9999).replace('a', 'a' * 9999).replace('a', 'a' * 9999) }}",
    "center": "{{ 'a'|center(10**9) }}",
    "format": "{{ '%999999999d' % 1 }}",
    "indent": "{{ ('a\n' * 1000000)|indent(100000) }}",
    "lipsum": "{{ lipsum(n=100000) }}",
    "macros that call twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) * 2 }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "endless text": "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    "long source": "{# " + "x" * 300_000 + " #}",
    "only for long messages": "{% for a in messages[0].content %}{% for b in messages[0].content %}{% endfor %}"
    "{% endfor %}",
    "only for many messages": "{% if messages|length > 30 %}{% for a in range(99999) %}{{ range(99999)|sort|length }}"
    "{% endfor %}{% endif %}",
}


def named(source: str) -> str:
    """Return a pattern for the part of a template that a refusal shows."""
    return re.escape(repr(source[:80]))


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_is_stopped_and_remembered(source: str) -> None:
    started = time.process_time()
    with pytest.raises(ConfigError, match=named(source)):
        require_bounded(source, TOKENS)
    again = time.monotonic()
    with pytest.raises(ConfigError, match=named(source)):
        render_bounded(source, SAMPLES[:1], {})
    assert time.monotonic() - again < 4
    assert time.process_time() - started < 4  # no part of the template ran in this process


def test_stopping_takes_little_time_and_memory() -> None:
    """Measure in a separate process, which has no other children."""
    program = (
        "import json, resource, sys\nfrom sqlquarry.tokenizing.rendering import require_bounded\n"
        "for source in json.load(sys.stdin):\n"
        "    try: require_bounded(source, {})\n"
        "    except ValueError: pass\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss)"
    )
    chosen = [HOSTILE[name] for name in ("nested loops", "power of a variable", "doubling", "join")]
    ended = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(chosen), capture_output=True, text=True, check=True
    )
    cpu_s, peak_kib = map(float, ended.stdout.split())
    assert cpu_s < 2.5 * len(chosen)
    assert peak_kib < 512 * 1024


@pytest.mark.parametrize("source", ORDINARY.values(), ids=ORDINARY)
def test_ordinary_templates_render_the_same_bytes_as_in_this_process_and_in_transformers(source: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    require_bounded(source, TOKENS)
    for sample, rendering in zip(SAMPLES, render_bounded(source, SAMPLES, TOKENS), strict=True):
        if rendering.failure:
            assert source == MISTRAL  # accepts no system message
            assert "must alternate" in rendering.failure
            continue
        options = {"add_generation_prompt": sample.generation, **TOKENS}
        (theirs,), _ = render_jinja_template([list(sample.messages)], chat_template=source, **options)
        assert rendering.text == compile_template(source).render(messages=sample.messages, **options) == theirs


def test_failures_are_reported_and_are_not_hostile() -> None:
    broken = {
        "{% if %}": "TemplateSyntaxError",
        "{{ missing.name }}": "UndefinedError",
        "{{ raise_exception('no tools') }}": "no tools$",
        "{{ ''.__class__.__mro__ }}": "SecurityError",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "RecursionError",
        "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}": "RecursionError",
        "{% for i in range(9) %}" * 40 + "{% endfor %}" * 40: "SyntaxError",
        "{{ range(10**9)|list }}": "OverflowError",
    }
    for source, reason in broken.items():
        (rendering,) = render_bounded(source, SAMPLES[:1], {})
        with pytest.raises(ConfigError, match=reason):
            rendering.require()
    assert len(render_bounded("{{ raise_exception('x' * 100000) }}", SAMPLES[:1], {})[0].failure) < 600


def test_odd_text_passes_through_the_pipe() -> None:
    text = "\ud83d half an emoji, \u2028, \x85, \x00 and \r\n"
    (rendering,) = render_bounded("{{ messages[0].content }}", [Conversation([{"content": text}], generation=True)], {})
    assert rendering.text == text


def test_the_date_is_that_of_the_caller() -> None:
    source = "{{ strftime_now('%Y') if strftime_now is defined else 'none' }}"
    texts = [render_bounded(source, SAMPLES[:1], {}, date=date)[0].text for date in (None, "2024")]
    assert texts == ["none", "2024"]


class Tokenizer:
    """The parts of a tokenizer that `bind` needs."""

    bos_token, eos_token, bos_token_id, eos_token_id = None, "</s>", None, 2

    def __init__(self, chat_template: str) -> None:
        self.chat_template = chat_template

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:  # noqa: ARG002 - there are none
        return {"input_ids": [len(text)]}


def test_binding_to_a_hostile_template_is_a_typed_error() -> None:
    for source in (HOSTILE["long string"], HOSTILE["only for long messages"]):
        with pytest.raises(ConfigError, match=named(source)):
            PromptFormatter(template="chat").bind(Tokenizer(source))
        PromptFormatter().bind(Tokenizer(source))  # does not use it
    assert PromptFormatter(template="chat").bind(Tokenizer(CHATML)).tokens.stop == "<|im_end|>"


@pytest.mark.parametrize("where", ["template", "tokens", "only for its own wording"])
def test_a_hostile_prompt_file_is_a_typed_error(tmp_path: Path, where: str) -> None:
    source = stopped = HOSTILE["doubling"]
    if where == "only for its own wording":
        source = stopped = "{% if 'magic' in messages[0].content %}" + source + "{% endif %}"
    tokens = BoundTokens(CHATML if where == "template" else source, "", "</s>", adds_bos=False, stop="</s>")
    system = "magic {schema}"
    PromptFormatter(system=system, template="chat", tokens=tokens).save(tmp_path)
    if where == "template":
        path, stopped = tmp_path / "prompt.json", HOSTILE["power, folded by the compiler"]
        path.write_text(json.dumps(json.loads(path.read_text()) | {"template": stopped}))
    with pytest.raises(IncompleteArtifactError, match=named(stopped)):
        PromptFormatter.load(tmp_path)


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}", {"messages"}),
        ("{# thinking #}thinking{{ 'tools' }}", set()),
        ("{% if not day is defined %}{% set day = 1 %}{% endif %}{{ day }}", {"day"}),
        ("{% set x = 1 %}{{ x }}{{ y | default(2) }}", {"y"}),
    ],
)
def test_the_variables_of_a_template_are_the_undefined_names(template, names):
    assert template_variables(template) == names
