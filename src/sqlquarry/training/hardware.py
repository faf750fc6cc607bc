"""GPUs and SageMaker instances: what a forecast has to know of them.

Sources: NVIDIA's data sheets (dense bf16 tensor rate, memory bandwidth); memory as torch reports it, in GiB. Rates
between the GPUs of one machine are rounded estimates: NVLink where there is one, else PCIe 4; H200's was measured with
NCCL (two GPUs, benchmarks/scaling.py, 2026-11-29), and H100 has the same links.

Prices are of a SageMaker training job in us-east-1, on demand, an instance and hour, put together on 2026-07-02 from
public copies of the price list (https://aws.amazon.com/sagemaker/ai/pricing). Nobody here has asked AWS: they are for
orientation, and `price_per_hour` overrides them. None means that no price was found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlquarry.errors import ConfigError

PRICE_NOTE = "on demand, us-east-1, public price lists of 2026-07-02, not verified with AWS"
# Between machines: the 40 Gb/s of ml.g5.12xlarge. Larger instances have more, smaller ones less.
NETWORK_BYTES_PER_SECOND = 5e9
HOST_BYTES_PER_SECOND = 20e9  # from a machine's memory to one of its GPUs: PCIe 4, rounded; not measured
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class GPU:
    """One kind of accelerator.

    Args:
        name: as torch reports it, or the part of that name which tells it apart.
        bf16_flops: dense bf16 multiply-adds as FLOP a second, by the data sheet.
        bytes_per_second: memory bandwidth.
        memory_bytes: what torch can use.
        link_bytes_per_second: what one GPU receives from the others of its machine.
        has_bf16: whether it computes in bfloat16 at all.
    """

    name: str
    bf16_flops: float
    bytes_per_second: float
    memory_bytes: int
    link_bytes_per_second: float
    has_bf16: bool = True


@dataclass(frozen=True, slots=True)
class Instance:
    """One SageMaker instance type: its GPUs and its price in dollars an hour, None where none is known."""

    gpu: GPU
    gpus: int
    vcpus: int
    price_per_hour: float | None


T4 = GPU("T4", 65e12, 320e9, int(14.6 * _GIB), 10e9, has_bf16=False)
A10G = GPU("A10G", 70e12, 600e9, int(22.1 * _GIB), 10e9)
L4 = GPU("L4", 121e12, 300e9, int(22.0 * _GIB), 10e9)
L40S = GPU("L40S", 362e12, 864e9, int(44.4 * _GIB), 20e9)
A100_40 = GPU("A100-SXM4-40GB", 312e12, 1555e9, int(39.4 * _GIB), 250e9)
A100_80 = GPU("A100-SXM4-80GB", 312e12, 2039e9, int(79.2 * _GIB), 250e9)
H100 = GPU("H100", 989e12, 3350e9, int(79.2 * _GIB), 270e9)
H200 = GPU("H200", 989e12, 4800e9, int(139.8 * _GIB), 270e9)
B200 = GPU("B200", 2250e12, 8000e9, int(178.0 * _GIB), 700e9)
GPUS = (A100_40, A100_80, L40S, A10G, H100, H200, B200, L4, T4)

INSTANCES = {
    "ml.g4dn.xlarge": Instance(T4, 1, 4, 0.7364),
    "ml.g4dn.12xlarge": Instance(T4, 4, 48, 4.89),
    "ml.g5.xlarge": Instance(A10G, 1, 4, 1.41),
    "ml.g5.2xlarge": Instance(A10G, 1, 8, 1.52),
    "ml.g5.4xlarge": Instance(A10G, 1, 16, 2.03),
    "ml.g5.8xlarge": Instance(A10G, 1, 32, 3.06),
    "ml.g5.12xlarge": Instance(A10G, 4, 48, 7.09),
    "ml.g5.24xlarge": Instance(A10G, 4, 96, 10.18),
    "ml.g5.48xlarge": Instance(A10G, 8, 192, 20.36),
    "ml.g6.xlarge": Instance(L4, 1, 4, 1.127),
    "ml.g6.2xlarge": Instance(L4, 1, 8, 1.222),
    "ml.g6.4xlarge": Instance(L4, 1, 16, 1.654),
    "ml.g6.12xlarge": Instance(L4, 4, 48, 5.752),
    "ml.g6.24xlarge": Instance(L4, 4, 96, 8.344),
    "ml.g6.48xlarge": Instance(L4, 8, 192, 16.688),
    "ml.g6e.2xlarge": Instance(L40S, 1, 8, 2.80),
    "ml.g6e.4xlarge": Instance(L40S, 1, 16, 3.76),
    "ml.g6e.8xlarge": Instance(L40S, 1, 32, 5.66),
    "ml.g6e.12xlarge": Instance(L40S, 4, 48, 13.10),
    "ml.p4d.24xlarge": Instance(A100_40, 8, 96, 25.25),
    "ml.p4de.24xlarge": Instance(A100_80, 8, 96, None),
    "ml.p5.48xlarge": Instance(H100, 8, 192, 63.30),
    "ml.p5en.48xlarge": Instance(H200, 8, 192, None),
    "ml.p6-b200.48xlarge": Instance(B200, 8, 192, None),
}


def gpu_named(name: str) -> GPU | None:
    """The GPU whose name stands in `name` (``torch.cuda.get_device_name()`` or a user's word); None if unknown."""
    words = ((gpu, rf"(?<![a-z0-9]){gpu.name.lower()}(?![a-z0-9])") for gpu in GPUS)
    return next((gpu for gpu, word in words if re.search(word, name.lower())), None)


def instance_named(instance_type: str) -> Instance:
    """The SageMaker instance of this type.

    Raises:
        ConfigError: it is not in the table.
    """
    if instance_type not in INSTANCES:
        raise ConfigError(
            f"instance_type {instance_type!r} is not known here. Known: {', '.join(INSTANCES)}. "
            "For another, give gpu=, processes= and price_per_hour= instead."
        )
    return INSTANCES[instance_type]
