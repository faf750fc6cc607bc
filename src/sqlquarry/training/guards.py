"""Everything that would make a run fail or go to waste, found before anything is downloaded or loaded, all at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from sqlquarry.errors import ConfigError, DeviceError
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.hardware import GPU
from sqlquarry.training.memory import forecast_memory
from sqlquarry.training.plan import TrainingPlan
from sqlquarry.training.reach import tokens_without_rows

_GIB = 2**30


def check_run(
    plan: TrainingPlan,
    config: TrainingConfig,
    *,
    tokenizer: Any = None,
    gpus_here: int | None = None,
) -> tuple[str, ...]:
    """Refuse a run that cannot work; return what is worth knowing about one that can.

    Args:
        plan: the run's forecast, which needs the base's config.json, tokenizer and headers only.
        config: as it would train.
        tokenizer: the base's; for a note where its padding is its end of text.
        gpus_here: GPUs of the machine that the processes start on; None where that is another than this one.

    Raises:
        DeviceError: nothing but the devices is wrong.
        ConfigError: anything else; the message lists every problem with what to do.
    """
    devices = [*_device_problems(plan, config, gpus_here)]
    problems = [
        *_target_problems(plan, config),
        *_expert_problems(plan, config),
        *_stop_problems(plan),
        *_data_problems(plan, config),
    ]
    if problems or devices:
        kind = ConfigError if problems else DeviceError
        raise kind("this run cannot work:\n" + "\n".join(f"- {problem}" for problem in (*problems, *devices)))
    return tuple(_notes(plan, config, tokenizer))


def _target_problems(plan: TrainingPlan, config: TrainingConfig) -> Iterator[str]:
    if config.target_modules == "all-linear":
        return
    known = sorted({name.rpartition(".")[2] for name in plan.shape.linears})
    for target in config.target_modules:
        if target.rpartition(".")[2] in ("lm_head", "embed_tokens"):
            tied = ", and here both are one matrix, which no merge can keep apart" if plan.shape.tied else ""
            yield f"target_modules names {target}, which is no layer of the decoder{tied}: leave it out"
        elif not plan.shape.targeted((target,)):
            yield f"target_modules names {target}, but no linear layer is called so; there are {', '.join(known)}"


def _expert_problems(plan: TrainingPlan, config: TrainingConfig) -> Iterator[str]:
    if plan.shape.expert_parameters and config.dropout:
        yield f"dropout is {config.dropout}, which PEFT does not apply to experts: set it to 0"


def _stop_problems(plan: TrainingPlan) -> Iterator[str]:
    if plan.stop_problem:
        yield plan.stop_problem
    if plan.trained_rows and plan.config.sharers(plan.processes, plan.instances) > 1:
        yield (
            "trainable_tokens trains rows of embeddings and head, which no process holds whole where several share the "
            'base: set sharding="none", or processes=1'
        )


def _data_problems(plan: TrainingPlan, config: TrainingConfig) -> Iterator[str]:
    if plan.over_length:
        longest = ", ".join(f"{name} ({tokens:,})" for name, tokens in plan.over_length[:3])
        yield (
            f"{len(plan.over_length):,} of {plan.records:,} records are longer than max_sequence_tokens="
            f"{config.max_sequence_tokens:,}: {longest}. Nothing is cut: set it to {plan.over_length[0][1]:,}, shorten "
            "their schemas, or leave them out"
        )
    if plan.unlearnable:
        yield f"{len(plan.unlearnable):,} records have no answer token to learn: {', '.join(plan.unlearnable[:3])}"
    yield from plan.beyond_base
    if plan.processes > plan.rows_per_step:
        more = f"set records_per_step to {-(-plan.processes * plan.records // plan.rows)} or more, "
        yield (
            f"{plan.processes} processes share steps of {plan.rows_per_step} rows, so some would only idle: "
            + (more if plan.processes <= plan.rows else "")
            + f"lower max_sequence_tokens, or start {plan.rows_per_step} processes"
        )


def _device_problems(plan: TrainingPlan, config: TrainingConfig, gpus_here: int | None) -> Iterator[str]:
    if gpus_here is not None and plan.gpu is not None and plan.processes > gpus_here:
        yield f"{plan.processes} processes on {gpus_here} GPUs: start one for each GPU"
    if plan.gpu is not None and not plan.gpu.has_bf16:
        yield f"the {plan.gpu.name} does not compute in bfloat16, which training uses on CUDA: take a newer GPU"
    if config.cpu_offload and plan.config.sharers(plan.processes, plan.instances) == 1:
        yield (
            "cpu_offload keeps sharded weights in CPU memory, but here each process holds the base alone: leave it off"
            + (', or set sharding="full"' if plan.processes > 1 else "")
        )
    if plan.gpu is not None and not plan.fits:
        room = plan.gpu.memory_bytes / _GIB
        remedies = list(_remedies(plan, config, plan.gpu))[:3]
        yield f"{plan.memory.needed / _GIB:.1f} GiB are needed on each {plan.gpu.name}, which has {room:.1f}: " + (
            "; or ".join(remedies) if remedies else "nothing here makes it fit; take a GPU with more memory"
        )


def _remedies(plan: TrainingPlan, config: TrainingConfig, gpu: GPU) -> Iterator[str]:
    """What would make it fit, the cheapest in time first; each with what would then be needed."""
    longest = max(tokens for tokens, _ in plan.row_sizes)
    changes: list[tuple[str, dict[str, Any], int, float]] = []
    if config.quantization and config.hold_dequantized:
        changes.append(("hold_dequantized=False", {"hold_dequantized": False}, 1, 1))
    if config.quantization is None:
        changes.append(('quantization="nf4"', {"quantization": "nf4"}, 1, 1))
    if plan.config.recomputed(plan.shape.layers, cuda=True) < plan.shape.layers:
        changes.append(("gradient_checkpointing=True", {"gradient_checkpointing": True}, 1, 1))
    if config.sharding not in (None, "full") and plan.processes > 1:
        changes.append(('sharding="full"', {"sharding": "full"}, 1, 1))
    for part in (2, 4):
        tokens = max(16, config.max_sequence_tokens // part)
        changes.append((f"max_sequence_tokens={tokens}", {"max_sequence_tokens": tokens}, 1, min(1, tokens / longest)))
    changes.extend((f"processes={plan.processes * more}", {}, more, 1) for more in (2, 4, 8))
    changes.append((f"rank={max(1, config.rank // 2)}", {"rank": max(1, config.rank // 2)}, 1, 1))
    if plan.processes > 1 and not config.cpu_offload:
        changes.append(("cpu_offload=True", {"cpu_offload": True}, 1, 1))
    for words, fields, more, share in changes:
        rows = [(round(tokens * share), round(answers * share)) for tokens, answers in plan.row_sizes]
        changed = dataclasses.replace(config, **fields)
        processes = plan.processes * more
        needed = forecast_memory(plan.shape, changed, rows, processes=processes, machines=plan.instances).needed
        if needed <= gpu.memory_bytes:
            yield f"{words} ({needed / _GIB:.1f} GiB)"


def _notes(plan: TrainingPlan, config: TrainingConfig, tokenizer: Any) -> Iterator[str]:
    if (
        tokenizer is not None
        and tokenizer.pad_token_id is not None
        and tokenizer.pad_token_id == tokenizer.eos_token_id
    ):
        yield "padding equals end of text: harmless here, for labels are explicit and the end of an answer stays learnt"
    if without := tokens_without_rows(tokenizer, plan.shape.vocabulary):
        yield without
    if plan.idle_share:
        rows = -(-plan.rows_per_step // plan.processes) * plan.processes
        yield (
            f"{plan.idle_share:.0%} of {plan.processes} processes' time is idle in steps of {plan.rows_per_step} rows"
            + (
                f": records_per_step={round(rows * plan.records / plan.rows)} makes them {rows}"
                if rows <= plan.rows
                else ""
            )
        )
    floats = plan.shape.dtypes & {"F64", "F32", "F16", "BF16"}
    if len(floats) > 1:
        yield f"the base holds {' and '.join(sorted(floats))}; everything is loaded in one dtype"
    if floats == {"F16"} and plan.gpu is not None:
        yield "the base is in float16 and is loaded in bfloat16, which keeps 3 bits less of each weight"
    if config.quantization and plan.shape.expert_parameters:
        yield "the experts' weights stay in 16 bits: bitsandbytes quantises linear layers only"
    yield from plan.notes
