"""Each key of a body changes the answer as vLLM defines it."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from sqlquarry.emulator.bedrock import allowed_keys
from sqlquarry.emulator.bedrock.allowed_keys import LIMITS
from sqlquarry.emulator.bedrock.answer_formats import BedrockCompletion, OpenAIChatCompletion, OpenAICompletion
from sqlquarry.emulator.bedrock.engine import InferenceEngine
from sqlquarry.emulator.bedrock.invocation import parse_invocation
from sqlquarry.emulator.requests.errors import ApiError
from sqlquarry.models.local.model import LocalModel

PROMPT = "How many users are there?"
BODIES = {
    BedrockCompletion: {"prompt": PROMPT, "max_gen_len": 8},
    OpenAICompletion: {"prompt": PROMPT, "max_tokens": 8},
    OpenAIChatCompletion: {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 8},
}
A, B, EOS, IM_START = "A", "B", 2, 1


@pytest.fixture(scope="module")
def model(tiny_llama):
    model = LocalModel(tiny_llama, device="cpu", batch_size=4)
    tokenizer = model.tokenizer
    tokenizer.chat_template = "{{ opening }}" + tokenizer.chat_template
    bos = [("<|endoftext|>", 0)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<|endoftext|> $A", special_tokens=bos)
    return model


class Asking:
    """Invokes one model in one format, with greedy decoding unless a test sets another temperature."""

    def __init__(self, model, engine, shape):
        self.model, self.engine, self.shape = model, engine, shape
        self.a, self.b = (model.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (A, B))

    def __call__(self, **body):
        content = {**BODIES[self.shape], "temperature": 0, **body}
        shape, request = parse_invocation(json.dumps({key: value for key, value in content.items() if value != ...}))
        generation = self.engine.submit(request).result(60)
        return shape.answer(generation, "arn"), generation

    def text(self, **body):
        answer, _ = self(**body)
        if "generation" in answer:
            return answer["generation"]
        (choice,) = answer["choices"]
        return choice.get("text", choice.get("message", {}).get("content"))

    def bias(self, **ids):
        return {str({"a": self.a, "b": self.b, "eos": EOS, "im": IM_START}[name]): value for name, value in ids.items()}


@pytest.fixture(scope="module")
def engine(model):
    engine = InferenceEngine(lambda: model, 4)
    yield engine
    engine.close()
    engine.join()


@pytest.fixture(params=BODIES)
def ask(request, model, engine):
    return Asking(model, engine, request.param)


def differs(ask, **options):
    return len({ask.text(**{"temperature": 1.5, "seed": seed} | options) for seed in range(4)}) > 1


def temperature(ask):
    return differs(ask) and differs(ask, temperature=...) and not differs(ask, temperature=0)


def top_p(ask):
    return ask.text(temperature=1.5, top_p=1e-6) == ask.text() and differs(ask, top_p=0.99)


def top_k(ask):
    return ask.text(temperature=1.5, top_k=1) == ask.text() and differs(ask, top_k=50) and differs(ask, top_k=-1)


def min_p(ask):
    return ask.text(temperature=1.5, min_p=1) == ask.text() and differs(ask, min_p=0.001)


def prompt_ids(ask):
    _, request = parse_invocation(json.dumps(BODIES[ask.shape]))
    if isinstance(request.prompt, str):
        return ask.model.tokenizer(request.prompt)["input_ids"]
    return ask.model.tokenizer.apply_chat_template(request.prompt, add_generation_prompt=True, return_dict=False)


def repetition_penalty(ask):
    """Check that the penalty applies to prompt and answer, as in transformers' `generate`."""
    ids = prompt_ids(ask)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 3}
    output = ask.model.model.generate(torch.tensor([ids]), repetition_penalty=5.0, **options)
    expected = ask.model.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)
    return ask.text(repetition_penalty=5.0) == expected != ask.text()


def presence_penalty(ask):
    """Check that the penalty applies once to each token of the answer, however often the token occurs."""
    ids, written = prompt_ids(ask), []
    for _ in range(8):
        with torch.no_grad():
            logits = ask.model.model(torch.tensor([ids + written])).logits[0, -1].float().clone()
        logits[list(set(written))] -= 2
        written.append(int(logits.argmax()))
    return ask.text(presence_penalty=2) == ask.model.tokenizer.decode(written) != ask.text()


def frequency_penalty(ask):
    text = ask.text(logit_bias=ask.bias(a=90, b=90), frequency_penalty=2)
    return text.count("A") >= 3 and text.count("B") >= 3


