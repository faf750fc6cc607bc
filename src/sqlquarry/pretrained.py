"""Load tokenizers and causal language models with transformers, quietly and with one error class."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.checkpoints.model_files import weight_files
from sqlquarry.checkpoints.safetensors_header import read_header
from sqlquarry.errors import ConfigError, DeviceError, UnsupportedModelError
from sqlquarry.quantization import QuantizationRecipe, keep_trainable_on_cpu
from sqlquarry.text import make_handlers_visible, visible

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_NEEDS = "config.json, a tokenizer and complete safetensors files of the same model"


def pick_device(device: str) -> str:
    """Resolve "auto", and refuse "cuda" if there is no GPU.

    Raises:
        DeviceError: the device is "cuda", but torch sees no CUDA device.
        ConfigError: the device is unknown.
    """
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"unknown device {device!r}. Use 'auto', 'cpu' or 'cuda'.")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"device='cuda', but torch {torch.__version__} sees no CUDA device here. "
            "Use device='cpu', or install a CUDA build of torch on a machine with a GPU."
        )
    return device


def compute_dtype(device: str) -> torch.dtype:
    """Return the dtype to compute in: bfloat16 on CUDA, and float32 on CPUs, most of which are slow in bfloat16."""
    import torch

    return torch.float32 if device == "cpu" else torch.bfloat16


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """Load a model's tokenizer.

    Raises:
        UnsupportedModelError: a file is missing or malformed.
    """
    from transformers import AutoTokenizer

    with reading_model(directory, "a valid tokenizer.json, tokenizer_config.json, chat_template.jinja and config.json"):
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)


def check_config(directory: Path) -> None:
    """Check a config.json quickly, by building one layer of the model without weights.

    Raises:
        UnsupportedModelError: transformers cannot use a value in config.json.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"), reading_model(directory, "a valid config.json"):
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        config.num_hidden_layers = 1
        AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def load_causal_lm(
    directory: Path, device: str, recipe: QuantizationRecipe | None = None, *, attention: str = "sdpa"
) -> PreTrainedModel:
    """Load a causal language model onto `device`. If there is a recipe, quantize its linear layers to 4 bits.

    Args:
        directory: directory with config.json and safetensors.
        device: "cpu", "cuda" or "cuda:<n>".
        recipe: how to quantize the weights. None does not quantize them.
        attention: transformers' name of the attention to use.

    Raises:
        UnsupportedModelError: a file is missing or malformed, or the weights are not safetensors.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = compute_dtype(torch.device(device).type)
    # Without use_safetensors, transformers would unpickle .bin files in a folder without safetensors.
    options: dict[str, object] = {"dtype": dtype, "device_map": {"": device}, "attn_implementation": attention}
    options["use_safetensors"] = True
    if recipe:
        options["dtype"] = getattr(torch, recipe.load_dtype)
        options["quantization_config"] = recipe.transformers_config(dtype, _in_16_bits(directory, recipe))
    with reading_model(directory):
        model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=False, **options)
    if model.config.tie_word_embeddings:
        # transformers 5 keeps a separate head if the files contain one. The servers of merged models do not.
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    return keep_trainable_on_cpu(model) if recipe else model


def _in_16_bits(directory: Path, recipe: QuantizationRecipe) -> list[str] | None:
    """Return the modules that a recipe leaves in 16 bits, or None if the recipe does not list the 4-bit modules yet."""
    if not recipe.modules:
        return None
    tensors = {name: one for path in weight_files(directory) for name, one in read_header(path).tensors.items()}
    names = {
        name.removesuffix(".weight")
        for name, one in tensors.items()
        if name.endswith(".weight") and len(one.shape) == 2
    }
    return sorted({*names, "lm_head"} - {*recipe.modules})  # a tied head is not in the files


@contextlib.contextmanager
def reading_model(directory: Path, needs: str = _NEEDS) -> Iterator[None]:
    """Read a model's files quietly in the block, and convert all errors of transformers and PEFT to one class.

    Args:
        directory: the model's directory.
        needs: the files that are read, for the message.

    Raises:
        UnsupportedModelError: any error in the block, except lack of memory and failures of the device.
    """
    import torch

    try:
        with quiet_transformers():
            yield
    except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:  # malformed values raise KeyError, TypeError, RuntimeError and even Exception itself
        # A traceback also shows this error, which may contain names of tensors from the files.
        error.args = tuple(visible(part) if isinstance(part, str) else part for part in error.args)
        raise UnsupportedModelError(
            f"the model in {directory} cannot be loaded ({type(error).__name__}: {error}). It needs {needs}."
        ) from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Switch off transformers' progress bars and future warnings, which users cannot act on.

    In its other messages, control characters are made visible, because they contain text from the model's files.
    """
    from transformers.utils import logging

    make_handlers_visible(logging.get_logger().name)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if bars:
            logging.enable_progress_bar()
