"""Extraction from answers as real models write them: known wrappings, then random ones."""

import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sqlquarry import Record
from sqlquarry.judging import ExactGrader, SQLJudge, extract_sql
from sqlquarry.judging.extraction import ANSWER_LIMIT

QUERY = "SELECT city FROM shops WHERE rent > 900"

PROSE = [
    "In this query, shops are filtered by rent.",
    "As you can see, only one column is needed.",
    "Using the rent column, we keep the dear ones.",
    "When run, this gives the cities",
    "With this you get the cities",
    "On execution it returns three rows.",
    "And that is it!",
    "(This assumes that rent is a number)",
    "From the table shops we take cities.",
    "Where rent is unknown, the shop is left out.",
    "Set the limit as you need it.",
    "Or, if you prefer, use a view.",
    "Not all shops are returned.",
    "Order does not matter here.",
    "Join is not needed here",
    "Having run it, you see cities.",
    "Let me know if you need more.",
    "Note: rent is per month",
    "Explanation:\nrents above 900",
    "### Why\nrents",
    "Human: and the names?",
    "| city |\n|------|\n| Graz |",
    "- It keeps dear shops",
    "* The filter is on rent",
    "1. It reads shops",
    "It doesn't use an index",
    "In SQL, text is put between '.",
    "This selects `city` from `shops` where rent > 900.",
    "Die Abfrage liefert alle teuren Läden.",
    "Cette requête renvoie les villes.",
    "这个查询返回城市。",
    "Done!",
    "(3 rows)",
    "P.S. rent needs an index",
    "✅ It works",
    "#",
]


@pytest.mark.parametrize("prose", PROSE)
@pytest.mark.parametrize("between", ["\n", "\n\n", ";\n", ". "])
def test_prose_after_the_query_is_cut_off(prose, between):
    if between == ". " and not prose[0].isalpha():
        between = ".\n"
    assert extract_sql(QUERY + between + prose) == QUERY
    assert extract_sql(f"The answer is:\n{QUERY}{between}{prose}") == QUERY


WRAPPED = [
    "The answer is {}.",
    "You can use {} to get them.",
    "You can use {} to list them now.",
    "Run {}!",
    "**{}**",
    "**Answer:** **{}**",
    "I would use “{}” here.",
    "The query ({}) works.",
    "(Query: {})",
    "SQL: {}",
    "> {}",
    "1) {}",
    "sql\n{}",
    "SQLQuery: {}\nSQLResult: [('Graz',)]\nAnswer: Graz",
    "The query (see below):\n\n    {}\n\nworks.",
    "<sql>{}</sql>",
    "<answer>\n```sql\n{}\n```\n</answer>",
    "<SQL_Query>{}</SQL_Query> as asked",
    "{}</answer>",
    "{}\n</s>",
    "<thinking>\nSELECT city FROM malls? I don't think so.\n</thinking>\n{}",
    "<reasoning>rent is a number</reasoning>{}",
    "Perhaps SELECT 1, but no.</thinking>\n{}",
    "<|channel|>analysis<|message|>SELECT 1<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
    "First:\n```sql\nSELECT town FROM shops\n```\nThat column is wrong. The corrected query:\n```sql\n{}\n```",
    "Step 1:\n```sql\nSELECT * FROM shops\n```\nStep 2, the final query:\n```sql\n{}\n```",
    "```sql\n{}\n```\nAlternatively:\n```sql\nSELECT DISTINCT city FROM shops\n```",
    "```\n{}\n```\nResult:\n```\nGraz\n```",
    "```text\nSELECT is the keyword\n```\n```sql\n{}\n```",
    '```python\ncursor.execute("{}")\n```',
    "~~~sql\n{}\n~~~",
    '{{"explanation": "SELECT rows where rent is high", "sql": "{}"}}',
    'Here it is:\n{{"sql": "{}", "confidence": 0.9}}\nBye',
    '[{{"sql": "{}"}}]',
    '{{"name": "run", "arguments": {{"query": "{}"}}}}',
    '{{"tool": "run", "arguments": "{{\\"query\\": \\"{}\\"}}"}}',
    '{{"sql": "{}',
    "```sql\nCREATE TABLE shops (city TEXT, rent INT)\n```\n{}",
    "PRAGMA table_info(shops);\n{}",
    "CREATE TABLE shops (city, rent);\nINSERT INTO shops VALUES ('Graz', 1);\n{};",
    "<|channel|>final <|constrain|>sql<|message|>{}<|return|>",
    "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>",
    "<s>[INST] Where is rent high? SELECT 1 [/INST] {}</s>",
    "The final answer is $\\boxed{{{}}}$.",
    "\\boxed{{\\text{{{}}}}}",
    '```python\nquery = """\n{}\n"""\nconnection.execute(query)\n```',
    "df = pd.read_sql('''{}''', connection)",
    'vn.run_sql("""\n{}\n""")',
    'SQLQuery: "{}"\nSQLResult: "[]"',
    "答案是：\n{}；\n希望有帮助",
    "答案是：{}。",
    "```sql\nSELECT town FROM shops\n```\nThere is no such column, so let me fix it:\n```sql\n{}\n```",
    "```sql\nSELECT 1 FROM shops\n```\nPutting it all together:\n```sql\n{}\n```",
]


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_the_query_is_found_in(wrapping):
    assert extract_sql(wrapping.format(QUERY)) == QUERY


