"""Constrained answers of an untrained model have the requested form in every format, complete and streamed."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

from emulator_account import emulators, to_4_51
from sqlquarry.errors import BedrockError, ConfigError
from sqlquarry.models import ImportedModel
from sqlquarry.models.local.constraints import AnswerForm
from sqlquarry.models.local.decoding import DecodingOptions
from sqlquarry.models.local.model import LocalModel
from sqlquarry.models.local.sampling import Sampling

PROMPTS = ["SELECT", "How many users are there?", "x"]
SCHEMA = {
    "type": "object",
    "properties": {
        "table": {"enum": ["users", "orders"]},
        "limit": {"type": "integer", "minimum": 0, "maximum": 99},
        "name": {"type": "string", "pattern": "^[a-z]{1,8}$"},
        "columns": {"type": "array", "items": {"enum": ["id", 'na"me']}, "minItems": 1, "maxItems": 3},
    },
    "required": ["table", "limit", "name", "columns"],
    "additionalProperties": False,
}
REGEX = r"SELECT [a-z]{1,9}(, [a-z]{1,9}){0,2} FROM [a-z]{1,9}( LIMIT [0-9]{1,3})?"
GRAMMAR = """root ::= "SELECT " name " FROM " table
name ::= "id" | "count(" name ")"
table ::= "users" | "orders"
"""
CHOICE = ["positive", "negative", 'ne"utral\n']


def is_json(text):
    jsonschema.validate(json.loads(text), SCHEMA)
    return True


FORMS = {
    "json": (SCHEMA, is_json),
    "regex": (REGEX, lambda text: re.fullmatch(REGEX, text) is not None),
    "choice": (CHOICE, CHOICE.__contains__),
    "grammar": (GRAMMAR, lambda text: re.fullmatch(r"SELECT (count\()*id(\))* FROM (users|orders)", text) is not None),
}


@pytest.fixture(scope="module")
def local(lively_llama):
    return LocalModel(lively_llama, device="cpu", batch_size=4)


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("kind", FORMS)
def test_local_answers_have_the_form(local, kind, temperature):
    value, fits = FORMS[kind]
    form = AnswerForm.of(kind, value)
    options = DecodingOptions(constraint=form, sampling=Sampling(temperature=temperature), seed=1, max_tokens=400)
    answers = local.complete(PROMPTS, options)
    assert {answer.stop_reason for answer in answers} == {"stop"}
    assert all(fits(answer.text) for answer in answers)
    alone = [local.complete([prompt], options)[0].text for prompt in PROMPTS] if temperature == 0 else []
    assert alone in ([], [answer.text for answer in answers])
    (cut,) = local.complete(PROMPTS[:1], DecodingOptions(constraint=form, max_tokens=1))
    assert cut.stop_reason == "length"


SPECIAL = "<|im_start|>"


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("choice", [SPECIAL], SPECIAL),
        ("regex", r"<\|im_end\|>/", "<|im_end|>/"),
        ("json", {"const": SPECIAL}, f'"{SPECIAL}"'),
        ("grammar", f'start: "{SPECIAL}" "x"', f"{SPECIAL}x"),
        ("grammar", f'root ::= "{SPECIAL}" "x"', f"{SPECIAL}x"),
    ],
)
def test_the_text_of_a_special_token_is_written_as_text(local, kind, value, expected):
    answers = local.complete(PROMPTS, DecodingOptions(constraint=AnswerForm.of(kind, value), max_tokens=40))
    assert [(answer.text, answer.stop_reason) for answer in answers] == [(expected, "stop")] * len(PROMPTS)


def test_strong_penalties_do_not_break_the_form(local):
    for penalty in (1e-300, 1e300):
        sampling = Sampling(temperature=1, repetition_penalty=penalty, top_p=0.9)
        nines = DecodingOptions(constraint=AnswerForm.of("regex", "a{9}"), sampling=sampling, seed=1)
        (answer,) = local.complete(["aaaa"], nines)
        assert answer.text == "a" * 9
        assert local.complete(PROMPTS, DecodingOptions(sampling=sampling, seed=1, max_tokens=4))


@pytest.mark.parametrize(("kind", "value"), [("json", {"$ref": "#"}), ("grammar", "start: start")])
def test_forms_that_no_text_can_have_are_refused(local, kind, value):
    options = DecodingOptions(constraint=AnswerForm.of(kind, value))
    with pytest.raises(ConfigError, match=rf"^{kind}\b.*\bno text\b") as caught:
        local.complete(PROMPTS, options)
    assert "NoExtension" not in str(caught.value)  # llguidance's own word


@pytest.mark.parametrize("divisor", [999_983, 1_000_000, 12_345.25, 1e300, 1e-7 + 1e-12])
def test_a_form_that_is_too_expensive_is_refused(divisor):
    with pytest.raises(ConfigError):
        AnswerForm.of("json", {"items": {"anyOf": [{"type": "number", "multipleOf": divisor}]}})
    assert AnswerForm.of("json", {"type": "number", "multipleOf": 0.25})


def test_logprobs_are_the_models_own(local):
    options = DecodingOptions(max_tokens=20, logprobs=True, constraint=AnswerForm.of("choice", ["positive"]))
    (forced,) = local.complete(PROMPTS[:1], options)
    assert forced.logprobs is not None
    assert min(forced.logprobs) < -1  # normalized over the allowed tokens, they would all be 0


def test_options_that_contradict_a_constraint_are_refused(local):
    for options in ({"min_tokens": 3}, {"ignore_eos": True}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            local.complete(["a"], DecodingOptions(constraint=AnswerForm.of("regex", "a"), **options))


@pytest.fixture(scope="module")
def served(lively_llama, tmp_path_factory):
    directory = to_4_51(lively_llama, tmp_path_factory.mktemp("exported") / "model")
    with emulators() as start:
        account = start()
        account.upload(directory)
        yield account, account.imported("constrained")


OFFERED = [
    *((schema, kind) for schema in ("max_tokens", "messages") for kind in FORMS),
    ("max_gen_len", "json"),
]


@pytest.mark.parametrize(("schema", "kind"), OFFERED)
def test_the_clients_option_works_end_to_end(served, schema, kind):
    account, arn = served
    value, fits = FORMS[kind]
    model = ImportedModel(
        arn, session=account.aws.session(), request_schema=schema, max_tokens=400, structured={kind: value}
    )
    answers = model.generate(PROMPTS)
    assert {answer.stop_reason for answer in answers} == {"stop"}
    assert all(fits(answer.text) for answer in answers)
    assert "".join(model.stream(PROMPTS[0])) == answers[0].text


@pytest.mark.parametrize(
    "structured", [{"json": {"type": "no such type"}}, {"regex": "("}, {"grammar": "nothing"}, {"regex": "(?=a)b"}]
)
def test_an_invalid_form_is_a_validation_error(served, structured):
    account, arn = served
    model = ImportedModel(arn, session=account.aws.session(), structured=structured)
    (kind,) = structured
    with pytest.raises(BedrockError, match=rf"ValidationException.*structured_outputs: {kind}\b"):
        model.generate(["a"])


def test_each_concurrent_request_has_its_own_form(served):
    account, arn = served
    model = ImportedModel(
        arn, session=account.aws.session(), max_tokens=60, structured={"choice": CHOICE}, concurrency=4
    )
    assert {answer.text for answer in model.generate([f"p{i}" for i in range(8)])} <= set(CHOICE)
