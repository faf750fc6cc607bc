"""A directory without a model in transformers' format is recognized by the names of its files."""

from __future__ import annotations

import pytest

from sqlquarry.adoption.model_contents import require_model
from sqlquarry.errors import AdoptionError

MODEL = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]


@pytest.mark.parametrize(
    "names",
    [
        MODEL,
        ["config.json", *SHARDS],
        [*MODEL, "training_args.bin", "README.md", "checkpoint-500/adapter_config.json", "optimizer.pt"],
        [*MODEL, "consolidated.safetensors", "params.json", "original/consolidated.00.pth"],
        [*MODEL, "global_step500/mp_rank_00_model_states.pt", "zero_to_fp32.py"],
        [*MODEL, "model-q4.gguf", "pytorch_model.bin"],
        [*MODEL, "manifest.json", ".merge.json"],
    ],
)
def test_a_model_is_accepted_with_other_files_next_to_it(names: list[str]) -> None:
    require_model(names, "here")


@pytest.mark.parametrize(
    ("names", "value"),
    [
        ([], "no files"),
        (["README.md", "notes.txt"], r"README\.md, notes\.txt"),
        (
            ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"],
            r"adapter_config\.json.*adopt_adapter",
        ),
        (["adapter_config.json", "adapter_model.bin", "config.json"], r"adapter_config\.json.*adopt_adapter"),
        (["adapter_config.json", *(f"merged/{name}" for name in MODEL)], r"adopt_adapter.*folder merged\b"),
        ([*MODEL, "adapter_config.json"], r"both .*adapter_config\.json"),
        ([*MODEL, "adapter_model.safetensors"], r"both .*adapter_model\.safetensors"),
        (["named/adapter_config.json", "named/adapter_model.safetensors"], "named.*adopt_adapter"),
        ([f"checkpoint-{n}/{name}" for n in (500, 1000) for name in MODEL], "checkpoint-1000, checkpoint-500"),
        (["README.md", *(f"merged/{name}" for name in MODEL)], "merged"),
        (["checkpoint-9/adapter_config.json", "checkpoint-10/config.json"], "checkpoint-10"),
        (["model-Q4_K_M.gguf", "config.json"], r"model-Q4_K_M\.gguf.*merged_16bit"),
        (["config.json", "pytorch_model.bin", "training_args.bin"], r"pytorch_model\.bin.*save_pretrained"),
        (["model.pt"], r"model\.pt.*save_pretrained"),
        (["consolidated.00.pth", "params.json", "tokenizer.model"], r"consolidated\.00\.pth.*config\.json"),
        (["original/consolidated.00.pth", "README.md"], r"original/consolidated\.00\.pth"),
        (["consolidated.safetensors", "params.json", "config.json"], r"consolidated\.safetensors"),
        (["config.json", "model-rank-0-part-0.safetensors", "model-rank-1-part-0.safetensors"], "vLLM"),
        (["config.json", "pytorch_model_fsdp_0/__0_0.distcp"], "FSDP.*accelerate merge-weights"),
        (["__0_0.distcp", ".metadata"], "FSDP"),
        (["config.json", "global_step12/mp_rank_00_model_states.pt", "zero_to_fp32.py"], r"zero_to_fp32\.py"),
        (["model.tar.gz"], r"model\.tar\.gz"),
        (["config.json", "tf_model.h5"], r"tf_model\.h5"),
        (["model.safetensors", "tokenizer.json"], r"config\.json"),
        ([*MODEL, ".merge.json"], r"AdapterMerger \(\.merge\.json"),
        ([*MODEL, ".export.json"], r"import_model"),
    ],
)
def test_anything_else_is_refused_with_the_next_step(names: list[str], value: str) -> None:
    with pytest.raises(AdoptionError, match=value) as caught:
        require_model(names, "s3://models/one")
    assert "s3://models/one" in str(caught.value)
