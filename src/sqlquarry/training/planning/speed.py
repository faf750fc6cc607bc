"""Forecast how long training takes.

Three kinds of work overlap, and the slowest determines the time of a row: the GPU's arithmetic and memory traffic,
launching its kernels, and gathering shared weights from other GPUs or from CPU memory.

The shares below were measured with this package's training loop on one H200 (2026-11-28, torch 2.11, transformers 5.17,
bitsandbytes 0.50.2, 135M and 8B shapes, benchmarks/forecast.py). The share of dense attention was measured on an H100,
and the figures for a shared base on two H200 (2026-11-29, benchmarks/scaling.py). Other GPUs are assumed to reach the
same shares of their own peaks.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence

from sqlquarry.training.base.shape import ModelShape
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.planning.hardware import GPU, HOST_BYTES_PER_SECOND, NETWORK_BYTES_PER_SECOND
from sqlquarry.training.planning.memory import computed_tokens, layer_bytes_per_token

MATMUL_SHARE = 0.70  # share of the peak that the base's matrix products reach
# How often each byte that is kept for the backward pass moves, including norms and LoRA. Key: layers are compiled.
TRAVERSALS = {True: 17, False: 25}
GATHERED_TRAVERSALS = 4  # how often each gathered byte moves: FSDP2 copies it before sending and after receiving
GATHERING_SHARE = 0.25  # NCCL's kernels take this share of the GPU: other kernels ran 1.25 times as long meanwhile
RECOMPUTED = 1.33  # factor by which recomputation raises the traversals
UNPACKED_SHARE = 0.41  # share of the memory bandwidth that the unpacking of 4-bit weights reaches
# Share of the peak by head width. Attention by sdpa with a dense mask computes every pair of tokens.
DENSE_ATTENTION_SHARE = {64: 0.036, 128: 0.085}
FLEX_REACH = 384  # tokens that a token attends to under flex attention (a schema and its questions), in blocks of 128
GRAPH_LAYER_S = 0.0006  # a layer's kernels forward and backward, one after the other, however small they are
HOST_LAYER_S = {True: 0.0117, False: 0.0062}  # launching a compiled layer's kernels one by one. Key: weights are 4-bit
HOST_SHARED_LAYER_S = {True: 0.0108, False: 0.0080}  # the same under FSDP2, where this package's code runs 4-bit layers
HOST_NOT_COMPILED = 1.5  # factor by which these times rise if layers are not compiled
HOST_RECOMPUTED = 1.3  # factor by which recomputation raises all launch times
CPU_FLOPS_PER_CORE = 50e9  # float32, SmolLM2-135M, two cores with AVX512: 243 tokens/s (a full step, QLoRA)


def flops_per_token(
    shape: ModelShape, config: TrainingConfig, tokens: int, answer_share: float, *, cuda: bool
) -> float:
    """Return the floating-point operations that training spends on one token of a row.

    - Base with N parameters: 2N forward and 2N backward, because frozen weights get no gradient. Recomputing the
      activations adds 2N.
    - Adapter: 6 per parameter.
    - Head: for answer tokens only.
    - Attention: 4 · width · tokens per layer forward, and 2.5 times that backward.

    Source: Dao 2023, arXiv:2307.08691, §3 (attention); Kaplan et al. 2020, arXiv:2001.08361, §2.1 (the rest).
    """
    passes = 4 + 2 * config.recomputed_layers(shape.layers, cuda=cuda) / shape.layers
    adapter = shape.adapter_parameters(config.target_modules, config.lora_r, expert_share=shape.active_expert_share)
    return (
        passes * shape.active_parameters
        + 6 * adapter
        + 4 * shape.vocabulary * shape.hidden * answer_share
        + _attention_flops(shape, config, tokens, cuda=cuda)
    )


def row_seconds(
    shape: ModelShape,
    config: TrainingConfig,
    tokens: int,
    answers: int,
    *,
    gpu: GPU | None,
    processes: int = 1,
    machines: int = 1,
) -> float:
    """Forecast the seconds of one row's forward and backward pass on one process.

    Args:
        shape: the base model.
        config: quantization, recomputation, rank and sharding are used.
        tokens: number of tokens in the row.
        answers: number of those tokens that are learned.
        gpu: None for this machine's CPU cores.
        processes: number of processes on all machines. If they share a base, each receives the other parts.
        machines: number of machines.
    """
    tokens = computed_tokens(config, tokens, cuda=gpu is not None)
    flops = flops_per_token(shape, config, tokens, answers / max(1, tokens), cuda=gpu is not None) * tokens
    if gpu is None:
        return flops / (CPU_FLOPS_PER_CORE * (os.cpu_count() or 1) / (processes // machines))
    computing = _computing_seconds(shape, config, tokens, flops, gpu)
    group_size = config.shard_group_size(processes, machines)
    starting = _starting_seconds(shape, config, group_size)
    if group_size == 1:
        return max(computing, starting)
    traveling = _gathered_bytes(shape, config)
    seconds_per_byte = (group_size - 1) / group_size / _link(gpu, over_network=group_size > processes // machines)
    gathering = traveling * seconds_per_byte
    computing += GATHERED_TRAVERSALS * traveling / gpu.bytes_per_second + GATHERING_SHARE * gathering
    computing += 2 * shape.vocabulary * shape.hidden * seconds_per_byte  # nothing overlaps the embeddings' gathering
    offloading = traveling / group_size / HOST_BYTES_PER_SECOND if config.cpu_offload else 0
    return max(computing, starting, gathering, offloading)


def _computing_seconds(shape: ModelShape, config: TrainingConfig, tokens: int, flops: float, gpu: GPU) -> float:
    """Return the seconds of a GPU's arithmetic and memory traffic."""
    again = _recomputed_share(shape, config)
    attention = _attention_flops(shape, config, tokens, cuda=True) * tokens
    dense_share = DENSE_ATTENTION_SHARE[64 if shape.head < 128 else 128]
    share = MATMUL_SHARE if config.uses_flex_attention(cuda=True) else dense_share
    moved = TRAVERSALS[config.compiles_layers(cuda=True)] * (1 + (RECOMPUTED - 1) * again) * tokens
    moved *= shape.layers * layer_bytes_per_token(shape, config, cuda=True)
    # Unpacking reads half a byte per weight and writes two bytes.
    unpacked = (2 + again) * 2.5 * shape.linear_parameters if config.holds_4bit_weights else 0.0
    return (
        (flops - attention) / (gpu.bf16_flops * MATMUL_SHARE)
        + attention / (gpu.bf16_flops * share)
        + (moved + unpacked / UNPACKED_SHARE) / gpu.bytes_per_second
    )


