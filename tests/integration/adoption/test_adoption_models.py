"""Models that PEFT has merged become artifacts of this library, on this machine and on S3."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import sqlquarry as sq
from adopted_models import CHATML, add_bos, merged_by_peft, written_by_4
from sqlquarry.adoption.model_files import LocalModelFiles
from sqlquarry.aws.polling import Polling
from sqlquarry.aws.prefix import S3Prefix
from sqlquarry.emulator import LocalAWS
from sqlquarry.errors import AdoptionError, ConfigError, OutputInUseError, PromptMismatchError
from sqlquarry.files.locks import only_writer
from sqlquarry.manifests import write_manifest
from sqlquarry.pretrained import load_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # of PEFT, and cut answers

RECORDS = [sq.Record(f"How many {name}?", f"CREATE TABLE {name} (a)", f"SELECT COUNT(*) FROM {name}") for name in "ab"]
OWN_FILES = {"prompt.json", "manifest.json"}


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model with an untied head and lively answers. Tests must copy it."""
    directory = tmp_path_factory.mktemp("merged")
    return merged_by_peft(directory, tie_word_embeddings=False, initializer_range=0.3)


@pytest.fixture
def model(merged: Path, tmp_path: Path) -> Path:
    """Return a copy of the merged model."""
    return shutil.copytree(merged, tmp_path / "model")


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    with LocalAWS(import_polls=0, cold_start_calls=0) as running:
        yield running


@pytest.fixture
def importer(aws: LocalAWS) -> sq.BedrockImporter:
    return sq.BedrockImporter(
        aws.role_arn, session=aws.session(), bucket=aws.bucket, polling=Polling(interval_s=0.01), show_progress=False
    )


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def upload(aws: LocalAWS, directory: Path, prefix: str) -> str:
    for path in directory.iterdir():
        aws.session().client("s3").upload_file(str(path), aws.bucket, f"{prefix}/{path.name}")
    return f"s3://{aws.bucket}/{prefix}"


@pytest.mark.parametrize(
    "shape",
    [
        {"tie_word_embeddings": False},
        {"tie_word_embeddings": True, "added_tokens": 3},
        {"tie_word_embeddings": False, "added_tokens": 5, "pad_rows_to": 64},
        {"lora": {"modules_to_save": ["lm_head"]}},  # PEFT unties the head
    ],
    ids=str,
)
def test_a_merge_of_peft_is_imported_and_answers_as_on_this_machine(
    shape: dict[str, Any], tmp_path: Path, importer: sq.BedrockImporter
) -> None:
    by_5 = merged_by_peft(tmp_path / "peft", initializer_range=0.3, **shape)
    for directory in (by_5, written_by_4(by_5, tmp_path / "four")):
        before = contents(directory)
        adopted = sq.adopt_model(directory, formatter=CHATML)
        assert {name: content for name, content in contents(directory).items() if name not in OWN_FILES} == before
        assert set(adopted.manifest.files) == {*before, "prompt.json"}
        assert adopted == sq.MergedModel.load(directory, verify=True)
        assert importer.preflight(adopted, "adopted").ok
        local = sq.LocalModel(adopted, device="cpu", max_tokens=6)
        imported = importer.import_model(adopted, "adopted").with_options(max_tokens=6)
        sq.probe_parity(RECORDS, imported, local, threshold=1.0).raise_for_disagreement()
        importer.delete("adopted")


@pytest.mark.parametrize("adds", [True, False])
def test_the_served_model_gets_bos_only_if_the_training_added_it(
    model: Path, adds: bool, importer: sq.BedrockImporter
) -> None:
    add_bos(model)
    adopted = sq.adopt_model(model, formatter=dataclasses.replace(CHATML, add_special_tokens=adds))
    local = sq.LocalModel(adopted, device="cpu", max_tokens=6)
    assert importer.preflight(adopted).ok
    imported = importer.import_model(adopted, f"bos-{adds}").with_options(max_tokens=6)
    answers = imported.generate(RECORDS)
    sq.probe_parity(RECORDS, imported, local, threshold=1.0).raise_for_disagreement()
    prompt = sq.PromptFormatter.load(model).prompt(RECORDS[0])
    tokens = load_tokenizer(model).tokenize(prompt, add_special_tokens=adds)
    assert answers[0].prompt_tokens == len(tokens)
    importer.delete(f"bos-{adds}")


