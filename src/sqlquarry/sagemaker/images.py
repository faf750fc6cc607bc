"""Choose the AWS Deep Learning Container for a job.

The job installs every package except torch, because the image's torch was built for its CUDA version.

Source: "Available images", aws.github.io/deep-learning-containers/reference/available_images, as generated from
docs/src/data/{huggingface-pytorch-training,pytorch-training}/*-sagemaker.yml of github.com/aws/deep-learning-containers
(November 2026). The accounts are those in sagemaker-core's image_uri_config.
"""

from __future__ import annotations

import importlib.metadata
import re
from typing import Literal, NamedTuple

from sqlquarry.errors import ConfigError

_ACCOUNT = "763104351884"
_OTHER_ACCOUNTS = {
    "af-south-1": "626614931356",
    "ap-east-1": "871362719292",
    "ap-east-2": "975050140332",
    "ap-northeast-3": "364406365360",
    "ap-south-2": "772153158452",
    "ap-southeast-3": "907027046896",
    "ap-southeast-4": "457447274322",
    "ap-southeast-5": "550225433462",
    "ap-southeast-7": "590183813437",
    "ca-west-1": "204538143572",
    "cn-north-1": "727897471807",
    "cn-northwest-1": "727897471807",
    "eu-central-2": "380420809688",
    "eu-south-1": "692866216735",
    "eu-south-2": "503227376785",
    "il-central-1": "780543022126",
    "me-central-1": "914824155844",
    "me-south-1": "217643126080",
    "mx-central-1": "637423239942",
    "us-gov-east-1": "446045086412",
    "us-gov-west-1": "442386744353",
}


class Image(NamedTuple):
    """An image with its versions of torch and transformers, its processor and its name."""

    torch: str
    transformers: str | None
    processor: Literal["cpu", "gpu"]
    name: str


# Newest first.
IMAGES = (
    Image("2.11", "5.13", "gpu", "huggingface-pytorch-training:2.11-transformers5.13-cu130-amzn2023-sagemaker"),
    Image("2.10", None, "gpu", "pytorch-training:2.10.0-gpu-py313-cu130-ubuntu22.04-sagemaker"),
    Image("2.9", "5.3", "gpu", "huggingface-pytorch-training:2.9.0-transformers5.3.0-gpu-py312-cu130-ubuntu22.04"),
    Image("2.10", None, "cpu", "pytorch-training:2.10.0-cpu-py313-ubuntu22.04-sagemaker"),
)


def image_for(region: str, processor: Literal["cpu", "gpu"]) -> str:
    """Return the URI of the newest known image that fits the installed torch and transformers.

    Raises:
        ConfigError: every known image has a newer torch.
    """
    torch, transformers = (importlib.metadata.version(name) for name in ("torch", "transformers"))
    return training_image(region, torch=torch, transformers=transformers, processor=processor)


def training_image(region: str, *, torch: str, transformers: str, processor: Literal["cpu", "gpu"]) -> str:
    """Return the URI of the newest known image whose torch is not newer than `torch`.

    Among images with the same torch, an image whose transformers is not newer either is preferred, because the job then
    installs less.

    Args:
        region: the job's region, from which images are pulled.
        torch: the local version of torch, such as "2.13.0+cpu".
        transformers: the local version of transformers.
        processor: the processor that the instance computes on.

    Raises:
        ConfigError: every known image has a newer torch.
    """
    fitting = [image for image in IMAGES if image.processor == processor and _number(image.torch) <= _number(torch)]
    if not fitting:
        known = ", ".join(image.torch for image in IMAGES if image.processor == processor)
        raise ConfigError(
            f"no {processor} image is known for torch {torch} (known: {known}). Pass the URI of an image to "
            "SageMakerLauncher(image=…), or install a newer torch on this machine."
        )

    def rank(image: Image) -> tuple[tuple[int, ...], bool]:
        ready = image.transformers is not None and _number(image.transformers) <= _number(transformers)
        return _number(image.torch), ready

    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"{_OTHER_ACCOUNTS.get(region, _ACCOUNT)}.dkr.ecr.{region}.{domain}/{max(fitting, key=rank).name}"


def _number(version: str) -> tuple[int, ...]:
    """Return major and minor version, because an image with 2.11.0 also fits a local 2.11.1."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