@pytest.mark.parametrize(
    "wrapping",
    [
        "It is [sql] {} [/Sql], I think",
        "<SQL>{}</sql> as asked",
        "<Answer>{}</ANSWER> is mine",
        "<THINK>SELECT 1</Think>\n{}",
        "Here:\n```SQL\n{}\n```",
    ],
)
def test_tags_are_found_in_upper_and_lower_case(wrapping):
    assert extract_sql(wrapping.format(QUERY)) == QUERY


@pytest.mark.parametrize(
    ("answer", "query"),
    [
        ("I would use select city from shops", "select city from shops"),
        ("Use select city from shops; it works", "select city from shops"),
        ("Run select city from shops where rent > 900 to get them.", "select city from shops where rent > 900"),
        ("Run select city from shops where rent > 900.", "select city from shops where rent > 900"),
        ("My query is select city\nfrom shops\nwhere rent > 900", "select city\nfrom shops\nwhere rent > 900"),
        ("We select the rows from the shops that are dear", ""),
        ("We select a row from", ""),
    ],
)
def test_a_query_in_lower_case_is_found_in_prose(answer, query):
    assert extract_sql(answer) == query


def test_lines_of_a_query_before_prose_stay_lines():
    query = "SELECT city -- the town\nFROM shops\nWHERE rent > 900"
    assert extract_sql(f"{query}\nThis query returns the cities.") == query
    assert extract_sql(f"{query}\n\nThis query returns the cities.\nIt is fast.") == query


@pytest.mark.parametrize(
    "key",
    [
        "sql", "sql_query", "sqlquery", "query", "final_sql", "final_query", "statement", "answer", "code", "output",
        "SQL", "Final_SQL",
    ],
)  # fmt: skip
def test_the_key_of_a_json_value_decides_which_query_is_found(key):
    assert extract_sql(json.dumps({"note": "SELECT 1 FROM notes", key: QUERY})) == QUERY


@pytest.mark.parametrize("language", ["python", "bash", "sh", "shell", "text", "txt", "plaintext", "output", "csv"])
def test_a_code_block_of_sql_is_preferred_to_one_of_another_language(language):
    assert extract_sql(f"```{language}\nSELECT 1\n```\n```sql\n{QUERY}\n```") == QUERY


@pytest.mark.parametrize(
    "wrapping",
    [
        "Fill in {{name}} as in {{braces}}: {}",
        "Columns [a, b], so: {}",
        "{{{}}}",
        "[{}]",
        '{{"data": {{"rows": [[{}]]}}}}',
    ],
)
def test_json_is_found_after_brackets_and_in_other_json(wrapping):
    query = 'SELECT "city"\nFROM shops'  # only a JSON parser decodes these
    assert extract_sql(wrapping.format(json.dumps({"final_sql": query}))) == query


@pytest.mark.parametrize("arguments", [{"final_sql": QUERY}, [{"final_sql": QUERY}]], ids=["object", "list"])
def test_json_in_a_text_of_json_is_decoded(arguments):
    query = 'SELECT "city"\nFROM shops'
    inner = json.dumps(arguments).replace(json.dumps(QUERY), json.dumps(query))
    assert extract_sql(json.dumps({"tool": "run", "arguments": inner})) == query


def test_json_in_a_text_of_json_may_have_line_breaks_in_its_strings():
    inner = '{"tool": "run", "final_sql": "SELECT \\"city\\"\nFROM shops"}'
    assert extract_sql(json.dumps({"arguments": inner})) == 'SELECT "city"\nFROM shops'


