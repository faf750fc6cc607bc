"""Make adapters with TRL, LLaMA-Factory, Axolotl, and in Unsloth's shape: see foreign_adapters.py."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from foreign_bases import ADDED, FAMILIES, LORA, PROJECTIONS, RECORDS, Kept, added_tokens, load, nf4, on_cpu, two_steps
from transformers import AutoTokenizer


def messages() -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"{example['schema']}\n{example['question']}"},
                {"role": "assistant", "content": example["sql"]},
            ]
        }
        for example in RECORDS
    ]


def make_trl(kept: Kept, bases: Path) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    def make(folder: Path, family: str, variant: str) -> Any:
        args: dict[str, Any] = {"bf16": True, "model_init_kwargs": {"dtype": torch.bfloat16}}
        if variant != "4bit":
            args = {"bf16": False, "model_init_kwargs": {"dtype": torch.float32}}
        if variant == "chat-template":  # adds the other tokenizer's tokens, and pads the vocabulary to 64
            other = AutoTokenizer.from_pretrained(bases / family)
            other.add_tokens(ADDED, special_tokens=True)
            other.save_pretrained(folder.parent / "other")
            args["chat_template_path"] = str(folder.parent / "other")
        config = {"dora": {"use_dora": True}, "embeddings": {"modules_to_save": ["embed_tokens", "lm_head"]}}
        torch.manual_seed(1)
        trainer = SFTTrainer(
            model=str(bases / family),
            args=SFTConfig(
                str(folder),
                use_cpu=True,
                max_steps=2,
                save_steps=1,
                learning_rate=0.02,
                per_device_train_batch_size=2,
                report_to=[],
                packing=variant == "4bit",
                max_length=256,
                **args,
            ),
            train_dataset=Dataset.from_list(messages()),
            peft_config=LoraConfig(**LORA | config.get(variant, {})),
            **({"quantization_config": nf4()} if variant == "4bit" else {}),
        )
        if variant == "4bit":
            on_cpu(trainer.model)
        trainer.train()
        trainer.save_model()
        shutil.rmtree(folder.parent / "other", ignore_errors=True)
        return trainer.model

    for family in FAMILIES:
        for variant in ("lora", "4bit", "chat-template", "dora", "embeddings"):
            if variant in ("lora", "4bit", "chat-template") or family in ("llama", "qwen2"):
                facts = {"trl": version("trl"), "peft": version("peft"), "four_bit": variant == "4bit"}
                kept.attempt("trl", family, variant, lambda to, f=family, v=variant: make(to, f, v), **facts)


def four_bit_kernel_from_here() -> None:
    """Choose the 4-bit kernel that needs nothing from a hub, for models that a tool loads itself."""
    import bitsandbytes

    stock = bitsandbytes.nn.Linear4bit.forward

    def forward(self: Any, x: Any) -> Any:
        self.support_avx512bf16_for_cpu = False
        return stock(self, x)

    bitsandbytes.nn.Linear4bit.forward = forward


def make_llamafactory(kept: Kept, bases: Path) -> None:
    from llamafactory.train.tuner import run_exp

    four_bit_kernel_from_here()
    data = kept.root.resolve() / "llamafactory-data"
    data.mkdir(exist_ok=True)
    rows = [{"instruction": e["question"], "input": e["schema"], "output": e["sql"]} for e in RECORDS]
    (data / "toy.json").write_text(json.dumps(rows))
    (data / "dataset_info.json").write_text(json.dumps({"toy": {"file_name": "toy.json"}}))
    options: dict[str, dict[str, Any]] = {
        "lora": {},
        "4bit": {"quantization_bit": 4},
        "resized": {"add_special_tokens": ",".join(ADDED), "resize_vocab": True},
        "dora-rslora": {"use_dora": True, "use_rslora": True},
        "pissa-converted": {"pissa_init": True, "pissa_convert": True},
    }
    # "llama3" adds its own end tokens to a tokenizer without them, and nothing resizes the model then.
    templates = {"llama": "chatml", "qwen2": "qwen", "qwen3": "qwen3", "mistral": "mistral"}

    def make(folder: Path, family: str, changes: dict[str, Any]) -> None:
        torch.manual_seed(1)
        shared = {
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": str(bases / family),
            "template": templates[family],
            "finetuning_type": "lora",
            "lora_target": "all",
            "lora_rank": 4,
            "dataset": "toy",
            "dataset_dir": str(data),
            "output_dir": str(folder),
            "cutoff_len": 256,
            "max_steps": 2,
            "save_steps": 1,
            "logging_steps": 1,
            "learning_rate": 0.02,
            "per_device_train_batch_size": 2,
            "report_to": "none",
            "overwrite_cache": True,
            "use_cpu": True,
            "bf16": True,
        }
        run_exp(shared | changes)

    for family in FAMILIES:
        for variant, changes in options.items():
            if variant in ("lora", "4bit", "resized") or family == "llama":
                facts = {"llamafactory": version("llamafactory"), "peft": version("peft")}
                facts["four_bit"] = variant == "4bit"
                kept.attempt("llamafactory", family, variant, lambda to, f=family, c=changes: make(to, f, c), **facts)


def make_axolotl(kept: Kept, bases: Path) -> None:
    import yaml
    from axolotl.cli.train import do_cli
    from transformers import modelcard

    comment = modelcard.AUTOGENERATED_TRAINER_COMMENT
    four_bit_kernel_from_here()
    data = kept.root.resolve() / "axolotl.jsonl"
    data.write_text("\n".join(map(json.dumps, messages())))
    both = ["embed_tokens", "lm_head"]
    options: dict[str, dict[str, Any]] = {
        "lora": {},
        "4bit": {"adapter": "qlora", "load_in_4bit": True},
        "added": {"tokens": ADDED, "lora_modules_to_save": both, "resize_token_embeddings_to_32x": True},
        "dora": {"peft_use_dora": True},
    }

    def make(folder: Path, family: str, changes: dict[str, Any]) -> None:
        shared = {
            "base_model": str(bases / family),
            "adapter": "lora",
            "lora_r": 4,
            "lora_alpha": 16,
            "lora_target_linear": True,
            "datasets": [{"path": str(data), "type": "chat_template", "ds_type": "json"}],
            "dataset_prepared_path": str(kept.root.resolve() / "axolotl-prepared"),
            "output_dir": str(folder),
            "sequence_len": 256,
            "max_steps": 2,
            "save_steps": 1,
            "learning_rate": 0.02,
            "micro_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "optimizer": "adamw_torch",
            "attn_implementation": "eager",
            "bf16": False,
            **dict.fromkeys(("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel"), False),  # these need CUDA
        }
        modelcard.AUTOGENERATED_TRAINER_COMMENT = comment  # Axolotl appends its configuration to it
        config = kept.root / "axolotl.yaml"
        config.write_text(yaml.safe_dump(shared | changes))
        sys.argv = ["axolotl"]
        do_cli(str(config))

    for family in FAMILIES:
        for variant, changes in options.items():
            if variant in ("lora", "4bit", "added") or family == "llama":
                facts = {"axolotl": version("axolotl"), "peft": version("peft"), "four_bit": variant == "4bit"}
                kept.attempt("axolotl", family, variant, lambda to, f=family, c=changes: make(to, f, c), **facts)


def make_unsloth(kept: Kept, bases: Path) -> None:
    """Save in Unsloth's shape (2026.10.9, read in its source): PEFT's save, with these differences."""
    from peft import LoraConfig, get_peft_model

    names = {"llama": "llama-3.2-1b-instruct", "qwen2": "Qwen2.5-0.5B-Instruct", "qwen3": "Qwen3-0.6B"}
    names["mistral"] = "mistral-7b-instruct-v0.3"
    parts = r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mixer|mlp|feed_forward|ffn|dense).*?\.(?:{0}))"
    parts += r"|(?:\bmodel\.layers\.[\d]{{1,}}(?!.*\.experts\.\d)\..*?(?:self_attn|attn|mlp|ffn).*?\.(?:(?:{0})))"

    def make(folder: Path, family: str, variant: str) -> Any:
        torch.manual_seed(1)
        model, tokenizer = load(bases / family, four_bit=True), AutoTokenizer.from_pretrained(bases / family)
        options = LORA | {"loftq_config": {}}
        if variant == "added":  # a new pad token and add_new_tokens(): the model grows, and both are saved
            tokenizer.add_special_tokens({"pad_token": "<｜PAD▁TOKEN｜>"})
            added_tokens(model, tokenizer)
            options["modules_to_save"] = ["lm_head", "embed_tokens"]
        if variant == "fastmodel":  # FastModel targets a regular expression
            options["target_modules"] = parts.format("|".join(PROJECTIONS))
        model = get_peft_model(model, LoraConfig(**options))
        config, base = model.peft_config["default"], model.get_base_model()
        module = type(base).__module__
        config.auto_mapping = {"base_model_class": type(base).__name__, "parent_library": module, "unsloth_fixed": True}
        two_steps(model)
        config.base_model_name_or_path = f"unsloth/{names[family]}-{'unsloth-' * (variant != 'plain-bnb')}bnb-4bit"
        model.add_model_tags(["unsloth"])
        model.save_pretrained(folder, save_embedding_layers=variant == "added")
        tokenizer.padding_side = "left"  # as for_inference() leaves it
        tokenizer.save_pretrained(folder)
        return model

    for family in FAMILIES:
        for variant in ("4bit", "plain-bnb", "added", "fastmodel"):
            if variant == "4bit" or family in ("llama", "qwen2"):
                facts = {"peft": version("peft"), "four_bit": True, "simulated": True}
                kept.attempt("unsloth", family, variant, lambda to, f=family, v=variant: make(to, f, v), **facts)
