"""The figures of GPUs and SageMaker instances that a forecast needs.

Sources: NVIDIA's data sheets (dense bf16 tensor rate, memory bandwidth). Memory is in GiB as torch reports it. Rates
between the GPUs of one machine are rounded estimates for NVLink, or for PCIe 4 if there is no NVLink. The rate of H200
was measured with NCCL (two GPUs, benchmarks/scaling.py, 2026-11-29), and H100 has the same links.

Prices are US dollars per instance and hour for an on-demand SageMaker training job in us-east-1. They were collected on
2026-07-02 from public copies of the price list (https://aws.amazon.com/sagemaker/ai/pricing) and not verified with AWS,
so they are for orientation only. `usd_per_hour` overrides them. None means that no price was found.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from sqlquarry.errors import ConfigError

PRICE_NOTE = "on demand, us-east-1, public price lists of 2026-07-02, not verified with AWS"
# Rate between machines: 40 Gb/s, as ml.g5.12xlarge has. Larger instances have more, smaller ones less.
NETWORK_BYTES_PER_SECOND = 5e9
HOST_BYTES_PER_SECOND = 20e9  # from a machine's memory to one of its GPUs over PCIe 4, rounded and not measured
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class GPU:
    """One kind of accelerator.

    Args:
        name: the name that torch reports, or the part of it that identifies the GPU.
        bf16_flops: dense bf16 FLOP per second, from the data sheet.
        bytes_per_second: memory bandwidth.
        memory_bytes: memory that torch can use.
        link_bytes_per_second: rate at which one GPU receives data from the others of its machine.
        has_bf16: whether the GPU computes in bfloat16.
    """

    name: str
    bf16_flops: float
    bytes_per_second: float
    memory_bytes: int
    link_bytes_per_second: float
    has_bf16: bool = True


@dataclass(frozen=True, slots=True)
class Instance:
    """The GPUs, memory and price (US dollars per hour, None if unknown) of one SageMaker instance type."""

    gpu: GPU
    gpus: int
    memory_gib: int
    usd_per_hour: float | None


K80 = GPU("K80", 4e12, 240e9, int(11.2 * _GIB), 10e9, has_bf16=False)
V100_16 = GPU("V100-SXM2-16GB", 125e12, 900e9, int(15.8 * _GIB), 130e9, has_bf16=False)
V100_32 = GPU("V100-SXM2-32GB", 125e12, 900e9, int(31.7 * _GIB), 130e9, has_bf16=False)
T4 = GPU("T4", 65e12, 320e9, int(14.6 * _GIB), 10e9, has_bf16=False)
A10G = GPU("A10G", 70e12, 600e9, int(22.1 * _GIB), 10e9)
L4 = GPU("L4", 121e12, 300e9, int(22.0 * _GIB), 10e9)
L40S = GPU("L40S", 362e12, 864e9, int(44.4 * _GIB), 20e9)
A100_40 = GPU("A100-SXM4-40GB", 312e12, 1555e9, int(39.4 * _GIB), 250e9)
A100_80 = GPU("A100-SXM4-80GB", 312e12, 2039e9, int(79.2 * _GIB), 250e9)
H100 = GPU("H100", 989e12, 3350e9, int(79.2 * _GIB), 270e9)
H200 = GPU("H200", 989e12, 4800e9, int(139.8 * _GIB), 270e9)
B200 = GPU("B200", 2250e12, 8000e9, int(178.0 * _GIB), 700e9)
GPUS = (A100_40, A100_80, L40S, A10G, H100, H200, B200, L4, T4, V100_16, V100_32, K80)

# The memory is from AWS's pages of instance types (https://aws.amazon.com/ec2/instance-types).
INSTANCES = {
    "ml.p2.xlarge": Instance(K80, 1, 61, None),
    "ml.p2.8xlarge": Instance(K80, 8, 488, None),
    "ml.p2.16xlarge": Instance(K80, 16, 732, None),
    "ml.p3.2xlarge": Instance(V100_16, 1, 61, None),
    "ml.p3.8xlarge": Instance(V100_16, 4, 244, None),
    "ml.p3.16xlarge": Instance(V100_16, 8, 488, None),
    "ml.p3dn.24xlarge": Instance(V100_32, 8, 768, None),
    "ml.g4dn.xlarge": Instance(T4, 1, 16, 0.7364),
    "ml.g4dn.2xlarge": Instance(T4, 1, 32, None),
    "ml.g4dn.4xlarge": Instance(T4, 1, 64, None),
    "ml.g4dn.8xlarge": Instance(T4, 1, 128, None),
    "ml.g4dn.12xlarge": Instance(T4, 4, 192, 4.89),
    "ml.g4dn.16xlarge": Instance(T4, 1, 256, None),
    "ml.g5.xlarge": Instance(A10G, 1, 16, 1.41),
    "ml.g5.2xlarge": Instance(A10G, 1, 32, 1.52),
    "ml.g5.4xlarge": Instance(A10G, 1, 64, 2.03),
    "ml.g5.8xlarge": Instance(A10G, 1, 128, 3.06),
    "ml.g5.16xlarge": Instance(A10G, 1, 256, None),
    "ml.g5.12xlarge": Instance(A10G, 4, 192, 7.09),
    "ml.g5.24xlarge": Instance(A10G, 4, 384, 10.18),
    "ml.g5.48xlarge": Instance(A10G, 8, 768, 20.36),
    "ml.g6.xlarge": Instance(L4, 1, 16, 1.127),
    "ml.g6.2xlarge": Instance(L4, 1, 32, 1.222),
    "ml.g6.4xlarge": Instance(L4, 1, 64, 1.654),
    "ml.g6.8xlarge": Instance(L4, 1, 128, None),
    "ml.g6.16xlarge": Instance(L4, 1, 256, None),
    "ml.g6.12xlarge": Instance(L4, 4, 192, 5.752),
    "ml.g6.24xlarge": Instance(L4, 4, 384, 8.344),
    "ml.g6.48xlarge": Instance(L4, 8, 768, 16.688),
    "ml.g6e.xlarge": Instance(L40S, 1, 32, None),
    "ml.g6e.2xlarge": Instance(L40S, 1, 64, 2.80),
    "ml.g6e.4xlarge": Instance(L40S, 1, 128, 3.76),
    "ml.g6e.8xlarge": Instance(L40S, 1, 256, 5.66),
    "ml.g6e.16xlarge": Instance(L40S, 1, 512, None),
    "ml.g6e.12xlarge": Instance(L40S, 4, 384, 13.10),
    "ml.g6e.24xlarge": Instance(L40S, 4, 768, None),
    "ml.g6e.48xlarge": Instance(L40S, 8, 1536, None),
    "ml.p4d.24xlarge": Instance(A100_40, 8, 1152, 25.25),
    "ml.p4de.24xlarge": Instance(A100_80, 8, 1152, None),
    "ml.p5.4xlarge": Instance(H100, 1, 256, None),
    "ml.p5.48xlarge": Instance(H100, 8, 2048, 63.30),
    "ml.p5e.48xlarge": Instance(H200, 8, 2048, None),
    "ml.p5en.48xlarge": Instance(H200, 8, 2048, None),
    "ml.p6-b200.48xlarge": Instance(B200, 8, 2048, None),
}


def gpu_named(name: str) -> GPU | None:
    """Return the GPU of this name (``torch.cuda.get_device_name()`` or a user's input), or None if it is unknown."""
    words = ((gpu, rf"(?<![a-z0-9]){gpu.name.lower()}(?![a-z0-9])") for gpu in GPUS)
    return next((gpu for gpu, word in words if re.search(word, name.lower())), None)


def instance_named(instance_type: str) -> Instance:
    """Return the SageMaker instance of this type.

    Raises:
        ConfigError: the type is not in the table. The message lists similar types.
    """
    if instance_type not in INSTANCES:
        near = difflib.get_close_matches(instance_type, INSTANCES, n=3) or list(INSTANCES)
        raise ConfigError(
            f"unknown instance_type {instance_type!r}. Did you mean {', '.join(near)}? "
            "For a type that is not in the table, use gpu=, processes= and usd_per_hour= instead."
        )
    return INSTANCES[instance_type]
