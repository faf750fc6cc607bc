"""How long training takes.

A row's time is the longest of what overlaps: the GPU's arithmetic and memory traffic, the starting of its kernels, and
the gathering of shared weights from other GPUs or from CPU memory. The shares below were measured with this package's
loop on one H200 (2026-11-28, torch 2.11, transformers 5.17, bitsandbytes 0.50.2; 135M and 8B shapes;
benchmarks/forecast.py), that of dense attention on an H100, those of a shared base on two H200 (2026-11-29;
benchmarks/scaling.py). On other GPUs the same shares of their own peaks are assumed.
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

MATMUL_SHARE = 0.70  # of the peak, in the base's matrix products
TRAVERSALS = {True: 17, False: 25}  # times that each kept byte moves, norms and LoRA included: compiled layers, or not
GATHERED_TRAVERSALS = 4  # times that each gathered byte moves: FSDP2 copies what is sent, and what arrived
GATHERING_SHARE = 0.25  # of the GPU, that NCCL's kernels take: the others ran 1.25 times as long meanwhile
RECOMPUTED = 1.33  # more of those with recomputation
UNPACKED_SHARE = 0.41  # of the memory bandwidth, where 4-bit weights are unpacked
DENSE_ATTENTION_SHARE = {64: 0.036, 128: 0.085}  # of the peak, by head width: sdpa with a dense mask does every pair
FLEX_REACH = 384  # tokens that one looks at under flex attention, in whole blocks of 128: a schema and its questions
GRAPH_LAYER_S = 0.0006  # a layer's kernels forward and backward, one after the other, however small
HOST_LAYER_S = {True: 0.0117, False: 0.0062}  # launching them one by one, compiled: in 4 bits, or not
HOST_SHARED_LAYER_S = {True: 0.0108, False: 0.0080}  # the same under FSDP2, where 4-bit layers run by our code
HOST_NOT_COMPILED = 1.5  # more of these where layers are not compiled
HOST_RECOMPUTED = 1.3  # more of all with recomputation
CPU_FLOPS_PER_CORE = 50e9  # float32 with SmolLM2-135M, two cores with AVX512: 243 tokens/s (a full step, QLoRA)


def flops_per_token(
    shape: ModelShape, config: TrainingConfig, tokens: int, answer_share: float, *, cuda: bool
) -> float:
    """Return the floating-point operations that training spends on one token of a row.

    2N forward and 2N backward, for frozen weights get no gradient; 2N more where activations are recomputed; 6 for each
    parameter of the adapter; the head for answer tokens only. Attention: 4 · width · tokens a layer forward, 2.5 times
    that backward (Dao 2023, arXiv:2307.08691, §3). The rest is Kaplan et al. 2020, arXiv:2001.08361, §2.1.
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
        config: quantization, recomputation, rank and sharding are read.
        tokens: of the row.
        answers: of its tokens, those that are learnt.
        gpu: None for this machine's CPU cores.
        processes: all of the run; the parts of a base that they share travel to each.
        machines: that they are spread over.
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
    computing += 2 * shape.vocabulary * shape.hidden * seconds_per_byte  # embeddings come first, when nothing else runs
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
    # Half a byte in, two out.
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

    Each sends and receives 2 (p - 1) / p of it. Source: Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce".
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
    """Forecast the seconds of a run: each step waits for the process with the most rows, all taken to be the mean row.

    Args:
        shape: the base model.
        config: as for `row_seconds`.
        row_sizes: tokens and answer tokens of each row of an epoch.
        rows_per_step: rows that one optimiser step sees.
        steps: optimiser steps of the run.
        gpu: None for this machine's CPU cores.
        processes: all of the run.
        machines: that they are spread over.
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

    Layers are gathered forward and backward (recomputed or not), embeddings and head once.
    Each process receives all parts but its own (arXiv:2304.11277, §3).
    """
    layers = shape.linear_parameters * (0.5 if config.holds_4bit_weights else 2) + 2 * shape.expert_parameters
    return 2 * layers + 2 * (shape.parameters - shape.linear_parameters - shape.expert_parameters)


def _link(gpu: GPU, *, over_network: bool) -> float:
    return NETWORK_BYTES_PER_SECOND if over_network else gpu.link_bytes_per_second
