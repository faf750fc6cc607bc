"""AnswerForm without a model: which constraints are accepted or refused, and which texts they allow."""

from __future__ import annotations

import json
import re
import threading
import time
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlquarry.errors import ConfigError, MissingExtraError
from sqlquarry.models.local.constraints import AnswerForm, Vocabulary

from conftest import tiny_tokenizer

LARK = """start: "SELECT " name (", " name)* " FROM " name
name: /[a-z]{1,3}/
"""
GBNF = """root ::= "SELECT " name (", " name)* " FROM " name
name ::= [a-z] | [a-z] [a-z] | [a-z] [a-z] [a-z]
"""


TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(TOKENIZER, [TOKENIZER.eos_token_id])


def follows(vocabulary, form, text):
    """Return whether each token of the text is allowed and the answer may end after the last one."""
    matcher = form.begin(vocabulary)
    for token in [*TOKENIZER(text, add_special_tokens=False)["input_ids"], TOKENIZER.eos_token_id]:
        if not matcher.allowed()[token]:
            return False
        matcher.take(token)
    return True


FORMS = {
    "json": (
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
        ['{"a": 1}', '{"a":-20}', '{ "a" : 0 }'],
        ["{}", '{"a": "1"}', '{"a": 1, "b": 2}', '{"a": 1}}', '{"a": 1', "1"],
    ),
    "regex": (r"SELECT [a-z]+( LIMIT [0-9]{1,2})?", ["SELECT a", "SELECT ab LIMIT 10"], ["SELECT ", "SELECT a;", "a"]),
    "choice": (["yes", "no", 'no"t'], ["yes", "no", 'no"t'], ["", "ye", "yesno", "Yes", 'no"']),
    "lark": (LARK, ["SELECT a FROM t", "SELECT a, bc FROM t"], ["SELECT a", "SELECT a,b FROM t", "SELECT abcd FROM t"]),
    "gbnf": (GBNF, ["SELECT a FROM t", "SELECT a, bc FROM t"], ["SELECT a", "SELECT a,b FROM t", "SELECT abcd FROM t"]),
}


@pytest.mark.parametrize("kind", FORMS)
def test_each_kind_allows_exactly_the_texts_that_match(kind, vocabulary):
    value, good, bad = FORMS[kind]
    form = AnswerForm.of("grammar" if kind in ("lark", "gbnf") else kind, value)
    assert [text for text in good if not follows(vocabulary, form, text)] == []
    assert [text for text in bad if follows(vocabulary, form, text)] == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_choices_may_be_any_text(data, vocabulary):
    text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
    choices = data.draw(st.lists(text, min_size=1, max_size=4))
    form = AnswerForm.of("choice", choices)
    assert all(follows(vocabulary, form, choice) for choice in choices)
    other = data.draw(text)
    assert follows(vocabulary, form, other) == (other in choices)


def test_json_text_and_object_are_the_same_schema():
    schema = FORMS["json"][0]
    assert AnswerForm.of("json", schema) == AnswerForm.of("json", json.dumps(schema))
    assert AnswerForm.of("json", {}).source == "{}"


@pytest.mark.parametrize(("divisor", "digits"), [(10_001, "10,001"), (1000.1, "10,001"), (100.01, "10,001")])
def test_large_divisors_are_refused_wherever_their_decimal_point_is(divisor, digits):
    with pytest.raises(ConfigError, match=rf"json\b.*\b{digits}\b.*\b10,000\b"):
        AnswerForm.of("json", {"properties": {"a": {"items": [{"multipleOf": divisor}]}}})
    assert AnswerForm.of("json", {"type": "number", "multipleOf": 10_000}).kind == "json"


def test_tokens_that_end_an_answer_are_allowed_only_at_its_end():
    matcher = AnswerForm.of("regex", "a").begin(Vocabulary(TOKENIZER, [0, 2]))
    assert not matcher.allowed()[torch.tensor([0, 2])].any()
    matcher.take(TOKENIZER("a")["input_ids"][0])
    assert matcher.allowed().nonzero().flatten().tolist() == [0, 2]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("json", "{"),
        ("json", {"type": "text"}),
        ("json", {"$ref": "#/nowhere"}),
        ("json", {"$ref": "http://127.0.0.1:9/x.json"}),
        ("json", {"not": {"type": "string"}}),
        ("json", {"a": object()}),
        ("json", {"a": float("inf")}),
        ("json", ["not a schema"]),
        ("json", ""),
        ("json", None),
        ("json", {"type": "string", "pattern": "("}),
        ("json", {"anyOf": [{"type": "number", "multipleOf": 1000.7}]}),
        ("regex", "("),
        ("regex", "(?=a)b"),
        ("regex", r"(a)\1"),
        ("regex", "\ud800"),
        ("regex", ""),
        ("regex", 5),
        ("choice", []),
        ("choice", [""]),
        ("choice", ["a", 1]),
        ("choice", "ab"),
        ("choice", ["\ud800"]),
        ("grammar", "start: missing"),
        ("grammar", 'root ::= "a'),
        ("grammar", "hello"),
        ("grammar", ""),
        ("xml", "<a/>"),
    ],
)
def test_the_error_for_an_invalid_constraint_has_its_kind(kind, value):
    with pytest.raises(ConfigError, match=kind):
        AnswerForm.of(kind, value)