def logit_bias(ask):
    return ask.text(logit_bias=ask.bias(b=100)) == "B" * 8


def seed(ask):
    return differs(ask) and ask.text(temperature=1.5, seed=3) == ask.text(temperature=1.5, seed=3)


def stop(ask):
    text, generation = ask.text(), ask(stop=ask.text()[2:4])[1]
    return generation.text == text[: text.index(text[2:4])] and generation.stop_reason == "stop"


def stop_token_ids(ask):
    generation = ask(logit_bias=ask.bias(a=100), stop_token_ids=[ask.a])[1]
    return (generation.text, generation.stop_reason, generation.completion_tokens) == ("", "stop", 1)


def ignore_eos(ask):
    ended, going = (ask(logit_bias=ask.bias(eos=100), ignore_eos=flag)[1] for flag in (False, True))
    return (ended.completion_tokens, going.completion_tokens, going.stop_reason) == (1, 8, "length")


def min_tokens(ask):
    generation = ask(logit_bias=ask.bias(eos=100), min_tokens=3)[1]
    cut = ask(logit_bias=ask.bias(a=100), min_tokens=3, stop=["A"])[1]
    return generation.completion_tokens == 4 and (cut.text, cut.completion_tokens) == ("AAA", 4)


def skip_special_tokens(ask):
    biased = {"logit_bias": ask.bias(im=100)}
    return ask.text(**biased) == "" and ask.text(**biased, skip_special_tokens=False) == "<|im_start|>" * 8


def response_format(ask):
    return ask.text(response_format={"type": "json_object"}).lstrip().startswith("{")


def structured_outputs(ask):
    return ask.text(structured_outputs={"choice": ["SELECT", "DELETE"]}) in ("SELECT", "DELETE")


def limit(name):
    def cut(ask):
        generation = ask(**{"max_gen_len": ..., "max_tokens": ..., name: 3})[1]
        return (generation.completion_tokens, generation.stop_reason) == (3, "length")

    return cut


def logprobs(ask):
    (choice,) = ask(logprobs=1)[0]["choices"]
    values = choice["logprobs"]
    return len(values.get("token_logprobs") or values["content"]) == 8 and "logprobs" not in ask()[0]["choices"][0]


def top_logprobs(ask):
    return logprobs(ask) and ask(logprobs=True, top_logprobs=1)[1].logprobs is not None


def return_logprobs(ask):
    return len(ask(return_logprobs=True)[0]["logprobs"]) == 8 and ask()[0]["logprobs"] is None


def echo(ask):
    return ask.text(echo=True) == PROMPT + ask.text()


def add_special_tokens(ask):
    on, off = (ask(add_special_tokens=flag)[1].prompt_tokens for flag in (True, False))
    default = ask()[1].prompt_tokens
    return on == off + 1 and default == (on if ask.shape is OpenAICompletion else off)


def add_generation_prompt(ask):
    return ask(add_generation_prompt=False)[1].prompt_tokens < ask()[1].prompt_tokens


def chat_template_kwargs(ask):
    for unread in ("made_up", "tokenize", "chat_template", "messages"):
        with pytest.raises(ApiError, match=unread):
            ask(chat_template_kwargs={unread: 1})
    return ask(chat_template_kwargs={"opening": "one two three"})[1].prompt_tokens > ask()[1].prompt_tokens


CHECKS = {
    **{
        check.__name__: check
        for check in (
            *(temperature, top_p, top_k, min_p, repetition_penalty, presence_penalty, frequency_penalty, logit_bias),
            *(seed, stop, stop_token_ids, ignore_eos, min_tokens, skip_special_tokens, response_format),
            *(structured_outputs, logprobs, top_logprobs, return_logprobs, echo, add_special_tokens),
            *(add_generation_prompt, chat_template_kwargs),
        )
    },
    **{name: limit(name) for name in LIMITS},
}


def test_every_key_is_obeyed(ask):
    keys = allowed_keys.EVERY_FORMAT.keys() | allowed_keys.OWN_KEYS[ask.shape].keys()
    assert keys <= CHECKS.keys()
    assert [key for key in sorted(keys) if not CHECKS[key](ask)] == []


@pytest.mark.parametrize("body", [{"stop_token_ids": [1_000_000]}, {"logit_bias": {"1000000": 1}}])
def test_unknown_token_ids_are_refused(ask, body):
    with pytest.raises(ApiError, match="1000000"):
        ask(**body)
