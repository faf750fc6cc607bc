"""The messages and the template of the published notebook's training, written without this library.

Source: aws-samples/amazon-bedrock-samples, customized-text-to-sql-model.ipynb, MIT-0.
"""

from __future__ import annotations

from typing import Any

import jinja2.sandbox

from sqlquarry import Record

NOTEBOOK_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}"
    "{{ '\n\nHuman: ' + message['content'] +  eos_token }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '\n\nAssistant: '  + message['content'] +  eos_token  }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '\n\nAssistant: ' }}"
    "{% endif %}"
)


def notebook_messages(record: Record) -> list[dict[str, str]]:
    system = (
        "You are a powerful text-to-SQL model. Your job is to answer questions about a database."
        f"You can use the following table schema for context: {record.schema}"
    )
    question = f"Return the SQL query that answers the following question: {record.question}"
    turns = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return turns if record.sql is None else [*turns, {"role": "assistant", "content": record.sql}]


def notebook_text(record: Record, **variables: Any) -> str:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(NOTEBOOK_TEMPLATE).render(messages=notebook_messages(record), **variables)
