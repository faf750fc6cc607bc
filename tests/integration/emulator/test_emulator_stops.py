"""A local model and the imported model stop at the same token, for bases with different end tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from sqlquarry.artifacts import MergedModel
from sqlquarry.aws.polling import Polling
from sqlquarry.bedrock import BedrockImporter
from sqlquarry.bedrock.preflight import preflight
from sqlquarry.emulator import LocalAWS
from sqlquarry.manifests import write_manifest
from sqlquarry.models import RetryPolicy
from sqlquarry.models.local.decoding import DecodingOptions
from sqlquarry.models.local.model import LocalModel
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record

from conftest import CHATML, save_tiny_llama, tiny_tokenizer

RECORDS = [Record(f"How many {what} are there?", f"CREATE TABLE {what} (id)") for what in ("users", "films", "cities")]
# The template of Mistral 7B Instruct v0.3, which does not support a system role.
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)


def save_base(directory: Path, eos: str, template: str) -> Path:
    """Save a lively tiny model that ends its own texts with `eos`."""
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token, tokenizer.chat_template = eos, template
    token = tokenizer.convert_tokens_to_ids(eos)
    save_tiny_llama(directory, initializer_range=0.3, tie_word_embeddings=False)
    for name in ("config.json", "generation_config.json"):
        path = directory / name
        stale = tiny_tokenizer().eos_token_id
        path.write_text(path.read_text().replace(f'"eos_token_id": {stale}', f'"eos_token_id": {token}'))
    tokenizer.save_pretrained(directory)
    return directory


def finish(directory: Path, formatter: PromptFormatter) -> MergedModel:
    formatter.save(directory)
    write_manifest(directory, MergedModel.kind, {"prompt_fingerprint": formatter.fingerprint})
    return MergedModel.load(directory)


def let_it_stop(directory: Path, prompt: str, stop: int, after: int) -> None:
    """Swap two rows of the head, so that the greedy answer to `prompt` ends with `stop` after some tokens."""
    model = LocalModel(directory, device="cpu")
    (answer,) = model.complete([prompt], DecodingOptions(max_tokens=40))
    ids = model.tokenizer(answer.text, add_special_tokens=False)["input_ids"]
    token = next(token for token in ids[after:] if token not in ids[:after])
    tensors = load_file(directory / "model.safetensors")
    head = tensors["lm_head.weight"]
    head[[stop, token]] = head[[token, stop]]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def answers_of(model: Any, inputs: Any) -> list[tuple[str, str]]:
    return [(answer.text, answer.stop_reason) for answer in model.generate(inputs)]


@pytest.fixture(scope="module")
def aws():
    with LocalAWS() as aws:
        yield aws


def imported(aws: LocalAWS, merged: MergedModel, name: str) -> Any:
    importer = BedrockImporter(aws.role_arn, session=aws.session(), polling=Polling(interval_s=0.05))
    model = importer.import_model(merged, name, s3_uri=f"s3://{aws.bucket}/{name}/")
    return model.with_options(max_tokens=24, retry=RetryPolicy(cold_start_interval_s=0.05))


def test_a_base_that_ends_its_texts_otherwise_stops_at_the_end_of_a_turn(aws: LocalAWS, tmp_path: Path) -> None:
    # As in Qwen2.5's base models, <|endoftext|> ends a text, and the template ends a turn with <|im_end|> and a line
    # feed.
    base = save_base(tmp_path / "base", "<|endoftext|>", CHATML)
    tokenizer = tiny_tokenizer()
    formatter = PromptFormatter(template="chat").bind(LocalModel(base, device="cpu").tokenizer)
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    let_it_stop(base, formatter.prompt(RECORDS[0]), stop, after=3)
    merged = finish(base, formatter)

    local = LocalModel(merged, device="cpu", max_tokens=24)
    served = imported(aws, merged, "qwen")
    expected = answers_of(local, RECORDS)
    assert expected[0][1] == "stop"
    assert answers_of(served, RECORDS) == expected
    assert answers_of(served.with_options(request_schema="messages"), RECORDS) == expected
    # Answers to texts that are not records also end there, and so do answers with a formatter that is not bound yet.
    (text,) = local.complete([formatter.prompt(RECORDS[0])], DecodingOptions(max_tokens=24))
    assert (text.text, text.stop_reason) == expected[0]
    unbound = LocalModel(base, formatter=PromptFormatter(template="chat"), device="cpu", max_tokens=24)
    assert answers_of(unbound, RECORDS) == expected
    # Without a prompt, the model's own files determine the end token.
    assert LocalModel(base, device="cpu", max_tokens=24).generate([formatter.prompt(RECORDS[0])])[0].text != text.text


def test_a_template_without_a_system_role_is_bound_checked_and_served(aws: LocalAWS, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "<|im_end|>", MISTRAL)
    wording = "Answer in {dialect}, for this schema: {schema}\nQuestion: {question}"
    formatter = PromptFormatter(system="", user=wording, template="chat").bind(LocalModel(base, device="cpu").tokenizer)
    prompt = formatter.prompt(RECORDS[1])
    assert prompt.endswith("[INST] Answer in SQLite, for this schema: CREATE TABLE films (id)\nQuestion: "
                           "How many films are there? [/INST]")  # fmt: skip
    merged = finish(base, formatter)
    assert [finding for finding in preflight(merged, "mistral").findings if finding.severity == "error"] == []

    local = LocalModel(merged, device="cpu", max_tokens=24)
    served = imported(aws, merged, "mistral")
    expected = answers_of(local, RECORDS)
    assert answers_of(served, RECORDS) == expected
    assert answers_of(served.with_options(request_schema="messages"), RECORDS) == expected
