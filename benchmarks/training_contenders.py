"""Trains a random Llama for some steps with one library. benchmarks/training.py starts a process for each contender.

All contenders train LoRA of rank 16 on all linear layers of a 4-bit base with AdamW. Each step has the same number of
tokens, in packed rows without padding.

Records are random tokens. Their lengths follow b-mc2/sql-create-context: 62,939 rows of that shape (WikiSQL and Spider,
rebuilt), in the published prompt and with the tokenizer of Llama 3, have 63 to 455 tokens, 102.6 on average. The
logarithm of the length has mean 4.617 and standard deviation 0.161, and that of the answer 3.036 and 0.348. 91 % of the
schemas belong to a single record, so the benchmark shares no schemas.
"""

from __future__ import annotations

import importlib.util
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import GIB, SHAPES, hand_back, seconds_per_step

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from sqlquarry.tokenizing.encoded import EncodedRecords

ROWS = 4  # per step
VOCABULARY = 128_000  # the special tokens of Llama 3 follow
RECORD, RECORD_LIMITS, ANSWER = (4.617, 0.161), (63, 455), (3.036, 0.348)


@dataclass(frozen=True)
class Contender:
    """One library with its settings.

    Args:
        title: its name in the table.
        train: trains and returns the measurements.
        recomputed: share of the layers whose activations are recomputed in the backward pass.
        needs: packages to import, without which the contender is skipped.
        row_tokens: length of a row.
        batch: rows in one forward pass. The gradients of `ROWS` rows are accumulated.
        dropout: the adapter's dropout.
        liger: use the kernels of Liger.
        is_long: run only with ``--long``.
    """

    title: str
    train: Callable[[Contender, Job], dict[str, float]]
    recomputed: float = 0.0
    needs: tuple[str, ...] = ("bitsandbytes", "peft")
    row_tokens: int = 3072
    batch: int = 1
    dropout: float = 0.0
    liger: bool = False
    is_long: bool = False

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


@dataclass(frozen=True)
class Job:
    """The base model and the size of a measurement."""

    directory: str
    steps: int
    warm_up: int
    tiny: bool

    @property
    def base(self) -> Path:
        """The directory of the base model."""
        return Path(self.directory) / "base"

    def row_tokens(self, contender: Contender) -> int:
        """Return the length of a row, which is short if the job only tries out the benchmark."""
        return contender.row_tokens // 12 if self.tiny else contender.row_tokens

    def rows(self) -> int:
        """Return the number of rows of all steps."""
        return (self.warm_up + self.steps) * ROWS


def make_base(directory: Path, *, tiny: bool) -> None:
    """Write a Llama with random weights, and a tokenizer that has a word for each token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    words = _words(tiny=tiny)
    ends = {"bos_token_id": words, "eos_token_id": words + 1}
    config = SHAPES["tiny" if tiny else "8b"].config(rope_theta=500_000.0, **ends)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
    model.save_pretrained(directory, max_shard_size="2GB")
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<unk>"]
    vocabulary = {f"t{number}": number for number in range(words)}
    vocabulary |= {text: words + number for number, text in enumerate(specials)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = dict(zip(("bos_token", "eos_token", "unk_token"), specials, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=specials[1], **names).save_pretrained(directory)


def measure_matrix_products(*, tiny: bool) -> float:
    """Return the FLOP per second that the GPU reaches in a large matrix product of random bf16 values."""
    import torch

    size, times = (256, 3) if tiny else (8192, 50)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    for _ in range(times // 3):
        left @ right
    _wait()
    started = time.perf_counter()
    for _ in range(times):
        left @ right
    _wait()
    return 2 * size**3 * times / (time.perf_counter() - started)


def records(tokens: int, words: int) -> EncodedRecords:
    """Return records with this number of tokens altogether. The last one is cut."""
    from sqlquarry.tokenizing.encoded import EncodedRecords

    dice, found = random.Random(0), EncodedRecords()
    while tokens > 0:
        length = min(tokens, max(RECORD_LIMITS[0], min(RECORD_LIMITS[1], round(dice.lognormvariate(*RECORD)))))
        answer = min(length // 2 + 1, round(dice.lognormvariate(*ANSWER)) + 1)
        ids = dice.choices(range(words), k=length)
        found.append(ids[: length - answer], ids[length - answer :])
        tokens -= length
    return found


def train_trl(contender: Contender, job: Job) -> dict[str, float]:
    """Train with TRL's SFTTrainer as the published recipe does: rows are cut from the stream of all records."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    cuda = torch.cuda.is_available()
    dtype = torch.bfloat16 if cuda else torch.float32
    started = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(
        job.base,
        device_map={"": 0 if cuda else "cpu"},
        dtype=dtype,
        attn_implementation="sdpa",
        use_cache=False,
        trust_remote_code=False,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_storage=dtype,
        ),
    )
    loaded = time.perf_counter() - started
    length = job.row_tokens(contender)
    data = records(job.rows() * length, _words(tiny=job.tiny))
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            **_arguments(contender, job),
            max_length=length,
            packing=True,
            packing_strategy="wrapped",
            gradient_checkpointing=contender.recomputed > 0,
            gradient_checkpointing_kwargs={"use_reentrant": True} if contender.recomputed else None,
            use_liger_kernel=contender.liger,
            tf32=cuda or None,
        ),
        train_dataset=Dataset.from_list([{"input_ids": record.input_ids} for record in data]),
        peft_config=LoraConfig(
            r=16,
            lora_alpha=8,
            lora_dropout=contender.dropout,
            bias="none",
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        processing_class=AutoTokenizer.from_pretrained(job.base, trust_remote_code=False),
        callbacks=[clock := _step_clock()],
    )
    return _train(trainer, clock, contender, job) | {"load_s": loaded, "record_tokens": _mean_tokens(data)}


