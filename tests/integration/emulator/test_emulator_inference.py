"""Imported models answer with their own weights in all three formats."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from emulator_account import emulators, to_4_51

PROMPTS = ["SELECT", "How many users are there?", "CREATE TABLE users (id)\nList the name of all users."]


def greedy(directory, prompt, max_tokens, *, add_special_tokens=True):
    """Return the text of transformers' `generate`, and the numbers of prompt tokens and generated tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=add_special_tokens)
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return tokenizer.decode(tokens, skip_special_tokens=True), inputs["input_ids"].shape[1], len(tokens)


def resaved(source, target, rope):
    """Save a model of the same size with another rope, and with weights that are large enough for rope to matter."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

    config = AutoConfig.from_pretrained(source)
    config.rope_parameters, config.initializer_range = rope, 0.5
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def exported(tiny_llama, tmp_path_factory):
    return to_4_51(tiny_llama, tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture(scope="module")
def served(exported):
    """Yield an account for all tests, and a model that no test changes."""
    with emulators() as start:
        account = start()
        account.upload(exported)
        yield account, account.imported("shared")


@pytest.fixture
def account(served):
    """Yield the account, and afterwards delete the models of the test, because an account can have only three."""
    account, shared = served
    yield account
    for model in account.bedrock.list_imported_models()["modelSummaries"]:
        if model["modelArn"] != shared:
            account.bedrock.delete_imported_model(modelIdentifier=model["modelArn"])


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_answers_are_those_of_transformers(served, exported, prompt):
    account, model = served
    text, prompt_tokens, written = greedy(exported, prompt, 12)
    answer = account.ask(model, prompt=prompt, max_gen_len=12)
    assert (answer["generation"], answer["prompt_token_count"], answer["generation_token_count"]) == (
        text,
        prompt_tokens,
        written,
    )
    assert answer["stop_reason"] == "length"


def test_the_three_formats_have_the_same_content(served, exported):
    from transformers import AutoTokenizer

    account, model = served
    messages = [{"role": "user", "content": PROMPTS[1]}]
    prompt = AutoTokenizer.from_pretrained(exported).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    bedrock = account.ask(model, prompt=prompt, max_gen_len=9)
    completion = account.ask(model, prompt=prompt, max_tokens=9)
    chat = account.ask(model, messages=messages, max_tokens=9)
    assert completion["object"] == "text_completion"
    assert chat["object"] == "chat.completion"
    assert completion["choices"][0]["text"] == bedrock["generation"]
    assert chat["choices"][0]["message"] == {"role": "assistant", "content": bedrock["generation"]}
    assert completion["usage"] == chat["usage"]
    assert chat["usage"]["completion_tokens"] == 9
    assert chat["usage"]["prompt_tokens"] == bedrock["prompt_token_count"]
    assert {bedrock["stop_reason"], *(a["choices"][0]["finish_reason"] for a in (completion, chat))} == {"length"}


def test_logprobs_are_those_of_the_weights(served, exported):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    account, model = served
    tokenizer = AutoTokenizer.from_pretrained(exported)
    weights = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32).eval()
    tokens, expected = tokenizer(PROMPTS[1], return_tensors="pt")["input_ids"], []
    with torch.inference_mode():
        for _ in range(6):
            best = weights(tokens).logits[0, -1].log_softmax(-1).max(-1)
            expected.append(best.values.item())
            tokens = torch.cat([tokens, best.indices.view(1, 1)], dim=1)
    bedrock = account.ask(model, prompt=PROMPTS[1], max_gen_len=6, return_logprobs=True)
    assert [entry["?"] for entry in bedrock["logprobs"]] == pytest.approx(expected, abs=1e-4)
    completion = account.ask(model, prompt=PROMPTS[1], max_tokens=6, logprobs=1)["choices"][0]
    assert completion["logprobs"]["token_logprobs"] == pytest.approx(expected, abs=1e-4)
    sampled = account.ask(model, prompt=PROMPTS[1], max_tokens=6, logprobs=True, temperature=2.0, seed=1)["choices"][0]
    assert sum(sampled["logprobs"]["token_logprobs"]) < sum(
        expected
    )  # logprobs are those of the model at any temperature
    assert account.ask(model, prompt=PROMPTS[1], max_gen_len=6)["logprobs"] is None


def test_a_stream_has_the_same_content_as_the_complete_answer(served):
    account, model = served
    body = {"prompt": PROMPTS[2], "max_gen_len": 16}
    whole, chunks = account.ask(model, **body), account.stream(model, **body)
    assert len(chunks) > 2
    assert "".join(chunk["generation"] for chunk in chunks) == whole["generation"]
    assert chunks[-1] | {"generation": whole["generation"]} == whole
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 16}
    whole, chunks = account.ask(model, **body), account.stream(model, **body)
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"] == whole["usage"]


def test_stop_sequences_end_the_answer(served):
    account, model = served
    text = account.ask(model, prompt=PROMPTS[2], max_tokens=16)["choices"][0]["text"]
    stop = text[4:6]
    answer = account.ask(model, prompt=PROMPTS[2], max_tokens=16, stop=[stop])["choices"][0]
    assert answer["text"] == text[: text.index(stop)]
    assert answer["finish_reason"] == "stop"


def test_sampling_is_seeded_and_differs_from_greedy(served):
    account, model = served

    def sample(seed):
        return account.ask(model, prompt=PROMPTS[1], max_tokens=16, temperature=1.5, seed=seed)["choices"][0]["text"]

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_unknown_and_deleted_models_are_not_found(account):
    model = account.imported("deleted")
    body = json.dumps({"prompt": "SELECT", "max_tokens": 2})
    unknown = account.error(account.runtime.invoke_model, modelId=model[:-12] + "0" * 12, body=body)
    assert unknown[::2] == ("ResourceNotFoundException", 404)
    account.ask(model, prompt="SELECT", max_tokens=1)
    account.bedrock.delete_imported_model(modelIdentifier=model)
    assert account.error(account.runtime.invoke_model, modelId=model, body=body)[0] == "ResourceNotFoundException"


def test_invalid_requests_are_validation_errors(served):
    account, model = served
    for body in (
        {},
        {"prompt": "p", "made_up": 1},
        {"prompt": "p", "max_tokens": 10_000},
        {"prompt": "", "max_tokens": 2},
    ):
        error = account.error(account.runtime.invoke_model, modelId=model, body=json.dumps(body))
        assert (error[0], error[2]) == ("ValidationException", 400)
    body = json.dumps({"prompt": "p", "max_tokens": 1})
    guarded = {"guardrailIdentifier": "abcdefgh", "guardrailVersion": "1"}
    for call in (account.runtime.invoke_model, account.runtime.invoke_model_with_response_stream):
        code, message, _ = account.error(call, modelId=model, body=body, **guarded)
        assert code == "ValidationException"
        assert "guardrailIdentifier" in message
        for refused in ({"trace": "ENABLED"}, {"performanceConfigLatency": "optimized"}, {"serviceTier": "flex"}):
            assert account.error(call, modelId=model, body=body, **refused)[0] == "ValidationException"
        assert call(modelId=model, body=body, trace="DISABLED")


def test_messages_need_a_template_in_tokenizer_config(account, exported, tmp_path):
    """A separate chat_template.jinja does not count ("Invoke your imported model")."""
    directory = shutil.copytree(exported, tmp_path / "model")
    config = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "chat_template.jinja").write_text(config.pop("chat_template"))
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    account.upload(directory, prefix="no-template")
    model = account.imported("no-template", prefix="no-template")
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2})
    code, message, _ = account.error(account.runtime.invoke_model, modelId=model, body=body)
    assert code == "ValidationException"
    assert "chat_template" in message


def test_prompts_get_bos_if_the_tokenizer_adds_it_but_messages_do_not(served, account, exported, tmp_path):
    directory = shutil.copytree(exported, tmp_path / "model")
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    bos = "<|endoftext|>"
    single = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {bos: {"id": bos, "ids": [0], "tokens": [bos]}},
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    account.upload(directory, prefix="bos")
    plain, with_bos = served[1], account.imported("bos", prefix="bos")

    def tokens(model, **body):
        return account.ask(model, max_tokens=1, **body)["usage"]["prompt_tokens"]

    assert tokens(with_bos, prompt="SELECT 1") == tokens(plain, prompt="SELECT 1") + 1
    messages = [{"role": "user", "content": "SELECT 1"}]
    assert tokens(with_bos, messages=messages) == tokens(plain, messages=messages)


def test_later_changes_in_s3_do_not_affect_an_imported_model(account, exported):
    account.upload(exported, prefix="changing")
    model = account.imported("changing", prefix="changing")
    for path in exported.iterdir():
        account.s3.put_object(Bucket=account.aws.bucket, Key=f"changing/{path.name}", Body=b"changed")
        account.s3.delete_object(Bucket=account.aws.bucket, Key=f"changing/{path.name}")
    assert account.ask(model, prompt=PROMPTS[0], max_gen_len=8)["generation"] == greedy(exported, PROMPTS[0], 8)[0]


def test_rope_parameters_alone_are_ignored(account, tiny_llama, tmp_path):
    """The rope settings of transformers 5 are silently ignored. Theta becomes 10000, so the answers are wrong."""
    saved = resaved(tiny_llama, tmp_path / "saved", {"rope_type": "default", "rope_theta": 500.0})
    account.upload(to_4_51(saved, tmp_path / "right"), prefix="right")
    account.upload(to_4_51(saved, tmp_path / "wrong", keep_rope=True), prefix="wrong")
    right, wrong = account.imported("right", prefix="right"), account.imported("wrong", prefix="wrong")
    expected = greedy(saved, PROMPTS[2], 12)[0]
    assert account.ask(right, prompt=PROMPTS[2], max_gen_len=12)["generation"] == expected
    assert account.ask(wrong, prompt=PROMPTS[2], max_gen_len=12)["generation"] != expected


def test_weights_that_do_not_match_their_config_are_a_model_error(account, exported, tmp_path):
    directory = shutil.copytree(exported, tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 8}))
    account.upload(directory, prefix="unfit")
    model = account.imported("unfit", prefix="unfit")
    body = json.dumps({"prompt": "SELECT", "max_tokens": 2})
    code, _, status = account.error(account.runtime.invoke_model, modelId=model, body=body)
    assert (code, status) == ("ModelErrorException", 424)


def test_concurrent_answers_are_the_same_as_single_answers(served):
    account, model = served
    prompts = [f"List the {column} of all users." for column in ("id", "name", "price", "age", "city")]
    alone = [account.ask(model, prompt=prompt, max_gen_len=10) for prompt in prompts]
    with ThreadPoolExecutor(5) as clients:
        together = list(clients.map(lambda prompt: account.ask(model, prompt=prompt, max_gen_len=10), prompts))
    assert together == alone