def _recomputed_share(shape: ModelShape, config: TrainingConfig) -> float:
    return config.recomputed_layers(shape.layers, cuda=True) / shape.layers


def summing_seconds(
    shape: ModelShape, config: TrainingConfig, *, gpu: GPU | None, processes: int, machines: int = 1
) -> float:
    """Forecast the seconds that a step waits for the adapter's float32 gradient to be summed over all processes.

    Each of p processes sends and receives 2 (p - 1) / p of the gradient.

    Source: Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce".
    """
    if gpu is None:
        return 0.0
    gradient = 4 * shape.adapter_parameters(config.target_modules, config.lora_r)
    return 2 * gradient * (processes - 1) / processes / _link(gpu, over_network=machines > 1)


def run_seconds(
    shape: ModelShape,
    config: TrainingConfig,
    row_sizes: Sequence[tuple[int, int]],
    *,
    rows_per_step: int,
    steps: int,
    gpu: GPU | None,
    processes: int,
    machines: int = 1,
) -> float:
    """Forecast the seconds of a run.

    Each step waits for the process with the most rows. All rows are assumed to take as long as the mean row.

    Args:
        shape: the base model.
        config: as for `row_seconds`.
        row_sizes: tokens and answer tokens of each row of an epoch.
        rows_per_step: rows in one optimizer step.
        steps: optimizer steps of the run.
        gpu: None for this machine's CPU cores.
        processes: number of processes on all machines.
        machines: number of machines.
    """
    rows = len(row_sizes)
    mean = (
        sum(
            count * row_seconds(shape, config, tokens, answers, gpu=gpu, processes=processes, machines=machines)
            for (tokens, answers), count in Counter(row_sizes).items()
        )
        / rows
    )
    full, rest = divmod(rows, rows_per_step)
    rounds = full * math.ceil(rows_per_step / processes) + math.ceil(rest / processes)
    summing = summing_seconds(shape, config, gpu=gpu, processes=processes, machines=machines)
    return steps * (rounds * mean / math.ceil(rows / rows_per_step) + summing)


def _attention_flops(shape: ModelShape, config: TrainingConfig, tokens: int, *, cuda: bool) -> float:
    passes = 1 + 2.5 + config.recomputed_layers(shape.layers, cuda=cuda) / shape.layers
    seen = min(tokens, FLEX_REACH) if config.uses_flex_attention(cuda=cuda) else tokens
    return 4 * shape.attention * seen * shape.layers * passes


def _starting_seconds(shape: ModelShape, config: TrainingConfig, group_size: int) -> float:
    each = GRAPH_LAYER_S
    if not config.uses_cuda_graphs(cuda=True, shard_group_size=group_size):
        each = (HOST_SHARED_LAYER_S if group_size > 1 else HOST_LAYER_S)[config.holds_4bit_weights]
        each *= 1 if config.compiles_layers(cuda=True) else HOST_NOT_COMPILED
    return each * shape.layers * (1 + (HOST_RECOMPUTED - 1) * _recomputed_share(shape, config))


def _gathered_bytes(shape: ModelShape, config: TrainingConfig) -> float:
    """Return the bytes that FSDP2 gathers for a row.

    Layers are gathered forward and backward, with or without recomputation. Embeddings and head are gathered once.
    Each process receives all parts except its own (arXiv:2304.11277, §3).
    """
    layers = shape.linear_parameters * (0.5 if config.holds_4bit_weights else 2) + 2 * shape.expert_parameters
    return 2 * layers + 2 * (shape.parameters - shape.linear_parameters - shape.expert_parameters)


def _link(gpu: GPU, *, over_network: bool) -> float:
    return NETWORK_BYTES_PER_SECOND if over_network else gpu.link_bytes_per_second
