"""Train without the tokenizer's BOS, merge, import into the emulated Bedrock, and compare the tokens of the prompt."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_pipeline import CONFIG, RECORDS

import sqlquarry as sq
from sqlquarry.aws.polling import Polling
from sqlquarry.bedrock.export.model_export import ModelExport
from sqlquarry.bedrock.preflight import preflight, repair
from sqlquarry.bedrock.preflight.findings import PreflightFinding
from sqlquarry.emulator import LocalAWS
from sqlquarry.emulator.bedrock.served_model import served_tokenizer
from sqlquarry.errors import UnsupportedModelError
from sqlquarry.tokenizing.encoded import IGNORED_LABEL

from conftest import save_tiny_llama

ASKED = [record.asked for record in RECORDS[:6]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tiny Llama whose tokenizer adds BOS, as that of Llama 3 does."""
    directory = save_tiny_llama(tmp_path_factory.mktemp("base"), initializer_range=0.3)
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    bos = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": place}} for place, name in enumerate("AB"))
    template = {"type": "TemplateProcessing", "single": [bos, first], "pair": [bos, first, bos, second]}
    template["special_tokens"] = {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}  # type: ignore[assignment]  # JSON of several types
    content["post_processor"] = {"type": "Sequence", "processors": [template]}
    path.write_text(json.dumps(content))
    return directory


@pytest.fixture(scope="module", params=["published", "chat"])
def formatter(request: pytest.FixtureRequest) -> sq.PromptFormatter:
    if request.param == "published":
        return sq.PromptFormatter.published()
    return sq.PromptFormatter(template="chat", add_special_tokens=False)


