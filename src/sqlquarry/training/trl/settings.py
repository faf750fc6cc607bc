"""Check the fields of SFTConfig that a user may set, and name the option to use for the others."""

from __future__ import annotations

import functools
import json
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import NoReturn

from sqlquarry.extras import has_trl
from sqlquarry.openmp import wait_passively
from sqlquarry.options import did_you_mean, type_problem

_PROMPT = "records are rendered and encoded by PromptFormatter, so that serving uses the same tokens"
_LOG = "every step is logged to training_log.jsonl"
_LOADER = (
    "the base model is loaded by our loader, with 4-bit weights stored as float32, because FSDP changes some values "
    "that are stored as bfloat16"
)
# Fields of SFTConfig that cannot be set -> what to do instead.
_OURS = {
    "output_dir": "give output_dir to train",
    "resume_from_checkpoint": "give checkpoint_dir to train, which resumes by itself",
    **{
        name: f"set TrainingConfig.{option}"
        for name, option in {
            "activation_checkpointing": "gradient_checkpointing",
            "data_seed": "seed",
            "fsdp": "sharding",
            "fsdp_config": "sharding and cpu_offload",
            "gradient_checkpointing": "gradient_checkpointing",
            "learning_rate": "learning_rate",
            "max_grad_norm": "max_grad_norm",
            "max_length": "max_length",
            "no_cuda": "device",
            "num_train_epochs": "num_train_epochs",
            "report_to": "report_to",
            "save_steps": "save_steps",
            "save_strategy": "save_steps or save_interval_s",
            "save_total_limit": "save_total_limit",
            "seed": "seed",
            "torch_compile": "torch_compile",
            "use_cpu": "device",
            "warmup_ratio": "warmup_ratio",
            "warmup_steps": "warmup_ratio",
        }.items()
    },
    **{
        name: f"leave it out: {reason}"
        for names, reason in (
            ("assistant_only_loss chat_template_path dataset_kwargs dataset_text_field eos_token pad_token", _PROMPT),
            ("remove_unused_columns truncation_mode", _PROMPT),
            ("disable_tqdm logging_first_step logging_nan_inf_filter logging_steps logging_strategy", _LOG),
            ("model_init_kwargs trust_remote_code", _LOADER),
            ("deepspeed parallelism_config", "processes train with FSDP"),
            ("fp16", "the base model is loaded as bfloat16 on CUDA and as float32 on a CPU"),
            ("push_to_hub", "the adapter is finished only when train returns. Push its directory afterwards"),
            ("save_only_model", "a run could not resume without the optimizer's state"),
        )
        for name in names.split()
    },
}
_CHOICES: Mapping[str, Collection[object]] = {
    "packing": (True, False),
    "packing_strategy": ("bfd", "bfd_split", "wrapped"),
    "completion_only_loss": (True, False, None),
    "eval_strategy": ("steps", "no"),  # "epoch" is the default
}
ROWS_PER_STEP = ("per_device_train_batch_size", "gradient_accumulation_steps")


class SFTFields(dict[str, object]):
    """The fields of SFTConfig in a `TrainingConfig`: a copy that cannot be changed."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("TrainingConfig.sft_config cannot be changed. Use dataclasses.replace.")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # a frozen dataclass hashes its fields
        return hash(json.dumps(self, sort_keys=True))

    def __reduce__(self) -> tuple[type[SFTFields], tuple[dict[str, object]]]:
        return SFTFields, (dict(self),)


def sft_problems(sft_config: Mapping[str, object], backend: str) -> Iterator[str]:
    """Yield what is wrong with the fields of SFTConfig that a user gave.

    Names are compared with the installed SFTConfig if TRL is installed.
    """
    if sft_config and backend != "trl":
        yield 'sft_config is only used with backend="trl"'
    known = _known_fields() if sft_config else {}
    for name, value in sft_config.items():
        if name in _OURS:
            yield f"sft_config has {name}. Instead, {_OURS[name]}"
        elif not isinstance(name, str) or (known and name not in known):
            yield f"sft_config has {name!r:.80}, which is not a field of SFTConfig{did_you_mean(str(name), known)}"
        elif not _is_json(value):
            yield f"sft_config has {name}={value!r:.80}, but must have JSON values"
        elif name in ROWS_PER_STEP and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            yield f"sft_config has {name}={value!r:.80}, but must have a whole number of at least 1"
        elif name in _CHOICES and value not in _CHOICES[name]:
            choices = ", ".join(map(repr, _CHOICES[name]))
            yield f"sft_config has {name}={value!r:.80}, but must have one of {choices}"
        elif known and (problem := type_problem(name, value, known[name])):
            yield f"sft_config: {problem}"


@functools.cache
def _known_fields() -> Mapping[str, object]:
    """Return the type of each field, or nothing if no usable TRL is installed, which `train` reports."""
    if not has_trl():
        return {}
    wait_passively()
    from trl import SFTConfig

    hints = typing.get_type_hints(SFTConfig)
    return {name: hints[name] for name, field in SFTConfig.__dataclass_fields__.items() if field.init}


def _is_json(value: object) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False
