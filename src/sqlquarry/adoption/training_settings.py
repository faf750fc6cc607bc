"""Find out whether an adapter was trained on 4-bit weights, from its files and from what the caller says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from sqlquarry.adoption.adapter_files import AdapterFiles
from sqlquarry.adoption.four_bit_recipe import FourBitSettings
from sqlquarry.errors import AdoptionError, ConfigError
from sqlquarry.files.metadata import JsonObject, read_bytes, read_object

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

Quantization: TypeAlias = "Literal['auto', 'nf4', 'fp4'] | Mapping[str, object] | BitsAndBytesConfig | None"

_QLORA: tuple[Literal["nf4", "fp4"], ...] = ("nf4", "fp4")
CHOICES = (
    "Pass quantization='nf4' for QLoRA with double quantization, quantization=None for training on 16-bit weights, or "
    "the BitsAndBytesConfig of the training"
)
_DYNAMIC = (
    "is one of Unsloth's dynamic 4-bit models, in which some modules stay in 16 bits. Pass the quantization_config in "
    "that model's config.json as quantization."
)
# The configuration that Axolotl writes into the model card (axolotl/train.py).
_AXOLOTL = re.compile(r"axolotl version:.*?```yaml\s(.*?)```", re.DOTALL)
_SCALAR = re.compile(r"""^(\w+):[ \t]*['"]?([^\s#'"]+)""", re.MULTILINE)
_TRUE = ("true", "yes", "on")
# Names of models with weights that are neither 16-bit nor bitsandbytes' 4-bit.
_OTHER_WEIGHTS = re.compile(r"\b(gptq|awq|aqlm|hqq|exl2|gguf|mlx|fp8|int[48]|bnb-8bit|8bit)\b")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one file says about the weights that an adapter was trained on.

    Args:
        source: the file and its setting, for messages.
        bits: 4 or 16, or None for other weights, such as those of 8 bits.
        settings: the 4-bit settings, or None if the file does not give them.
    """

    source: str
    bits: int | None
    settings: FourBitSettings | None = None


def detected(files: AdapterFiles) -> list[Evidence]:
    """Return everything that the files of an adapter say about 4-bit training.

    Raises:
        AdoptionError: a file cannot be read.
    """
    try:
        return [*_model_config(files), *_model_card(files), *_base_name(files.config)]
    except (OSError, ValueError) as error:
        raise AdoptionError(
            f"a file of the adapter in {files.directory} cannot be read ({error}). Download it again."
        ) from error


def _base_name(config: JsonObject) -> Iterator[Evidence]:
    name = str(config.get("base_model_name_or_path") or "").rstrip("/")
    source = f"base_model_name_or_path {name!r:.200}"
    if name.lower().endswith("-bnb-4bit"):
        # The models of this name on the hub are NF4 with double quantization. In Unsloth's dynamic kind, some modules
        # are 16-bit, and its config.json lists them.
        dynamic = name.lower().endswith("-unsloth-bnb-4bit")
        yield Evidence(source, 4, None if dynamic else FourBitSettings())
    elif _OTHER_WEIGHTS.search(name.rpartition("/")[2].lower()):
        yield Evidence(source, None)


def _model_config(files: AdapterFiles) -> Iterator[Evidence]:
    path = files.directory / "config.json"
    content = read_object(path) if path.is_file() else {}
    settings = content.get("quantization_config")
    if isinstance(settings, dict):
        source = "quantization_config in config.json"
        if settings.get("load_in_8bit") or settings.get("quant_method", "bitsandbytes") != "bitsandbytes":
            yield Evidence(source, None)
        else:
            dtype = content.get("dtype", content.get("torch_dtype"))
            yield Evidence(
                source, 4, FourBitSettings.of(settings, load_dtype=dtype if isinstance(dtype, str) else None)
            )


def _model_card(files: AdapterFiles) -> Iterator[Evidence]:
    path = files.directory / "README.md"
    match = _AXOLOTL.search(read_bytes(path).decode(errors="replace")) if path.is_file() else None
    if match is None:
        return
    values = {key: value.lower() for key, value in _SCALAR.findall(match[1])}
    adapter = values.get("adapter")
    source = f"Axolotl's configuration in README.md (adapter: {adapter})"
    if adapter == "qlora" or values.get("load_in_4bit") in _TRUE:
        yield Evidence(source, 4, FourBitSettings())
    elif adapter == "lora":
        yield Evidence(source, None if any(values.get(key) in _TRUE for key in ("load_in_8bit", "gptq")) else 16)


def decide(quantization: Quantization, evidence: list[Evidence]) -> FourBitSettings | None:
    """Return the 4-bit settings of the training, or None for training on 16-bit weights.

    Args:
        quantization: the argument of `adopt_adapter`.
        evidence: what the files say.

    Raises:
        ConfigError: nobody says how the adapter was trained, or the caller and the files contradict each other.
    """
    if isinstance(quantization, str) and quantization == "auto":
        return _from_files(evidence)
    stated = _stated(quantization)
    for one in evidence:
        if reason := _contradiction(stated, one, quantization):
            raise ConfigError(f"quantization is {quantization!r:.200}, but {one.source} {reason}")
    # The files may also know the dtype in which the weights were loaded.
    known = next((one.settings for one in evidence if one.settings), None)
    return known if isinstance(quantization, str) and known else stated


def _from_files(evidence: list[Evidence]) -> FourBitSettings | None:
    if not evidence:
        raise ConfigError(
            "the adapter's files do not say whether it was trained on 4-bit weights, and a merge into the wrong "
            f"weights gives another model. {CHOICES}."
        )
    first = next((one for one in evidence if one.settings), evidence[0])
    for one in evidence:
        if one.bits is None:
            raise ConfigError(
                f"{one.source} means {_weights(one)}, which cannot be computed again. To merge into the 16-bit "
                "originals, which is close for 8 bits, pass quantization=None."
            )
        if one.bits != first.bits:
            raise ConfigError(
                f"{first.source} means {_weights(first)}, but {one.source} means {_weights(one)}. {CHOICES}."
            )
    if first.bits == 4 and first.settings is None:
        raise ConfigError(f"{first.source} {_DYNAMIC}")
    return first.settings


def _stated(quantization: Quantization) -> FourBitSettings | None:
    if quantization is None:
        return None
    if isinstance(quantization, str):
        if (kind := next((one for one in _QLORA if one == quantization), None)) is not None:
            return FourBitSettings(quant_type=kind)
        raise ConfigError(f"quantization is {quantization!r:.80}, but must be 'auto', 'nf4', 'fp4' or None. {CHOICES}.")
    if not isinstance(quantization, Mapping):
        to_dict = getattr(quantization, "to_dict", None)
        if to_dict is None or isinstance(quantization, type):
            raise ConfigError(f"quantization is {quantization!r:.80}. {CHOICES}.")
        quantization = dict(to_dict())
    return FourBitSettings.of(quantization)


def _contradiction(stated: FourBitSettings | None, found: Evidence, quantization: Quantization) -> str | None:
    """Return how the caller and a file contradict each other, or None if they do not."""
    if stated is None:
        return f"means {_weights(found)}. {CHOICES}." if found.bits == 4 else None
    if found.bits != 4:
        return f"means {_weights(found)}. {CHOICES}."
    if found.settings is None:
        return _DYNAMIC if isinstance(quantization, str) else None
    if differences := stated.differences(found.settings):
        return f"says otherwise: {differences}. Leave quantization out, or correct it."
    return None


def _weights(found: Evidence) -> str:
    return f"{found.bits}-bit weights" if found.bits else "weights of neither 4 nor 16 bits"