def test_the_second_long_string_of_a_program_may_be_the_query():
    program = f'''about = """The cities of all shops"""\nquery = """{QUERY}"""\nprint(run(query))'''
    assert extract_sql(f"```python\n{program}\n```") == QUERY


def test_json_strings_are_decoded():
    found = extract_sql('Sure: {"sql": "SELECT \\"city\\"\\nFROM shops WHERE name = \'\\u00d6l\'"}')
    assert found == "SELECT \"city\"\nFROM shops WHERE name = 'Öl'"


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("postgres", "SELECT $$a;b$$ AS x"),
        ("postgres", "SELECT $body$ it's; $$ $body$ AS x"),
        ("postgres", r"SELECT E'it\'s; ok' AS x"),
        ("postgres", "TABLE item"),
        ("duckdb", "FROM shops WHERE rent > 1"),
        ("duckdb", "FROM shops SELECT city"),
        ("tsql", "SELECT [a;b] FROM t"),
        ("mysql", "SELECT a # no; \nFROM t"),
        ("mysql", r"SELECT 'it\'s; ok' FROM t"),
        ("bigquery", r'SELECT "say \";\"" FROM t'),
        ("snowflake", "SELECT a // no; really\nFROM t"),
        ("sqlite", "SELECT a FROM t WHERE b = '</think>'"),
        ("sqlite", "SELECT a FROM t WHERE b = 'AT&amp;T'"),
        ("unheard_of", "SELECT a FROM t WHERE b = 'x;y'"),
    ],
)
def test_the_dialect_decides_about_strings_and_short_forms(dialect, sql):
    assert extract_sql(f"{sql}; -- and more", dialect=dialect) == sql
    assert extract_sql(f"```sql\n{sql};\n```", dialect=dialect) == sql


def test_entities_of_a_web_page_are_decoded():
    escaped = "SELECT a FROM t WHERE b &gt; 5 AND c = &#39;x&#39;; done"
    assert extract_sql(escaped) == "SELECT a FROM t WHERE b > 5 AND c = 'x'"


@pytest.mark.parametrize(
    "broken",
    [
        "SELECT a FROM t\nWHRE b = 1",
        "SELECT a FROM t\nWHERE b = = 1",
        "SELECT a FROM t\nORDR BY name DESC",
        "SELECT a FROM t WHERE c = 'x'\nODER BY a",
        "SELECT a FROM t WHERE b IN (1, 2))",
        "SELECT a FROM t GROUP BY b HAVING",
        "SELECT a FROM t\nJOIN u ON",
        "SELECT a FROM t WHERE b = 1 LIMIT",
        "SELECT a FROM t\nGROUP BY a b c",
        "SELECT a FROM t\nAND b = 1",
        "SELECT a FROM t LEFT JION u ON t.a = u.b",
        "SELECT a FROM t WHERE a is the 3",
        "SELECT a FROM t\nUNION\nSELCT b FROM u",
        # Clauses with English words are wrong SQL and not prose.
        "SELECT a FROM t WHERE all of them are 1",
        "SELECT a FROM t\nwhere b is more than 3",
        "SELECT a FROM t\nGROUP BY b\nwith the most of it",
        "SELECT a FROM t\nHAVING the highest b",
        "SELECT a FROM t\nFOR a of the shop",
        "SELECT a FROM t ORDER BY a the most recent",
        "SELECT a FROM t WHERE b is in the list of c",
        # English words or an end like that of a sentence, but the signs of a clause.
        "SELECT a FROM t\nWHER the = 'x' AND that = 'y'",
        "SELECT a FROM t\nWHER city = town name",
        "SELECT a FROM t\nWher city = town name",
        "SELECT a FROM t\nWHER a.b = c.d AND c.e = d?",
        "SELECT a FROM t\nWHER of = b",
    ],
)
@pytest.mark.parametrize("wrapping", ["{}", "```sql\n{};\n```", "SQLQuery: {}", "Sure:\n\n{}"])
def test_broken_clauses_are_not_mistaken_for_prose(broken, wrapping):
    assert extract_sql(wrapping.format(broken)) == broken


def test_a_query_in_double_quotes_may_have_quoted_names_and_lines():
    query = "SELECT \"the city\"\nFROM shops\nWHERE note = 'ok'"
    assert extract_sql(f'SQLQuery: "{query}"\nSQLResult: "[]"') == query