def test_the_provenance_says_what_was_found_and_invents_nothing(model: Path) -> None:
    (model / "README.md").write_text("---\nbase_model: unknown\n---")
    (model / "training_args.bin").write_bytes(b"never read")
    adopted = sq.adopt_model(model, formatter=CHATML)
    assert contents(model).keys() > OWN_FILES
    assert not {"README.md", "training_args.bin"} & adopted.manifest.files.keys()
    assert adopted.manifest.provenance == {
        "prompt_fingerprint": sq.PromptFormatter.load(model).fingerprint,
        "adopted": {
            "from": str(model),
            "architecture": "LlamaForCausalLM",
            "dtypes": ["BF16"],
            "token_rows": json.loads((model / "config.json").read_text())["vocab_size"],
            "chat_template": True,
            "transformers_version": json.loads((model / "config.json").read_text())["transformers_version"],
        },
    }


def test_the_same_call_returns_the_finished_artifact(model: Path) -> None:
    adopted = sq.adopt_model(model, formatter=CHATML)
    before = contents(model)
    assert sq.adopt_model(model) == adopted
    assert sq.adopt_model(str(model), formatter=CHATML) == adopted
    assert sq.adopt_model(model, formatter=sq.PromptFormatter.load(model)) == adopted
    assert contents(model) == before


def test_without_a_formatter_the_choices_are_named(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"template='chat'.*PromptFormatter\(\).*PromptFormatter\.published\(\)"):
        sq.adopt_model(model)
    (model / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"no chat template") as caught:
        sq.adopt_model(model)
    assert "'chat'" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"'human-assistant'"):
        sq.adopt_model(model, formatter=CHATML)
    assert not OWN_FILES & contents(model).keys()


def test_a_prompt_that_is_there_is_used_and_another_one_is_refused(model: Path, merged: Path) -> None:
    bound = sq.PromptFormatter().bind(load_tokenizer(merged))
    bound.save(model)
    with pytest.raises(PromptMismatchError, match=r"'Schema: \{schema\}'"):
        sq.adopt_model(model, formatter=CHATML)
    assert sq.adopt_model(model).prompt_fingerprint == bound.fingerprint
    with pytest.raises(PromptMismatchError, match=r"prompt\.json and manifest\.json"):
        sq.adopt_model(model, formatter=CHATML)
    for name in OWN_FILES:
        (model / name).unlink()
    assert sq.adopt_model(model, formatter=CHATML).prompt_fingerprint != bound.fingerprint


def test_a_prompt_that_is_not_bound_or_not_ours_is_refused(model: Path) -> None:
    CHATML.save(model)
    with pytest.raises(ConfigError, match=r"prompt\.json"):
        sq.adopt_model(model)
    (model / "prompt.json").write_text('{"prompt": "You are a pirate."}')
    with pytest.raises(AdoptionError, match=r"prompt\.json"):
        sq.adopt_model(model, formatter=CHATML)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (lambda d: (d / "model.safetensors").write_bytes(flipped(d / "model.safetensors")), r"model\.safetensors has"),
        (lambda d: (d / "config.json").write_bytes((d / "config.json").read_bytes() + b"\n"), r"config\.json has \d+"),
        (lambda d: (d / "generation_config.json").unlink(), r"generation_config\.json is missing"),
        (lambda d: (d / "special_tokens_map.json").write_text("{}"), r"special_tokens_map\.json is new"),
        (lambda d: (d / "prompt.json").unlink(), r"prompt\.json"),
    ],
)
def test_changed_files_are_named_and_can_be_adopted_again(model: Path, change: Any, value: str) -> None:
    sq.adopt_model(model, formatter=CHATML)
    change(model)
    with pytest.raises(AdoptionError, match=value) as caught:
        sq.adopt_model(model, formatter=CHATML)
    assert "manifest.json" in str(caught.value)
    (model / "manifest.json").unlink()
    assert sq.adopt_model(model, formatter=CHATML) == sq.MergedModel.load(model, verify=True)


