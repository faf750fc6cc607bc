"""Converse and ConverseStream of imported models with boto3 and with `ImportedModel`."""

from __future__ import annotations

import json
import logging
import shutil
from urllib.parse import quote

import pytest
from botocore.exceptions import EventStreamError

from emulator_account import emulators, send, signed, to_4_51
from sqlquarry.emulator.bedrock.converse import BLANK, UNSUPPORTED
from sqlquarry.emulator.faults import AnswerReset, CutAnswer, NoText, NotReady, Refused, StreamBroken
from sqlquarry.errors import BedrockError, GenerationError
from sqlquarry.models import ImportedModel, RetryPolicy

QUESTION = "List the name of all users."
MESSAGES = [{"role": "user", "content": [{"text": QUESTION}]}]
LIMIT = {"maxTokens": 12, "temperature": 0}


@pytest.fixture(scope="module")
def served(lively_llama, tmp_path_factory):
    directory = to_4_51(lively_llama, tmp_path_factory.mktemp("exported") / "model")
    with emulators() as start:
        account = start()
        account.upload(directory)
        llama = account.imported("llama")
        config = json.loads((directory / "tokenizer_config.json").read_text())
        without = shutil.copytree(directory, directory.with_name("without"))
        config.pop("chat_template")
        (without / "tokenizer_config.json").write_text(json.dumps(config))
        account.upload(without, prefix="without")
        yield account, llama, account.imported("without", prefix="without")


@pytest.fixture
def account(served):
    yield served[0]
    served[0].aws.faults.clear()


@pytest.fixture
def llama(served):
    return served[1]


def invoked(account, model, messages, **body):
    answer = account.ask(model, messages=messages, max_tokens=12, **body)
    return answer["choices"][0], answer["usage"]


def test_the_answer_is_that_of_invoke_model_with_messages(account, llama):
    turns = [
        *MESSAGES,
        {"role": "assistant", "content": [{"text": "SELECT 1"}]},
        {"role": "user", "content": [{"text": "And"}, {"text": "more?"}]},
    ]
    answer = account.runtime.converse(
        modelId=llama, messages=turns, system=[{"text": "Be"}, {"text": "brief."}], inferenceConfig=LIMIT
    )
    choice, usage = invoked(
        account,
        llama,
        [
            {"role": "system", "content": "Be\nbrief."},
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": "SELECT 1"},
            {"role": "user", "content": "And\nmore?"},
        ],
    )
    assert answer["output"]["message"] == {"role": "assistant", "content": [{"text": choice["message"]["content"]}]}
    assert answer["usage"] == {
        "inputTokens": usage["prompt_tokens"],
        "outputTokens": usage["completion_tokens"],
        "totalTokens": usage["total_tokens"],
    }
    assert answer["metrics"]["latencyMs"] >= 0


def test_stop_reasons(account, llama):
    def reason(**config):
        answer = account.runtime.converse(
            modelId=llama,
            messages=MESSAGES,
            inferenceConfig=LIMIT | config,
            additionalModelRequestFields=fields,
        )
        return answer["stopReason"], answer["output"]["message"]["content"][0]["text"]

    fields = {}
    cut, answered = reason()
    assert cut == "max_tokens"
    stopped, text = reason(stopSequences=["no such text", answered[3:5]])
    assert (stopped, text) == ("stop_sequence", answered[: answered.index(answered[3:5])])
    fields = {"logit_bias": {"2": 100}}
    assert reason() == ("end_turn", "")
    fields = {"stop_token_ids": [2], "ignore_eos": True, "logit_bias": {"2": 100}}
    assert reason()[0] == "end_turn"


def test_settings_and_additional_fields_are_honored(account, llama):
    def text(fields=(), **config):
        answer = account.runtime.converse(
            modelId=llama,
            messages=MESSAGES,
            inferenceConfig={"maxTokens": 12} | config,
            additionalModelRequestFields=dict(fields),
        )
        return answer["output"]["message"]["content"][0]["text"]

    greedy = text(temperature=0)
    assert text(temperature=1, topP=1e-6) == text({"top_k": 1}, temperature=1) == greedy
    assert len({text({"seed": seed}, temperature=1) for seed in range(4)}) > 1
    assert text({"structured_outputs": {"choice": ["yes", "no"]}}, temperature=0) in ("yes", "no")
    assert text({"repetition_penalty": 5}, temperature=0) != greedy