def chain(separator, first, size):
    """Return rules that refer to one another in a chain, with as many rules as fit into `size` characters."""
    text, last = "", first
    for name in map("".join, product("bcdefghij", "bcdefghij", "bcdefghijklmnopqrstuvwxyz")):
        if len(text) + 20 > size:
            break
        text, last = f"{text}{last}{separator}{name}\n", name
    return f'{text}{last}{separator}"z"\n'


HOSTILE = {
    "deep parentheses": ("regex", "(" * 4000 + "a" + ")" * 4000),
    "nested repetition": ("regex", "((((a{1,1000}){1,1000}){1,1000}){1,1000}){1,1000}"),
    "doubling states": ("regex", "(a|b)*a(a|b){400}c"),
    "many options": ("regex", "a?" * 4000),
    "long": ("regex", "a" * 100_000),
    "deep grammar": ("grammar", "start: " + "(" * 4000 + '"a"' + ")" * 4000),
    "deep GBNF": ("grammar", "root ::= " + "(" * 4000 + '"a"' + ")" * 4000),
    "endless": ("grammar", "start: start"),
    "chain of rules": ("grammar", chain(":", "start", 8_000)),
    "chain of terminals": ("grammar", "start: AAA\n" + chain(":", "aaa", 7_900).upper()),
    "chain of GBNF rules": ("grammar", chain("::=", "root", 8_000)),
    "ambiguous": ("grammar", 'start: a+\na: b+\nb: c+\nc: d+\nd: "x"+'),
    "deep schema": ("json", '{"type":"array","items":' * 1000 + "{}" + "}" * 1000),
    "chain of references": (
        "json",
        {"$ref": "#/$defs/0", "$defs": {str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(800)} | {"800": {}}},
    ),
    "loop of references": ("json", {"$ref": "#"}),
    "wide": ("json", {"allOf": [{"anyOf": [{"properties": {f"a{i}": {}}} for i in range(40)]}] * 4}),
    "large numbers": ("json", {"type": "array", "minItems": 10**9}),
    "hostile pattern": ("json", {"type": "string", "pattern": "(a|b)*a(a|b){400}c"}),
    "many choices": ("choice", [f"choice {i}" for i in range(10_000)]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_malicious_constraints_are_accepted_or_refused_within_seconds(name, vocabulary):
    """Use a thread, because the emulator serves from threads with a small stack. An overflow would end this process."""
    kind, value = HOSTILE[name]
    outcome = []

    def attempt():
        try:
            matcher = AnswerForm.of(kind, value).begin(vocabulary)
            for _ in range(20):
                allowed = matcher.allowed()
                matcher.take(int(allowed.nonzero()[-1]))
        except ConfigError as error:
            outcome.append(str(error))
        else:
            outcome.append("followed")

    started = time.process_time()
    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert len(outcome) == 1
    assert time.process_time() - started < 5


def test_the_error_without_llguidance_has_the_name_of_the_extra(monkeypatch):
    monkeypatch.setattr("sqlquarry.extras.find_spec", lambda name: None if name == "llguidance" else True)
    with pytest.raises(MissingExtraError, match=re.escape("sqlquarry[emulator]")):
        AnswerForm.of("regex", "a")


def test_a_model_without_an_end_token_cannot_be_constrained():
    with pytest.raises(ConfigError, match="eos_token"):
        AnswerForm.of("regex", "a").begin(Vocabulary(TOKENIZER, []))


def test_sentencepiece_tokens_are_read_as_bytes_and_other_tokenizers_are_refused():
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    known = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581yes", "yes", "y", "no"]
    ids = {token: index for index, token in enumerate(known)}
    backend = Tokenizer(models.BPE(ids, [], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    vocabulary = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>"), [1])
    allowed = AnswerForm.of("choice", ["yes", "é"]).begin(vocabulary).allowed().nonzero().flatten().tolist()
    assert {known[token] for token in allowed} == {"yes", "y", "<0x79>", "<0xC3>"}
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "yes": 1, "</s>": 2}, unk_token="[UNK]"))
    with pytest.raises(ConfigError) as caught:
        AnswerForm.of("choice", ["yes"]).begin(
            Vocabulary(PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>"), [2])
        )
    assert isinstance(caught.value.__cause__, ValueError)
