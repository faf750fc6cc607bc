"""Find all problems that would make a run fail or waste its time, before anything is downloaded or loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from sqlquarry.errors import ConfigError, DeviceError, RecordError, SQLQuarryError
from sqlquarry.training.base.limits import tokens_without_rows
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.planning.advice import MIN_STEPS_PER_EPOCH
from sqlquarry.training.planning.hardware import GPU
from sqlquarry.training.planning.memory import forecast_memory
from sqlquarry.training.planning.offers import cheapest_fit
from sqlquarry.training.planning.plan import TrainingPlan

_GIB = 2**30


def check_run(
    plan: TrainingPlan,
    config: TrainingConfig,
    *,
    tokenizer: object = None,
    gpus_here: int | None = None,
    started: bool = False,
) -> tuple[str, ...]:
    """Refuse a run that cannot work, or return notes on a run that can.

    Args:
        plan: the run's forecast. It needs only the base's config.json, tokenizer and headers.
        config: the run's configuration.
        tokenizer: the base's tokenizer, for a note if it pads with its end-of-text token.
        gpus_here: number of GPUs on this machine, or None if the run is on another machine.
        started: the processes are already running, so a process without work is not a problem.

    Raises:
        DeviceError: only the GPUs are wrong: their memory, number or lack of bfloat16.
        RecordError: only the records are wrong.
        ConfigError: anything else is wrong. The message lists every problem and what to do about it.
    """
    problems = _problems(plan, config, gpus_here, started=started)
    if any(problems.values()):
        kinds = [kind for kind, found in problems.items() if found]
        kind = kinds[0] if len(kinds) == 1 else ConfigError
        listed = "\n".join(f"- {problem}" for found in problems.values() for problem in found)
        raise kind(f"this run cannot work:\n{listed}")
    return tuple(_notes(plan, config, tokenizer))


def run_problems(plan: TrainingPlan, config: TrainingConfig, *, gpus_here: int | None = None) -> tuple[str, ...]:
    """Return the problems for which `check_run` would refuse the run."""
    return tuple(problem for found in _problems(plan, config, gpus_here).values() for problem in found)


def _problems(
    plan: TrainingPlan, config: TrainingConfig, gpus_here: int | None = None, *, started: bool = False
) -> dict[type[SQLQuarryError], list[str]]:
    """Return the problems by the class of the error to raise if all problems are of one class."""
    choices = [
        *_target_problems(plan, config),
        *_expert_problems(plan, config),
        *_attention_problems(plan, config),
        *_stop_problems(plan),
    ]
    return {
        ConfigError: choices if started else [*choices, *_process_problems(plan)],
        RecordError: [*_record_problems(plan, config)],
        DeviceError: [*_device_problems(plan, config, gpus_here)],
    }


def _target_problems(plan: TrainingPlan, config: TrainingConfig) -> Iterator[str]:
    if config.target_modules == "all-linear":
        return
    known = sorted({name.rpartition(".")[2] for name in plan.shape.linears})
    for target in config.target_modules:
        if target.rpartition(".")[2] in ("lm_head", "embed_tokens"):
            tied = (
                ". In this base model, head and embeddings are one matrix, so a merge cannot change only one of them"
                if plan.shape.tied
                else ""
            )
            yield f"target_modules lists {target}, which is not a layer of the decoder{tied}. Leave it out."
        elif not plan.shape.targeted((target,)):
            yield f"target_modules lists {target}, but no linear layer has that name. Use {', '.join(known)}."


def _expert_problems(plan: TrainingPlan, config: TrainingConfig) -> Iterator[str]:
    if plan.shape.expert_parameters and config.lora_dropout:
        yield f"lora_dropout is {config.lora_dropout}, but PEFT does not apply dropout to experts. Set it to 0."


def _attention_problems(plan: TrainingPlan, config: TrainingConfig) -> Iterator[str]:
    if plan.gpu is None and config.attn_implementation == "flex_attention":
        yield "attn_implementation is 'flex_attention', which torch does not train on CPUs. Use 'auto' or 'sdpa'."


def _stop_problems(plan: TrainingPlan) -> Iterator[str]:
    if plan.stop_problem:
        trl = ' TRL trains no rows, so this also needs backend="sqlquarry".' if plan.config.backend == "trl" else ""
        yield plan.stop_problem + trl
    if plan.trained_rows and plan.config.shard_group_size(plan.processes, plan.instances) > 1:
        yield (
            "trainable_tokens trains rows of embeddings and head, but no process holds these matrices completely if "
            'several share the base model. Set sharding="none", or processes=1.'
        )


def _record_problems(plan: TrainingPlan, config: TrainingConfig) -> Iterator[str]:
    if plan.over_length:
        count, limit = len(plan.over_length), config.max_length
        longest = ", ".join(f"{name} ({tokens:,})" for name, tokens in plan.over_length[:3])
        yield (
            f"{count:,} record{'s are' if count > 1 else ' is'} longer than max_length={limit:,}: "
            f"{longest}{' by an estimate' if plan.estimated else ''}. Records are never cut. Set max_length to "
            f"{plan.over_length[0][1]:,}, shorten their schemas, or leave them out."
        )
    if plan.unlearnable:
        count = len(plan.unlearnable)
        yield (
            f"{count:,} record{'s have' if count > 1 else ' has'} no answer token to learn: "
            f"{', '.join(plan.unlearnable[:3])}. Leave them out."
        )
    yield from plan.base_problems


def _process_problems(plan: TrainingPlan) -> Iterator[str]:
    if plan.processes <= plan.rows_per_step:
        return
    rows = f"{plan.rows_per_step} row{'s' if plan.rows_per_step > 1 else ''}"
    remedies = [f"start {plan.rows_per_step} process{'es' if plan.rows_per_step > 1 else ''}"]
    if plan.instances > plan.rows_per_step:  # each machine runs at least one process
        remedies = [f"use {plan.rows_per_step} machine{'s' if plan.rows_per_step > 1 else ''}"]
    elif plan.instance_type:
        remedies = [f"leave processes out, which starts {plan.rows_per_step}", "use an instance with fewer GPUs"]
    if MIN_STEPS_PER_EPOCH * plan.processes <= plan.rows:
        remedies.append(f"set records_per_step to {-(-plan.processes * plan.records // plan.rows)} or more")
    remedy = ", or ".join(remedies)
    yield (
        f"{plan.processes} processes share steps of {rows}, so {plan.processes - plan.rows_per_step} of them would be "
        f"idle. {remedy[0].upper()}{remedy[1:]}."
    )


def _device_problems(plan: TrainingPlan, config: TrainingConfig, gpus_here: int | None) -> Iterator[str]:
    if gpus_here is not None and plan.gpu is not None and plan.processes > gpus_here:
        yield f"{plan.processes} processes cannot run on {gpus_here} GPUs. Start one process per GPU."
    if plan.gpu is not None and not plan.gpu.has_bf16:
        subject = f"{plan.instance_type} has {plan.gpu.name} GPUs, which do" if plan.instance_type else ""
        yield (
            f"{subject or f'the {plan.gpu.name} does'} not compute in bfloat16, which training on CUDA requires. Use "
            f"{_instance_that_fits(plan, config) or 'a newer GPU'}."
        )
    if config.cpu_offload and plan.config.shard_group_size(plan.processes, plan.instances) == 1:
        remedy = ', or set sharding="full"' if plan.processes > 1 else ""
        yield (
            "cpu_offload keeps sharded weights in CPU memory, but in this run each process has its own copy of the "
            f"base model. Leave it off{remedy}."
        )
    if plan.gpu is not None and not plan.fits:
        room = plan.gpu.memory_bytes / _GIB
        remedies = list(_remedies(plan, config, plan.gpu))[:3]
        remedy = (
            f"Set {', or '.join(remedies)}."
            if remedies
            else f"No setting makes it fit. Use {_instance_that_fits(plan, config) or 'a GPU with more memory'}."
        )
        yield (
            f"the run needs {plan.memory.needed / _GIB:.1f} GiB on each {plan.gpu.name}, which has only {room:.1f}. "
            f"{remedy}"
        )


def _instance_that_fits(plan: TrainingPlan, config: TrainingConfig) -> str:
    offer = cheapest_fit(plan, config) if plan.instance_type else None
    return f"{offer.instance_type} (about ${offer.cost_usd:.2f} for the whole job)" if offer else ""


class _Change(NamedTuple):
    """One way to need less memory.

    Args:
        words: the option to set, as text.
        config: the configuration with that option.
        times_processes: factor by which the number of processes grows.
        share_of_row: factor by which rows become shorter.
    """

    words: str
    config: TrainingConfig
    times_processes: int = 1
    share_of_row: float = 1.0


def _remedies(plan: TrainingPlan, config: TrainingConfig, gpu: GPU) -> Iterator[str]:
    """Yield the changes that would make the run fit, the fastest first, each with the memory that it would need."""
    for words, changed, times, share in (*_changed_options(plan, config), *_changed_sizes(plan, config)):
        rows = [(round(tokens * share), round(answers * share)) for tokens, answers in plan.row_sizes]
        processes = plan.processes * times
        needed = forecast_memory(plan.shape, changed, rows, processes=processes, machines=plan.instances).needed
        if needed <= gpu.memory_bytes:
            yield f"{words} ({needed / _GIB:.1f} GiB)"


def _changed_options(plan: TrainingPlan, config: TrainingConfig) -> Iterator[_Change]:
    if config.quantization and config.hold_dequantized is True:
        yield _Change("hold_dequantized=False", dataclasses.replace(config, hold_dequantized=False))
    if config.quantization is None:
        yield _Change('quantization="nf4"', dataclasses.replace(config, quantization="nf4"))
    if plan.config.recomputed_layers(plan.shape.layers, cuda=True) < plan.shape.layers:
        yield _Change("gradient_checkpointing=True", dataclasses.replace(config, gradient_checkpointing=True))
    if config.sharding not in ("auto", "full") and plan.processes > 1:
        yield _Change('sharding="full"', dataclasses.replace(config, sharding="full"))


def _changed_sizes(plan: TrainingPlan, config: TrainingConfig) -> Iterator[_Change]:
    longest = max(tokens for tokens, _ in plan.row_sizes)
    for part in (2, 4):
        tokens = max(16, config.max_length // part)
        shorter = dataclasses.replace(config, max_length=tokens)
        yield _Change(f"max_length={tokens}", shorter, share_of_row=min(1, tokens / longest))
    for times in (2, 4, 8):
        if plan.processes * times <= plan.rows_per_step:
            yield _Change(f"processes={plan.processes * times}", config, times_processes=times)
    half = max(1, config.lora_r // 2)
    yield _Change(f"lora_r={half}", dataclasses.replace(config, lora_r=half))
    if plan.processes > 1 and not config.cpu_offload:
        yield _Change("cpu_offload=True", dataclasses.replace(config, cpu_offload=True))


def _notes(plan: TrainingPlan, config: TrainingConfig, tokenizer: object) -> Iterator[str]:
    padding = getattr(tokenizer, "pad_token_id", None)
    if padding is not None and padding == getattr(tokenizer, "eos_token_id", None):
        yield (
            "the tokenizer pads with its end-of-text token. This is harmless: labels are explicit, so the model still "
            "learns to end an answer."
        )
    if without := tokens_without_rows(tokenizer, plan.shape.vocabulary):
        yield without
    floats = plan.shape.dtypes & {"F64", "F32", "F16", "BF16"}
    if len(floats) > 1:
        yield f"the base model contains {' and '.join(sorted(floats))} weights. All of them are loaded in one dtype."
    if floats == {"F16"} and plan.gpu is not None:
        yield "the base model is in float16 and is loaded in bfloat16, which has 3 bits less precision."
    if config.quantization and plan.shape.expert_parameters:
        yield "the experts' weights stay in 16 bits, because bitsandbytes quantizes only linear layers."
    yield from plan.notes