@pytest.fixture(scope="module")
def adapter(
    base: Path, formatter: sq.PromptFormatter, tmp_path_factory: pytest.TempPathFactory
) -> sq.AdapterCheckpoint:
    trainer = sq.QLoRAFSDPTrainer(base, config=CONFIG, formatter=formatter)
    return trainer.train(RECORDS, output_dir=tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def merged(adapter: sq.AdapterCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> sq.MergedModel:
    return sq.AdapterMerger().merge(adapter, tmp_path_factory.mktemp("merged"))


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    with LocalAWS(cold_start_calls=0) as aws:
        yield aws


def trained_tokens(base: Path, formatter: sq.PromptFormatter) -> list[list[int]]:
    """Return the tokens of each prompt as the training encodes them."""
    from transformers import AutoTokenizer

    encoded = formatter.encode_all(RECORDS[: len(ASKED)], AutoTokenizer.from_pretrained(base))
    prompts = [ids[: labels.count(IGNORED_LABEL)] for ids, labels in encoded]
    assert all(prompt[0] != 0 for prompt in prompts)
    return prompts


def imported(aws: LocalAWS, model: Any, name: str, **options: Any) -> sq.ImportedModel:
    importer = sq.BedrockImporter(
        aws.role_arn, session=aws.session(), show_progress=False, polling=Polling(interval_s=0.01)
    )
    return importer.import_model(model, name, s3_uri=f"s3://{aws.bucket}/{name}/", **options)


def written(export: ModelExport, directory: Path) -> Path:
    directory.mkdir()
    for name, content in export.files.items():
        (directory / name).write_bytes(content.read_bytes() if isinstance(content, Path) else content)
    return directory


@pytest.mark.filterwarnings("ignore:.* answers were cut:UserWarning")
def test_served_prompts_have_the_trained_tokens(
    aws: LocalAWS, base: Path, merged: sq.MergedModel, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    bound = sq.PromptFormatter.load(merged.path)
    trained = trained_tokens(base, bound)
    assert preflight(merged, "tiny-sql").ok
    tokenizer = served_tokenizer(written(ModelExport.of(merged), tmp_path / "exported"))
    assert [tokenizer(bound.prompt(record))["input_ids"] for record in ASKED] == trained
    served_messages = [
        tokenizer.apply_chat_template(bound.messages(record), add_generation_prompt=True, return_dict=False)
        for record in ASKED
    ]
    assert served_messages == trained

    plain = AutoTokenizer.from_pretrained(merged.path)  # as any server reads it
    assert [plain(bound.prompt(record))["input_ids"] for record in ASKED] == trained

    model = imported(aws, merged, f"merged-{bound.fingerprint}")
    report = sq.probe_parity(ASKED, model.with_options(max_tokens=16), sq.LocalModel(merged, max_tokens=16))
    assert [one.served.prompt_tokens for one in report.comparisons] == [len(tokens) for tokens in trained]
    chatting = model.with_options(request_schema="messages", max_tokens=16).generate(ASKED)
    assert [answer.text for answer in chatting] == [one.expected.text for one in report.comparisons]
    assert [answer.prompt_tokens for answer in chatting] == [len(tokens) for tokens in trained]
    assert (report.bos, report.agreement) == ("same", 1.0)
    model.delete()


def test_adapter_merged_model_and_directory_get_the_trained_tokens_on_this_machine(
    base: Path, adapter: sq.AdapterCheckpoint, merged: sq.MergedModel
) -> None:
    bound = sq.PromptFormatter.load(adapter.path)
    lengths = [len(tokens) for tokens in trained_tokens(base, bound)]
    plain = sq.LocalModel(base, formatter=bound, max_tokens=8)
    for model in (plain, sq.LocalModel(adapter, max_tokens=8), sq.LocalModel(merged, max_tokens=8)):
        for asked in (ASKED, [bound.prompt(record) for record in ASKED]):
            assert [answer.prompt_tokens for answer in model.generate(asked)] == lengths
    # Without the formatter, only the directory's own tokenizer counts.
    prompts = [bound.prompt(record) for record in ASKED]
    own = [answer.prompt_tokens for answer in sq.LocalModel(base, max_tokens=8).generate(prompts)]
    assert own == [tokens + 1 for tokens in lengths]


def test_the_merge_changes_only_the_tokenizer_files_that_must_change(
    base: Path, adapter: sq.AdapterCheckpoint, merged: sq.MergedModel, tmp_path: Path
) -> None:
    packaged = sq.AdapterMerger().package_base(adapter, tmp_path / "base")
    names = {path.name for path in base.iterdir() if path.suffix in (".json", ".jinja")}
    for model in (merged, packaged):
        sq.MergedModel.load(model.path, verify=True)
        assert {name for name in names if (base / name).read_bytes() != (model.path / name).read_bytes()} == {
            "tokenizer.json"
        }
        old, new = (json.loads((place / "tokenizer.json").read_text()) for place in (base, model.path))
        assert {**old, "post_processor": None} == {**new, "post_processor": None}
        assert old["post_processor"] != new["post_processor"]


def test_verification_uses_the_trained_tokens(adapter: sq.AdapterCheckpoint, merged: sq.MergedModel) -> None:
    assert sq.AdapterMerger().verify(RECORDS[:4], adapter, merged).agreement.kl < 0.05


@pytest.mark.filterwarnings("ignore:.* answers were cut:UserWarning")
def test_a_plain_directory_is_exported_with_a_tokenizer_that_adds_nothing(
    aws: LocalAWS, base: Path, formatter: sq.PromptFormatter
) -> None:
    from transformers import AutoTokenizer

    bound = formatter.bind(AutoTokenizer.from_pretrained(base))
    trained = trained_tokens(base, bound)
    model = imported(aws, base, f"plain-{bound.fingerprint}", formatter=bound)
    answers = model.with_options(max_tokens=1).generate(ASKED)
    model.delete()
    assert [answer.prompt_tokens for answer in answers] == [len(tokens) for tokens in trained]


def test_preflight_reports_a_tokenizer_that_adds_bos_and_repair_changes_it(
    base: Path, formatter: sq.PromptFormatter, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    model = shutil.copytree(base, tmp_path / "model")
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}))

    def served_tokens() -> list[PreflightFinding]:
        return [one for one in preflight(model).findings if one.code == "served-tokens"]

    assert not served_tokens()  # without a prompt, both versions add BOS
    bound = formatter.bind(AutoTokenizer.from_pretrained(model))
    bound.save(model)
    (found,) = served_tokens()
    assert (found.severity, found.repairable) == ("note", True)
    repair(model)
    assert not served_tokens()
    repaired = AutoTokenizer.from_pretrained(model)
    assert [repaired(bound.prompt(record))["input_ids"] for record in ASKED] == trained_tokens(base, bound)


def test_a_tokenizer_that_cannot_be_changed_is_refused_before_any_weight_is_written(
    base: Path, adapter: sq.AdapterCheckpoint, tmp_path: Path
) -> None:
    copy = shutil.copytree(base, tmp_path / "base")
    (copy / "tokenizer.json").unlink()
    for merge in (sq.AdapterMerger(base_model=copy).merge, sq.AdapterMerger(base_model=copy).package_base):
        with pytest.raises(UnsupportedModelError, match=r"\badd_special_tokens=False\b.*tokenizer\.json"):
            merge(adapter, tmp_path / "out")
        assert not list((tmp_path / "out").glob("*.safetensors"))