def train_unsloth(contender: Contender, job: Job) -> dict[str, float]:
    """Train with Unsloth on full rows. It applies its own attention to packed rows, so the rows are already cut."""
    os.chdir(job.directory)  # Unsloth writes the code that it compiles to the working directory
    from unsloth import FastLanguageModel  # isort: skip - before the libraries that it changes

    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    length = job.row_tokens(contender)
    started = time.perf_counter()
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(job.base), max_seq_length=length, load_in_4bit=True, dtype=torch.bfloat16, trust_remote_code=False
    )
    loaded = time.perf_counter() - started
    model = FastLanguageModel.get_peft_model(
        model,
        r=16,
        lora_alpha=8,
        lora_dropout=0,
        bias="none",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        use_gradient_checkpointing="unsloth" if contender.recomputed else False,
    )
    data = records(job.rows() * length, _words(tiny=job.tiny))
    ids = [token for record in data for token in record.input_ids]
    rows = [ids[start : start + length] for start in range(0, len(ids), length)]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            **_arguments(contender, job),
            max_length=length,
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
        ),
        train_dataset=Dataset.from_list(
            [{"input_ids": row, "labels": row, "attention_mask": [1] * length} for row in rows]
        ),
        processing_class=tokenizer,
        callbacks=[clock := _step_clock()],
    )
    return _train(trainer, clock, contender, job) | {"load_s": loaded, "record_tokens": _mean_tokens(data)}


def train_ours(contender: Contender, job: Job) -> dict[str, float]:
    """Train with the loop of `QLoRAFSDPTrainer`, with the loss on answers only and records that do not see each other.

    Without recomputation, the 4-bit values are held in bf16, which is what the trainer chooses on a GPU with enough
    memory. With recomputation, the weights stay in 4 bits.
    """
    import torch

    from sqlquarry.training.config import TrainingConfig
    from sqlquarry.training.encoding.packing import pack
    from sqlquarry.training.steps.adapted_model import load_trainable
    from sqlquarry.training.steps.loop import Loop
    from sqlquarry.training.steps.schedule import Schedule
    from sqlquarry.training.steps.world import World

    cuda, length = torch.cuda.is_available(), job.row_tokens(contender)
    config = TrainingConfig(
        max_length=length,
        gradient_checkpointing=contender.recomputed > 0,
        hold_dequantized=not contender.recomputed,
        device="cuda" if cuda else "cpu",
    )
    world = World(0, 1, 1, torch.device("cuda:0" if cuda else "cpu"))
    started = time.perf_counter()
    model, _ = load_trainable(job.base, config, world)
    loaded = time.perf_counter() - started
    data = records(job.rows() * length, _words(tiny=job.tiny))
    packed = pack(data, range(len(data)), max_tokens=length, share_prefixes=False, seed=0)
    # One row of an epoch is not full. Among the thousands of rows of a real epoch, it would not count.
    rows = sorted(packed, key=lambda row: row.size.tokens)[-job.rows() :]
    schedule = Schedule(len(rows), ROWS, epochs=1, warmup_ratio=0.03, peak_rate=2e-4, seed=0)
    _forget_peak()
    started = time.perf_counter()
    loop = Loop(model, rows, schedule, config, world)
    seconds = seconds_per_step(loop, job.steps, warm_up=job.warm_up)
    all_seconds = time.perf_counter() - started
    measured = [schedule.rows_of(step) for step in range(job.warm_up, job.warm_up + job.steps)]
    tokens = sum(rows[row].size.tokens for step in measured for row in step)
    return {
        "tokens_per_second": tokens / (seconds * job.steps),
        "warm_up_s": all_seconds - seconds * job.steps,
        "peak_gib": _peak_gib(),
        "tokens_per_step": tokens / job.steps,
        "load_s": loaded,
        "record_tokens": _mean_tokens(data),
    }


