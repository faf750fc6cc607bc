"""The wording and the templates of the default prompt and of the published one.

Source: AWS, notebook "customized-text-to-sql-model" (aws-samples/amazon-bedrock-samples, MIT-0).
"""

from __future__ import annotations

DEFAULT_SYSTEM = (
    "You are a powerful text-to-SQL model. Your job is to answer questions about a database. "
    "You can use the following table schema for context: {schema}"
)
DEFAULT_USER = "Return the SQL query that answers the following question: {question}"

# The published prompt with three changes. There is a space between the sentences of the system message, the tokenizer
# adds its BOS, and the prompt ends without a space. That space would become a token of its own. Here it belongs to the
# answer, so it joins the answer's first word.
HUMAN_ASSISTANT = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '\n\nHuman: ' + message['content'] + eos_token }}"
    "{% else %}{{ '\n\nAssistant: ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
# The published prompt, verbatim.
PUBLISHED_SYSTEM = DEFAULT_SYSTEM.replace("database. You", "database.You")
PUBLISHED = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '\n\nHuman: ' + message['content'] +  eos_token }}"
    "{% elif message['role'] == 'assistant' %}{{ '\n\nAssistant: '  + message['content'] +  eos_token  }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant: ' }}{% endif %}"
)
