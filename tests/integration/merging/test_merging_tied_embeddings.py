"""Test tied embeddings. If PEFT's merge would change the shared tensor twice or for both uses, this merge unties it.

In these cases the reference is PEFT's unmerged model, which is the one that was trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging_models import INPUT, Base, logits, make_base, our_merge, peft_merge, plan, require_equal, train


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base("Llama", tmp_path_factory.mktemp("tied"), tied=True, dtype=torch.float32)


UNTIED: dict[str, dict[str, Any]] = {
    "lora on the embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "lora on the head": {"target_modules": ["q_proj", "lm_head"]},
    "lora on both": {"target_modules": ["q_proj", "lm_head", "embed_tokens"], "use_rslora": True},
    "lora on both, tied": {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    "dora on the embedding": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "dora on the head": {"target_modules": ["q_proj", "lm_head"], "use_dora": True},
    "rows of the head": {"trainable_token_indices": {"lm_head": [3, 9]}},
    "other rows of each": {"trainable_token_indices": {"embed_tokens": [3, 7], "lm_head": [3, 9]}},
}


@pytest.mark.parametrize("name", UNTIED)
def test_the_untied_merge_answers_as_the_trained_model(tied: Base, tmp_path: Path, name: str) -> None:
    with torch.no_grad():
        expected = train(tied, tmp_path, **UNTIED[name])(input_ids=INPUT).logits
    merged, still_tied = our_merge(tied, (tmp_path, 1.0))
    assert not still_tied
    assert "lm_head.weight" in merged
    size = float(expected.abs().max())
    assert float((logits(tied, merged, tied=False) - expected).abs().max()) < 1e-5 * size
    # PEFT's merge is different, which is why this library does not follow it here.
    peft, _ = peft_merge(tied, tmp_path)
    assert float((logits(tied, peft, tied=True) - expected).abs().max()) > 1e-2 * size


SHARED: dict[str, dict[str, Any]] = {
    "rows": {"trainable_token_indices": [3, 7]},
    "the same rows of each": {"trainable_token_indices": {"embed_tokens": [90, 3], "lm_head": [90, 3]}},
    "saved once": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "head saved once": {"modules_to_save": ["lm_head"], "ensure_weight_tying": True},
    "nothing": {},
}


@pytest.mark.parametrize("name", SHARED)
def test_changes_to_both_keep_them_tied(tied: Base, tmp_path: Path, name: str) -> None:
    with torch.no_grad():
        expected = train(tied, tmp_path, **SHARED[name])(input_ids=INPUT).logits
    merged, still_tied = our_merge(tied, (tmp_path, 1.0))
    assert still_tied
    assert "lm_head.weight" not in merged
    require_equal((merged, still_tied), peft_merge(tied, tmp_path))
    torch.testing.assert_close(logits(tied, merged, tied=True), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"trainable_token_indices": [3, 7]}, {"modules_to_save": ["embed_tokens"]}, {}])
def test_a_stored_head_of_a_tied_model_gets_the_values_of_the_embedding(
    tied: Base, tmp_path: Path, options: dict[str, Any]
) -> None:
    # Some checkpoints also contain the unused head. Its old values must not be used after the merge.
    stored = load_file(tied.directory / "model.safetensors")
    (tmp_path / "base").mkdir()
    stale = {**stored, "lm_head.weight": torch.ones_like(stored["model.embed_tokens.weight"])}
    save_file(stale, tmp_path / "base/model.safetensors")
    base = Base(tmp_path / "base", tied.model)
    train(tied, tmp_path / "adapter", **options)
    expected, _ = our_merge(tied, (tmp_path / "adapter", 1.0))
    merged, still_tied = our_merge(base, (tmp_path / "adapter", 1.0))
    assert plan(base, (tmp_path / "adapter", 1.0)).extra == {}
    if options:
        before = stored["model.embed_tokens.weight"]
        head = merged["model.embed_tokens.weight"] if still_tied else before
        assert torch.equal(merged["lm_head.weight"], head)
    assert all(torch.equal(merged[name], value) for name, value in expected.items())