def test_the_events_of_a_stream_are_in_order(account, llama):
    whole = account.runtime.converse(modelId=llama, messages=MESSAGES, inferenceConfig=LIMIT)
    events = list(account.runtime.converse_stream(modelId=llama, messages=MESSAGES, inferenceConfig=LIMIT)["stream"])
    names = [next(iter(event)) for event in events]
    deltas = names.count("contentBlockDelta")
    assert deltas > 1
    assert names == [
        "messageStart",
        *["contentBlockDelta"] * deltas,
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]
    assert events[0]["messageStart"] == {"role": "assistant"}
    blocks = [event["contentBlockDelta"] for event in events if "contentBlockDelta" in event]
    assert "".join(block["delta"]["text"] for block in blocks) == whole["output"]["message"]["content"][0]["text"]
    assert {block["contentBlockIndex"] for block in blocks} == {0}
    assert events[-2]["messageStop"]["stopReason"] == whole["stopReason"]
    assert events[-1]["metadata"]["usage"] == whole["usage"]


TOOL = {"toolSpec": {"name": "t", "inputSchema": {"json": {}}}}
# Value in the message -> parameters.
REFUSED = {
    "toolConfig": {"toolConfig": {"tools": [TOOL]}},
    "guardrailConfig": {"guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1"}},
    "additionalModelResponseFieldPaths": {"additionalModelResponseFieldPaths": ["/a"]},
    "performanceConfig": {"performanceConfig": {"latency": "optimized"}},
    "promptVariables": {"promptVariables": {"a": {"text": "b"}}},
    "outputConfig": {
        "outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": "{}"}}}}
    },
    "image": {"messages": [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": b"a"}}}]}]},
    "cachePoint": {"system": [{"text": "a"}, {"cachePoint": {"type": "default"}}]},
    "['user', 'user']": {"messages": MESSAGES * 2},
    "['assistant']": {"messages": [{"role": "assistant", "content": [{"text": "a"}]}]},
    "messages": {"messages": []},
    "temperature": {"inferenceConfig": {"temperature": 1.5}},
    "top_p": {"inferenceConfig": {"topP": 0}},
    "made_up": {"additionalModelRequestFields": {"made_up": 1}},
    "tools": {"additionalModelRequestFields": {"tools": [1]}},
    "max_tokens": {"additionalModelRequestFields": {"max_tokens": 5}, "inferenceConfig": LIMIT},
    "max_completion_tokens": {"additionalModelRequestFields": {"max_completion_tokens": 5}, "inferenceConfig": LIMIT},
    "logprobs": {"additionalModelRequestFields": {"logprobs": True}},
    "projectIdentifier": {"projectIdentifier": "abcdefghij"},
    BLANK: {"messages": [{"role": "user", "content": [{"text": " \n"}]}]},
    r"\udc80": {"messages": [{"role": "user", "content": [{"text": "caf\udc80"}]}]},
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_and_invalid_parameters_are_refused_by_name(account, llama, name):
    parameters = {"modelId": llama, "messages": MESSAGES} | REFUSED[name]
    for call in (account.runtime.converse, account.runtime.converse_stream):
        code, message, status = account.error(call, **parameters)
        assert (code, status) == ("ValidationException", 400)
        assert name in message


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"made_up": 1}, "made_up"),
        ({"inferenceConfig": {"topK": 3}}, "topK"),
        ({"inferenceConfig": {"maxTokens": 2.5}}, "maxTokens"),
        ({"inferenceConfig": {"temperature": "0"}}, "temperature"),
        ({"messages": [MESSAGES[0] | {"made_up": 1}]}, "made_up"),
    ],
)
def test_requests_that_boto3_would_not_send_are_refused(account, llama, change, name):
    target = f"/model/{quote(llama, safe='')}/converse"

    def post(body):
        headers = signed(account.aws, "POST", target, service="bedrock", body=body)
        status, _, answer = send(account.aws, "POST", target, body=body, headers=headers)
        return status, answer.decode()

    plain = {"messages": MESSAGES, "inferenceConfig": LIMIT, "toolConfig": None}
    assert post(json.dumps(plain).encode())[0] == 200
    status, answer = post(json.dumps(plain | change).encode())
    assert status == 400
    assert name in answer
    status, answer = post(b'{"messages"')
    assert (status, "the body" in answer) == (400, True)


