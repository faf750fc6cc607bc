"""Full models as other tools write them: PEFT merges of tiny models, and metadata of transformers 4."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import sqlquarry as sq

from conftest import save_tiny_llama

CHATML = sq.PromptFormatter("Schema: {schema}", "{question}", "chat")


def merged_by_peft(
    directory: Path,
    *,
    added_tokens: int = 0,
    pad_rows_to: int | None = None,
    lora: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """Merge a random LoRA adapter with PEFT's merge_and_unload, and save model and tokenizer.

    Args:
        directory: a new directory for base and model.
        added_tokens: number of special tokens that are added to the tokenizer and the embeddings.
        pad_rows_to: multiple to which the number of embeddings is padded.
        lora: fields of LoraConfig.
        config: fields of LlamaConfig.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = save_tiny_llama(directory / "base", **config)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    if added_tokens:
        tokenizer.add_special_tokens({"additional_special_tokens": [f"<|extra_{n}|>" for n in range(added_tokens)]})
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=pad_rows_to)
    options: dict[str, Any] = {"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **(lora or {})}
    adapted = get_peft_model(model, LoraConfig(**options))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    adapted.merge_and_unload().save_pretrained(directory / "merged")
    tokenizer.save_pretrained(directory / "merged")
    return directory / "merged"


def written_by_4(source: Path, directory: Path) -> Path:
    """Copy a model with the metadata that transformers 4.51 writes: another dtype and rope key, an inline template."""
    shutil.copytree(source, directory)
    config = json.loads((directory / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["transformers_version"] = "4.51.3"
    (directory / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((directory / "tokenizer_config.json").read_text())
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    for key in ("backend", "is_local", "local_files_only"):
        tokenizer.pop(key, None)
    template = directory / "chat_template.jinja"
    tokenizer["chat_template"] = template.read_text()
    template.unlink()
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    named = {key: tokenizer[key] for key in ("bos_token", "eos_token", "pad_token")}
    (directory / "special_tokens_map.json").write_text(json.dumps(named))
    return directory


def add_bos(directory: Path) -> None:
    """Change a tokenizer.json so that the tokenizer adds BOS, as that of Llama 3 does."""
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    bos, (first, second) = "<|endoftext|>", [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, first],
        "pair": [{"SpecialToken": {"id": bos, "type_id": 0}}, first, second],
        "special_tokens": {bos: {"id": bos, "ids": [0], "tokens": [bos]}},
    }
    path.write_text(json.dumps(content))
