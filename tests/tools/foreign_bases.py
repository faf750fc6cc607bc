"""Share the base models, the two training steps and the manifest between the scripts that make foreign adapters."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "TRACKIO_DISABLED": "1", "AXOLOTL_DO_NOT_TRACK": "1"}
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from conftest import tiny_tokenizer, toy_examples

logging.disable_progress_bar()
FAMILIES = {"llama": False, "qwen2": True, "qwen3": True, "mistral": False}  # name -> whether the head is tied
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
INPUT_IDS = [1, *range(40, 70), 2]
ADDED = ["<schema>", "</schema>", "<sql>"]
RECORDS = list(toy_examples(8))
LORA: dict[str, Any] = {"r": 4, "lora_alpha": 16, "target_modules": PROJECTIONS, "task_type": "CAUSAL_LM"}


def make_bases(bases: Path) -> None:
    for family, tied in FAMILIES.items():
        tokenizer = tiny_tokenizer()
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            family,
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            num_hidden_layers=2,
            max_position_embeddings=2048,
            initializer_range=0.1,
            tie_word_embeddings=tied,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zeros would hide a lost bias
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(bases / family)
        tokenizer.save_pretrained(bases / family)


def nf4() -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_storage=torch.bfloat16,
    )


def load(base: Path | str, *, four_bit: bool = False) -> Any:
    if not four_bit:
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, quantization_config=nf4())
    return on_cpu(model)


def on_cpu(model: Any) -> Any:
    """Choose the 4-bit kernel that needs nothing from a hub."""
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return model


def two_steps(model: Any) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.02)
    for step in range(2):
        ids = torch.tensor([INPUT_IDS, [*reversed(INPUT_IDS)]]) + step
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


class Kept:
    """The folder that the adapters go to, and the manifest's entries of this run."""

    def __init__(self, root: Path, wanted: str) -> None:
        self.root, self.wanted = root, wanted
        self.entries: dict[str, Any] = {}

    def new(self, tool: str, family: str, variant: str, **facts: Any) -> Path | None:
        """Return an empty folder for an adapter, or None if it is not wanted."""
        name = f"{tool}-{family}-{variant}"
        if self.wanted not in variant:
            return None
        folder = self.root / "adapters" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.entries[name] = {"tool": tool, "family": family, "variant": variant, "four_bit": False, **facts}
        return folder

    def attempt(self, tool: str, family: str, variant: str, make: Callable[[Path], Any], **facts: Any) -> None:
        """Make an adapter; a tool that cannot is recorded with its error."""
        if (folder := self.new(tool, family, variant, **facts)) is None:
            return
        try:
            if (model := make(folder)) is not None:
                np.save(self.root / "logits" / f"{folder.name}-live.npy", logits(model))
        except Exception as error:  # noqa: BLE001 - recorded
            shutil.rmtree(folder)
            self.entries[f"{tool}-{family}-{variant}"]["error"] = f"{type(error).__name__}: {error}"[:300]
            print("FAILED", tool, family, variant, repr(error)[:300])

    def write(self) -> None:
        path = self.root / "MANIFEST.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(known | self.entries, indent=1))


def added_tokens(model: Any, tokenizer: Any, multiple: int | None = None) -> list[int]:
    tokenizer.add_tokens(ADDED, special_tokens=True)
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=multiple)
    return [int(index) for index in tokenizer.convert_tokens_to_ids(ADDED)]


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([INPUT_IDS])).logits[0].float().numpy()