def test_a_request_is_retried_if_its_answer_breaks_off(account, llama):
    policy = RetryPolicy(sleep=lambda _: None)
    model = ImportedModel(llama, session=account.aws.session(), max_tokens=4, request_schema="converse", retry=policy)
    (whole,) = model.generate([QUESTION])
    for size in (0, 20, 150):
        account.aws.faults.add(AnswerReset(operation="Converse", after_bytes=size))
        assert model.generate([QUESTION])[0].text == whole.text
        assert not account.aws.faults.pending()


def test_a_broken_stream_has_the_error_code_of_the_api(account, llama):
    account.aws.faults.add(StreamBroken(code="ThrottlingException"))
    model = ImportedModel(llama, session=account.aws.session(), max_tokens=4, request_schema="converse")
    with pytest.raises(BedrockError, match="throttlingException"):
        list(model.stream(QUESTION))


def test_converse_refuses_a_model_without_a_template_like_the_service(account, served):
    _, llama, without = served
    supported = {
        model["modelName"]: model["instructSupported"]
        for model in account.bedrock.list_imported_models()["modelSummaries"]
    }
    assert supported == {"llama": True, "without": False}
    assert account.bedrock.get_imported_model(modelIdentifier=llama)["instructSupported"] is True
    for call in (account.runtime.converse, account.runtime.converse_stream):
        code, message, _ = account.error(call, modelId=without, messages=MESSAGES)
        assert (code, message) == ("ValidationException", UNSUPPORTED)


def test_moto_does_not_answer_for_other_models(account):
    for call in (account.runtime.converse, account.runtime.converse_stream):
        assert account.error(call, modelId="anthropic.claude-v2", messages=MESSAGES)[0] == "ValidationException"


def test_faults_affect_converse_too(account, llama):
    ask = {"modelId": llama, "messages": MESSAGES, "inferenceConfig": LIMIT}
    account.aws.faults.add(NotReady(times=1), CutAnswer(tokens=2), NoText(times=1))
    assert account.error(account.runtime.converse, **ask)[0] == "ModelNotReadyException"
    answer = account.runtime.converse(**ask)
    assert (answer["usage"]["outputTokens"], answer["stopReason"]) == (2, "max_tokens")
    assert answer["output"]["message"]["content"] == []
    account.aws.faults.add(StreamBroken(after_chunks=2))
    events = iter(account.runtime.converse_stream(**ask)["stream"])
    assert [next(iter(next(events))) for _ in range(2)] == ["messageStart", "contentBlockDelta"]
    with pytest.raises(EventStreamError) as caught:
        next(events)
    assert caught.value.response["Error"]["Code"] == "modelStreamErrorException"


def texts(answers):
    return [(one.text, one.stop_reason, one.prompt_tokens, one.completion_tokens) for one in answers]


@pytest.mark.filterwarnings("ignore:.*answers were cut")
@pytest.mark.parametrize("place", [1, 2])
def test_converse_and_messages_give_the_same_answers(account, served, place, caplog):
    """The second model does not support Converse. Its client logs that once and tries messages, which fail too."""
    arn = served[place]
    model = ImportedModel(arn, session=account.aws.session(), max_tokens=12, request_schema="converse")
    if place == 2:
        with caplog.at_level(logging.WARNING), pytest.raises(BedrockError, match="chat_template"):
            model.generate([QUESTION])
        assert "InvokeModel" in caplog.text
        return
    messages = model.with_options(request_schema="messages")
    questions = [QUESTION, "How many?"]
    assert texts(model.generate(questions)) == texts(messages.generate(questions))
    assert "".join(model.stream(QUESTION)) == model.generate([QUESTION])[0].text
    assert caplog.text == ""
    assert model.usage.requests == 6
    account.aws.faults.add(NoText(times=1))
    with pytest.raises(GenerationError):
        model.generate([QUESTION])


@pytest.mark.filterwarnings("ignore:.*answers were cut")
def test_a_refusal_of_the_service_leads_to_messages(account, llama, caplog):
    account.aws.faults.add(Refused(operation="Converse*", code="ValidationException", message=UNSUPPORTED, times=1))
    model = ImportedModel(llama, session=account.aws.session(), max_tokens=12, request_schema="converse", concurrency=1)
    with caplog.at_level(logging.WARNING):
        answers = model.generate([QUESTION, "How many?"])
    assert texts(answers) == texts(model.with_options(request_schema="messages").generate([QUESTION, "How many?"]))
    assert len(caplog.records) == 1
    assert account.aws.faults.pending() == []
