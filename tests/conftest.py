"""Fixtures that several phases share: public data sets, a captured terminal and tiny Llama models."""

from __future__ import annotations

import io
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Timings depend on the load of the machine, so tests have no deadline.
settings.register_profile("sqlquarry", deadline=None)
settings.register_profile("long", deadline=None, max_examples=4000)  # by hand: --hypothesis-profile=long
settings.load_profile("sqlquarry")

# By default OpenMP's threads spin while they wait for each other. If other programs keep the cores busy, one step of a
# tiny model then takes twenty times as long. The variable must be set before torch is loaded, and child processes
# inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:  # there are two workers for two cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests use only their own hub on loopback

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the directory of public data sets next to the checkout. They are never copied into the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the public data sets are not in ../shared/data, next to this checkout")
    return SHARED_DATA


@pytest.fixture
def stderr_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., io.StringIO]:
    """Return a function that replaces standard error with a wide terminal or a file and returns it."""

    def replaced(*, terminal: bool) -> io.StringIO:
        written = io.StringIO()
        written.isatty = lambda: terminal  # type: ignore[method-assign] - a text that is a terminal
        monkeypatch.setattr(sys, "stderr", written)
        for name, value in {"TERM": "xterm", "COLUMNS": "400", "NO_COLOR": "1"}.items():
            monkeypatch.setenv(name, value)
        return written

    return replaced


def toy_examples(count: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """Yield questions of four kinds about schemas with one table, which a tiny model learns in seconds."""
    choose = random.Random(seed)
    tables = ["users", "orders", "items", "staff", "cities", "films"]
    columns = ["id", "name", "price", "age", "city", "year", "qty"]
    for _ in range(count):
        table, column, other, value = (
            choose.choice(tables),
            choose.choice(columns),
            choose.choice(columns),
            choose.randint(1, 99),
        )
        question, sql = choose.choice(
            [
                (f"How many {table} are there?", f"SELECT COUNT(*) FROM {table}"),
                (f"List the {column} of all {table}.", f"SELECT {column} FROM {table}"),
                (f"What is the largest {column} in {table}?", f"SELECT MAX({column}) FROM {table}"),
                (
                    f"Show {column} of {table} where {other} is above {value}.",
                    f"SELECT {column} FROM {table} WHERE {other} > {value}",
                ),
            ]
        )
        yield {"question": question, "sql": sql, "schema": f"CREATE TABLE {table} ({', '.join(columns)})"}


def tiny_tokenizer() -> Any:
    """Train a small byte-level BPE tokenizer with a ChatML template, which takes a moment."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        (f"{e['schema']}\n{e['question']}\n{e['sql']}" for e in toy_examples(400, seed=1)),
        trainers.BpeTrainer(
            vocab_size=1024,
            show_progress=False,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        model_max_length=2048,
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def save_tiny_llama(directory: Path, **config: Any) -> Path:
    """Save a random two-layer Llama in bf16 with its tokenizer. Every bitsandbytes kernel accepts its sizes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    options = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "num_hidden_layers": 2,
        "tie_word_embeddings": True,
    } | config
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=2048,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **options,
        )
    ).to(torch.bfloat16)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny random Llama in the format of transformers and return its directory."""
    return save_tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def lively_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny Llama with large random weights, which gives a different answer to every prompt."""
    return save_tiny_llama(tmp_path_factory.mktemp("lively-llama"), initializer_range=0.3)
