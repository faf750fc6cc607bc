"""Extraction of SQL from answers with markup and prose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.judging import extract_sql

QUERY = "SELECT a FROM t WHERE b = 'x;y'"
WRAPPED = [
    "{}",
    "{};",
    " [SQL] {} [/SQL]",
    "[SQL]{}",
    "```sql\n{};\n```",
    "```\n{}\n```",
    "```sql {} ```",
    "```sql\n{}",
    "Here is the query: {}; I hope it helps!",
    "Sure! Here's the SQL query:\n\n{}\n\nThis query returns all values of a.",
    "{}\n\nHuman: What is the next question?\n\nAssistant: SELECT 2",
    "{}</s>",
    "{}<|eot_id|><|start_header_id|>user",
    "You can use the SELECT statement like this: {};",
    "1. {};\n2. SELECT b FROM t;",
    "### SQL\n{}\n### Explanation\nIt selects a.",
    "<think>maybe SELECT b FROM u;</think>\n{}",
    "With this table, the query is: {};",
    "The query is `{}`.",
    "The table:\n```sql\nCREATE TABLE t (a, b)\n```\nThe query:\n```sql\n{}\n```",
    "Select the rows:\n{}",
    "Select name from users:\n```sql\n{}\n```",
    # The prompt ended with an open code block or tag.
    "{}\n```\nThis query returns a.",
    "{};\n```\n\n```python\nprint('SELECT 1')\n```",
    "{} [/SQL] done",
    "The columns are a and b.</think>\n\n{}",
    "-- SELECT names of users\n{}",
    "/* WITH x AS in it */ {}",
    '{{"sql": "{}"}}',
    '```json\n{{"thought": "easy", "query": "{}"}}\n```',
    "<s><|assistant|>\n{}<|end|>",
    "It is `{}`, not `SELECT 2`.",
    '"{}"',
]


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_the_query_is_found(wrapping):
    assert extract_sql(wrapping.format(QUERY)) == QUERY


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from t",
        "WITH c AS (SELECT 1 AS x)\nSELECT x\n\nFROM c",
        "SELECT `name` FROM t -- a note; here\nWHERE b = 1",
        "(SELECT a FROM t) UNION (SELECT b FROM u)",
        "INSERT INTO t SELECT * FROM u",
        "DROP TABLE t",
        "SELECT a FROM t WHERE (b = 1\nfoo bar",
        "SELECT a FROM t WHERE b = 'not closed",
        'SELECT "a", [b] FROM t WHERE c = "it\'s; ok"',
        'WITH "my cte"(x) AS (SELECT 1) SELECT x FROM "my cte"',
        "WITH RECURSIVE [n n] AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM [n n]) SELECT x FROM [n n]",
        "SELECT '<s>' AS a, '```' AS b, '[INST];' AS c FROM t",
        "SELECT [SQL] FROM t",
        """SELECT json_extract(d, '$.a') FROM t WHERE d = '{"sql": "SELECT 1; SELECT 2"}'""",
        "SELECT a /* no; */ FROM t -- nor; here",
        "SELECT Name\nFROM t\nWHERE a GLOB 'x'\nGROUP BY\n  Name",
    ],
)
def test_plain_sql_is_left_untouched(sql):
    assert extract_sql(sql) == sql


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "I don't know.",
        "Please select an option from the list.",
        "42",
        "``````",
        "<think>SELECT a FROM t",
        '{"answer": 42}',
        "-- only a comment",
        "Sure.<|eot_id|><|start_header_id|>assistant\nSELECT 2",
    ],
)
def test_no_sql_is_empty_text(text):
    assert extract_sql(text) == ""


@given(st.text(alphabet="SELECT ;`'\"\n[]/#:sqlWITHfrom()<|>", max_size=60))
def test_any_text_gives_text(text):
    found = extract_sql(text)
    assert found == found.strip()
    assert found in text