CONTENDERS = {
    "published": Contender(
        "the published recipe (TRL, 1 row x 4, dropout 0.05)", train_trl, 1.0, ("trl", "datasets"), dropout=0.05
    ),
    "trl-liger-1": Contender(
        "TRL and Liger, 1 row x 4", train_trl, needs=("trl", "datasets", "liger_kernel"), liger=True
    ),
    "trl-liger-2": Contender(
        "TRL and Liger, 2 rows x 2", train_trl, needs=("trl", "datasets", "liger_kernel"), batch=2, liger=True
    ),
    "unsloth": Contender("Unsloth, 2 rows x 2", train_unsloth, needs=("unsloth",), batch=2),
    "unsloth-recomputed": Contender("Unsloth, 1 row x 4", train_unsloth, 1.0, ("unsloth",)),
    "unsloth-recomputed-2": Contender("Unsloth, 2 rows x 2", train_unsloth, 1.0, ("unsloth",), batch=2),
    "ours": Contender("SQLQuarry, values in bf16", train_ours),
    "ours-recomputed": Contender("SQLQuarry, 4 bits", train_ours, 1.0),
    "ours-long": Contender("SQLQuarry, values in bf16, rows of 8,192", train_ours, row_tokens=8192, is_long=True),
    "ours-long-recomputed": Contender(
        "SQLQuarry, 4 bits, rows of 8,192", train_ours, 1.0, row_tokens=8192, is_long=True
    ),
}


def work(name: str, job: Job) -> None:
    """Do the work of one process and hand back its result: make the base, measure the GPU, or train."""
    if name == "make":
        make_base(job.base, tiny=job.tiny)
        hand_back({})
    elif name == "products":
        hand_back(measure_matrix_products(tiny=job.tiny))
    else:
        contender = CONTENDERS[name]
        hand_back(contender.train(contender, job))


def _arguments(contender: Contender, job: Job) -> dict[str, Any]:
    """Return the arguments of TRL's SFTConfig that all its contenders share: the optimizer of the published recipe."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "output_dir": str(Path(job.directory) / "trainer"),
        "per_device_train_batch_size": contender.batch,
        "gradient_accumulation_steps": ROWS // contender.batch,
        "max_steps": job.warm_up + job.steps,
        "bf16": cuda,
        **({} if cuda else {"use_cpu": True}),
        "learning_rate": 2e-4,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.3,
        "optim": "adamw_torch",
        "logging_steps": 5,
        "save_strategy": "no",
        "report_to": "none",
    }


def _step_clock() -> TrainerCallback:
    """Return a callback that lists the time at the end of each step in `times`."""
    from transformers import TrainerCallback

    class StepClock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, *_: object, **__: object) -> None:
            _wait()
            self.times.append(time.perf_counter())

    return StepClock()


def _train(trainer: Any, clock: Any, contender: Contender, job: Job) -> dict[str, float]:
    """Train with a Trainer and return the measurements."""
    _forget_peak()
    started = time.perf_counter()
    trainer.train()
    first, last = clock.times[job.warm_up - 1], clock.times[job.warm_up + job.steps - 1]
    tokens = ROWS * job.row_tokens(contender)
    return {
        "tokens_per_second": tokens * job.steps / (last - first),
        "warm_up_s": first - started,
        "peak_gib": _peak_gib(),
        "tokens_per_step": tokens,
    }


def _mean_tokens(data: EncodedRecords) -> float:
    return sum(data.lengths) / len(data)


def _words(*, tiny: bool) -> int:
    return 300 if tiny else VOCABULARY


def _wait() -> None:
    """Wait until the GPU has finished all work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _forget_peak() -> None:
    """Forget the peak memory of loading, which also depends on how files are read."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_gib() -> float:
    """Return the peak memory of training in GiB, or 0 without a GPU."""
    import torch

    return torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else 0.0