def test_a_statement_that_changes_data_is_not_skipped():
    assert extract_sql("DROP TABLE shops; SELECT city FROM shops") == "DROP TABLE shops"
    assert extract_sql("```sql\nDELETE FROM shops\n```\n") == "DELETE FROM shops"


_SQL = st.sampled_from(
    [
        QUERY,
        "SELECT COUNT(*), MAX(rent) FROM shops GROUP BY city HAVING COUNT(*) > 2 ORDER BY 2 DESC LIMIT 3",
        "WITH c AS (SELECT city FROM shops)\nSELECT city FROM c",
        "SELECT a.city FROM shops AS a JOIN malls AS b ON a.id = b.shop_id WHERE b.name LIKE 'The %'",
        "SELECT city FROM shops WHERE name = 'it''s; In this query'",
        "select city from shops where rent between 1 and 2",
    ]
)
_BEFORE = st.sampled_from(
    ["", "Sure!\n\n", "Here is the query:\n", "### Query\n", "To get the cities, run this:\n\n", "1. "]
)
_AFTER = st.sampled_from(["", "\n\n" + PROSE[0], "\n" + PROSE[6], ";\n" + PROSE[16], "\n\n### Notes\n* none"])
_AROUND = st.sampled_from(["{}", "```sql\n{};\n```", "<sql>{}</sql>", "[SQL] {} [/SQL]", "```\n{}\n```", "{};"])
_THOUGHTS = st.sampled_from(["", "<think>SELECT 1; isn't it?</think>\n", "<thinking>\nhm\n</thinking>\n\n"])


@given(_THOUGHTS, _BEFORE, _AROUND, _SQL, _AFTER)
def test_the_query_is_found_in_random_wrappings(thoughts, before, around, sql, after):
    assert extract_sql(thoughts + before + around.format(sql) + after) == sql


_PIECES = st.sampled_from(
    [
        "SELECT ",
        "a ",
        "FROM t ",
        "(",
        ")",
        "'",
        '"',
        "`",
        "[",
        "]",
        "{",
        '{"sql": "',
        "```",
        "```sql\n",
        "<sql>",
        "</sql>",
        "<think>",
        "</think>",
        "\n",
        "\n\n",
        ";",
        "--",
        "/*",
        "*/",
        "WITH x AS (",
        "JOIN t ON ",
        "This is. ",
        "&gt;",
        "$$",
        "E'",
        "\\",
        "<|",
        "**",
    ]
)


@settings(deadline=None)
@given(st.lists(_PIECES, max_size=6), st.integers(1, 3000), st.sampled_from(["sqlite", "postgres", "mysql", "duckdb"]))
@example(["SELECT a FROM (t", " x`"], 20_000, "sqlite")
@example(["x JOIN t ON t.a = t.b AND (\n"], 2_300, "sqlite")
@example(["WITH ["], 10_000, "sqlite")
@example(["[1,"], 20_000, "duckdb")
@example(["[SQL]"], 12_800, "postgres")
@example(["[a] "], 16_000, "duckdb")
def test_repetitive_answers_take_linear_time(pieces, times, dialect):
    loop = "".join(pieces)
    text = ("SELECT a FROM t WHERE " + loop * times)[:64_000]
    for answer in (text, "Use `" + text, loop * times):
        started = time.process_time()
        extract_sql(answer[:64_000], dialect=dialect)
        # It takes 50 ms on an idle core. Quadratic time would be 5 to 1,000 times as long.
        assert time.process_time() - started < 1


def test_an_endless_answer_is_unjudged():
    records = [
        Record("q", "CREATE TABLE t (a)", "SELECT a FROM t", id="endless"),
        Record("q", "CREATE TABLE t (a)", "SELECT a FROM t"),
    ]
    report = SQLJudge([ExactGrader()]).judge(records, ["SELECT a FROM t " + "x" * ANSWER_LIMIT, "SELECT a FROM t"])
    endless, fine = (entry.judgements[0] for entry in report.entries)
    assert endless.verdict == "unjudged"
    assert "200,016" in endless.reason
    assert fine.verdict == "correct"


@pytest.mark.parametrize("after", ["\n```sql\nSELECT name FROM malls\n```", " <answer>SELECT name FROM malls</answer>"])
def test_an_answer_that_begins_with_a_query_ends_with_it(after):
    assert extract_sql(f"SELECT city FROM shops;{after}") == "SELECT city FROM shops"