def flipped(path: Path) -> bytes:
    """Return the content of a file with the lowest bit of its last weight flipped."""
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    return bytes(content)


def test_a_merge_of_this_library_is_returned_unchanged(tmp_path: Path, lively_llama: Path) -> None:
    own = shutil.copytree(lively_llama, tmp_path / "own")
    CHATML.bind(load_tokenizer(own)).save(own)
    write_manifest(own, "merged-model", {"prompt_fingerprint": sq.PromptFormatter.load(own).fingerprint, "merge": {}})
    assert sq.adopt_model(own, formatter=CHATML) == sq.MergedModel.load(own)


@pytest.mark.parametrize(
    "content", ["{}", "no json", '{"version": 1, "kind": "adapter", "files": {}, "provenance": {}}']
)
def test_a_manifest_of_another_program_is_not_replaced(model: Path, content: str) -> None:
    (model / "manifest.json").write_text(content)
    with pytest.raises(AdoptionError, match=r"manifest\.json"):
        sq.adopt_model(model, formatter=CHATML)
    assert (model / "manifest.json").read_text() == content


@pytest.mark.parametrize("step", ["model.safetensors", *sorted(OWN_FILES)])
def test_an_interrupted_call_leaves_no_manifest_and_can_be_repeated(
    model: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, create = LocalModelFiles.read, LocalModelFiles.create

    def interrupted(original: Any) -> Any:
        def call(files: LocalModelFiles, name: str, *arguments: Any) -> Any:
            if name == step:
                raise KeyboardInterrupt
            return original(files, name, *arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(LocalModelFiles, "read", interrupted(read))
        patch.setattr(LocalModelFiles, "create", interrupted(create))
        with pytest.raises(KeyboardInterrupt):
            sq.adopt_model(model, formatter=CHATML)
    assert "manifest.json" not in contents(model)
    assert sq.adopt_model(model, formatter=CHATML) == sq.MergedModel.load(model, verify=True)


def test_a_second_writer_is_refused(model: Path) -> None:
    with only_writer(model), pytest.raises(OutputInUseError, match=str(model)):
        sq.adopt_model(model, formatter=CHATML)
    assert not OWN_FILES & contents(model).keys()


def test_of_two_calls_at_once_one_finishes_and_the_other_is_refused_or_gets_the_same(model: Path) -> None:
    def adopt(_: int) -> sq.MergedModel | OutputInUseError:
        try:
            return sq.adopt_model(model, formatter=CHATML)
        except OutputInUseError as error:
            return error

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(adopt, range(3)))
    finished = sq.MergedModel.load(model, verify=True)
    assert [one for one in results if isinstance(one, sq.MergedModel)] != []
    assert all(one == finished or isinstance(one, OutputInUseError) for one in results)


def test_a_snapshot_in_the_hub_cache_is_accepted(model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--name"
    snapshot, blobs = repository / "snapshots" / "abc", repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(model.iterdir())):
        (blobs / str(number)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    assert sq.adopt_model(snapshot, formatter=CHATML) == sq.MergedModel.load(snapshot, verify=True)


def test_a_file_that_changes_during_the_call_is_noticed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlquarry.adoption.models as room

    original = room.hash_files

    def hashed(*arguments: Any, **options: Any) -> dict[str, str]:
        found = original(*arguments, **options)
        (model / "config.json").write_bytes((model / "config.json").read_bytes())
        return found

    monkeypatch.setattr(room, "hash_files", hashed)
    with pytest.raises(AdoptionError, match=r"config\.json"):
        sq.adopt_model(model, formatter=CHATML)
    assert not OWN_FILES & contents(model).keys()


def test_a_read_only_directory_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.open

    def refused(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if path.parent == model and mode[0] != "r":
            raise OSError(30, "Read-only file system", str(path))
        return original(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(AdoptionError, match="Read-only file system"):
        sq.adopt_model(model, formatter=CHATML)


def test_a_model_on_s3_is_adopted_imported_and_adopted_again(
    model: Path, aws: LocalAWS, importer: sq.BedrockImporter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    uri, session = upload(aws, model, "chain"), aws.session()
    with pytest.raises(ConfigError, match=rf"{uri} has no prompt\.json"):
        sq.adopt_model(uri, session=session)
    adopted = sq.adopt_model(uri, formatter=CHATML, session=session)
    assert adopted == sq.MergedModel.load(uri, session=session, verify=True)
    assert adopted.manifest.files.items() >= sq.adopt_model(model, formatter=CHATML).manifest.files.items()
    assert importer.preflight(adopted).ok
    imported = importer.import_model(adopted, "chain").with_options(max_tokens=6)
    local = sq.LocalModel(adopted, session=session, device="cpu", max_tokens=6)
    sq.probe_parity(RECORDS, imported, local, threshold=1.0).raise_for_disagreement()
    verdicts = sq.SQLJudge([sq.ExactGrader()]).evaluate(RECORDS, imported).verdicts_by()
    assert verdicts == ["wrong", "wrong"]  # the model has learned nothing
    ranges: list[tuple[str, int]] = []
    original = S3Prefix.read_range
    monkeypatch.setattr(S3Prefix, "read_range", lambda *a: ranges.append((a[1], a[3])) or original(*a))
    again = sq.adopt_model(uri, formatter=CHATML, session=session)
    assert again.exported_from == adopted.manifest.digest
    assert sum(length for name, length in ranges if name == "model.safetensors") < 2 * 256 * 2**10  # only its header
    assert importer.import_model(again, "chain").arn == imported.arn


def test_a_changed_object_on_s3_is_named(model: Path, aws: LocalAWS) -> None:
    uri, session = upload(aws, model, "changed"), aws.session()
    sq.adopt_model(uri, formatter=CHATML, session=session)
    session.client("s3").put_object(
        Bucket=aws.bucket, Key="changed/model.safetensors", Body=flipped(model / "model.safetensors")
    )
    with pytest.raises(AdoptionError, match=rf"{uri}.*model\.safetensors has other content"):
        sq.adopt_model(uri, formatter=CHATML, session=session)
    session.client("s3").upload_file(str(model / "model.safetensors"), aws.bucket, "changed/model.safetensors")
    sq.adopt_model(uri, formatter=CHATML, session=session)


@pytest.mark.parametrize("name", sorted(OWN_FILES))
def test_another_adoption_of_the_same_prefix_is_noticed(
    model: Path, aws: LocalAWS, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, session = upload(aws, model, f"two-{name}"), aws.session()
    original = S3Prefix.replace

    def replaced(prefix: S3Prefix, written: str, content: bytes, etag: str | None) -> str:
        if written == name:
            prefix.write(name, b"of another process")
        return original(prefix, written, content, etag)

    monkeypatch.setattr(S3Prefix, "replace", replaced)
    with pytest.raises(OutputInUseError, match=name.replace(".", r"\.")):
        sq.adopt_model(uri, formatter=CHATML, session=session)


def test_a_prefix_without_permission_to_write_is_an_error(
    model: Path, aws: LocalAWS, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> str:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}, "PutObject")

    uri = upload(aws, model, "refused")
    monkeypatch.setattr(S3Prefix, "replace", refused)
    with pytest.raises(AdoptionError, match=rf"{uri}.*AccessDenied"):
        sq.adopt_model(uri, formatter=CHATML, session=aws.session())


def test_a_prefix_that_cannot_be_read_is_an_error(aws: LocalAWS) -> None:
    for uri, value in (("s3://no-such-bucket-here/m", "no-such-bucket-here"), (f"s3://{aws.bucket}/none", "none")):
        with pytest.raises(AdoptionError, match=value):
            sq.adopt_model(uri, formatter=CHATML, session=aws.session())
