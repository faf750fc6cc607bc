"""Records that were encoded and packed before: the same result without the work, and never a wrong or damaged one."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, normalizers

from sqlquarry.data import load_records
from sqlquarry.errors import RecordError
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record, json_lines
from sqlquarry.training.base.known_bases import known_shape
from sqlquarry.training.base.token_estimator import TokenEstimator
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.encoding import kept, prepared
from sqlquarry.training.encoding.prepared import PreparedRecords, prepare

from conftest import tiny_tokenizer, toy_examples

RECORDS = [Record(**example) for example in toy_examples(30, seed=7)]
SHAPE = known_shape("meta-llama/Meta-Llama-3-8B")
TRL = TrainingConfig(backend="trl", trainable_tokens=None)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list of the numbers of records in all calls that encode."""
    calls: list[int] = []
    real = PromptFormatter.encode_all

    def encode_all(self: PromptFormatter, records: Any, tokenizer: Any) -> Any:
        calls.append(len(records))
        return real(self, records, tokenizer)

    monkeypatch.setattr(PromptFormatter, "encode_all", encode_all)
    return calls


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let every result count as large, and return the folder of the files."""
    monkeypatch.setattr(kept, "LARGE", 0)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".cache" / "sqlquarry" / "prepared"


def done(tokenizer: Any, records: list[Record] = RECORDS, config: TrainingConfig | None = None) -> PreparedRecords:
    assert SHAPE is not None
    return prepare(records, PromptFormatter(), tokenizer, config or TrainingConfig(max_length=400), shape=SHAPE)


def content(result: PreparedRecords) -> tuple[object, ...]:
    rows = [(row.tokens(), row.size) for row in result.rows]
    others = (result.tokens_unshared, result.note, result.cut, result.digest)
    return list(result.examples), rows, result.row_sizes, *others


def test_the_same_records_are_encoded_once_in_a_process(tokenizer: Any, encoded: list[int], tmp_path: Path) -> None:
    records = [*RECORDS, Record("Who?", "CREATE TABLE only_here (a)", "SELECT a FROM only_here")]
    first, second = done(tokenizer, records), done(tiny_tokenizer(), list(records))
    assert encoded == [31]
    assert content(first) == content(second)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("config", [TrainingConfig(max_length=400), TRL])
def test_another_process_finds_a_large_result_on_disk(
    tokenizer: Any, encoded: list[int], on_disk: Path, config: TrainingConfig
) -> None:
    records = [*RECORDS, Record("Is <|pad|> noted?", "CREATE TABLE t (a)", "SELECT a FROM t")]
    first, second = done(tokenizer, records, config), done(tokenizer, records, config)
    assert encoded == [31]
    assert content(first) == content(second)
    assert "<|pad|>" in second.note
    assert len(first.rows) == (0 if config is TRL else len(first.row_sizes))
    (file,) = on_disk.iterdir()
    assert on_disk.stat().st_mode & 0o777 == 0o700
    with file.open("rb") as opened:
        expected = opened.readline().strip().decode()
        assert hashlib.file_digest(opened, "sha256").hexdigest() == expected


def flipped(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def hashed_again(content: bytes) -> bytes:
    """Return a file whose digest is right, but whose records end too early."""
    rest = content.split(b"\n", 1)[1][:-40]
    return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


@pytest.mark.parametrize(
    "damaged",
    [
        flipped,
        hashed_again,
        lambda content: content[: len(content) // 2],
        lambda content: content[:40],
        lambda _: b"",
        lambda _: hashlib.sha256(b"").hexdigest().encode() + b"\n",
        lambda _: hashlib.sha256(b"[]\n").hexdigest().encode() + b"\n[]\n",
        lambda _: b"\xff" * 1000,
    ],
)
def test_a_damaged_file_is_made_again(
    tokenizer: Any, encoded: list[int], on_disk: Path, damaged: Callable[[bytes], bytes]
) -> None:
    first = done(tokenizer)
    (file,) = on_disk.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damaged(whole))
    assert content(done(tokenizer)) == content(first)
    assert encoded == [30, 30]
    assert file.read_bytes() == whole
    done(tokenizer)
    assert encoded == [30, 30]


def changed_tokenizers() -> list[Any]:
    lower, added, split = tiny_tokenizer(), tiny_tokenizer(), tiny_tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    added.add_tokens([AddedToken("CREATE")])
    split.split_special_tokens = True
    return [lower, added, split]


def test_whatever_changes_the_result_changes_the_key(tokenizer: Any, tmp_path: Path) -> None:
    def key(
        records: list[Record] = RECORDS,
        formatter: PromptFormatter | None = None,
        other: Any = None,
        settings: dict[str, object] | None = None,
    ) -> str | None:
        used = other or tokenizer
        return kept.content_key(records, (formatter or PromptFormatter()).bind(used), used, settings or {})

    changes = {"question": "?", "schema": "CREATE TABLE b (c)", "sql": "SELECT 2", "dialect": "mysql", "notes": "new"}
    keys = [key(), key(RECORDS[:-1]), key(RECORDS[::-1]), key(formatter=PromptFormatter(user="Asks: {question}"))]
    keys += [key([dataclasses.replace(RECORDS[0], **{name: text}), *RECORDS[1:]]) for name, text in changes.items()]
    keys += [key(other=other) for other in changed_tokenizers()]
    keys.append(key(settings={"seed": 1}))
    assert len({*keys}) == len(keys)
    assert key([*RECORDS], PromptFormatter(), tiny_tokenizer()) == keys[0]
    # This is how `train(processes=2)` passes records and prompt to its processes.
    (tmp_path / "train.jsonl").write_text(json_lines(RECORDS))
    PromptFormatter().bind(tokenizer).save(tmp_path)
    assert key([*load_records(tmp_path / "train.jsonl")], PromptFormatter.load(tmp_path)) == keys[0]


@pytest.mark.parametrize(
    ("option", "value"), [("max_length", 500), ("share_prefixes", False), ("seed", 5), ("backend", "trl")]
)
def test_other_options_of_packing_are_packed_again(
    tokenizer: Any, encoded: list[int], on_disk: Path, option: str, value: object
) -> None:
    config = TrainingConfig(max_length=400, trainable_tokens=None)
    assert content(done(tokenizer, config=config)) != content(
        done(tokenizer, config=dataclasses.replace(config, **{option: value}))
    )
    assert len([*on_disk.iterdir()]) == 2
    # These change nothing in the rows.
    done(tokenizer, config=dataclasses.replace(config, learning_rate=1e-5, lora_r=2, num_train_epochs=3))
    assert len(encoded) == 2


def open_to_all(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)


def elsewhere(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    (folder.parent / "other").mkdir()
    folder.symlink_to("other")


def a_file(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("")


@pytest.mark.parametrize("prepare_folder", [open_to_all, elsewhere, a_file])
def test_a_folder_that_others_could_write_is_not_used(
    tokenizer: Any, encoded: list[int], on_disk: Path, prepare_folder: Callable[[Path], None]
) -> None:
    prepare_folder(on_disk)
    assert content(done(tokenizer)) == content(done(tokenizer))
    assert encoded == [30, 30]
    assert not on_disk.is_dir() or not [*on_disk.iterdir()]


def test_a_full_disk_changes_nothing(
    tokenizer: Any, encoded: list[int], on_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    assert content(done(tokenizer)) == content(done(tokenizer))
    assert encoded == [30, 30]
    assert not [*on_disk.iterdir()]


def test_files_that_were_not_used_for_the_longest_time_are_removed(
    tokenizer: Any, encoded: list[int], on_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    for seed in range(3):
        done(tokenizer, config=TrainingConfig(max_length=400, seed=seed))
        (new,) = {path.name for path in on_disk.iterdir()} - {*names}
        names.append(new)
        os.utime(on_disk / new, (seed + 1, seed + 1))
    done(tokenizer, config=TrainingConfig(max_length=400, seed=0))  # used again, so it is not the oldest any more
    monkeypatch.setattr(kept, "MOST_BYTES", int(3.5 * (on_disk / names[0]).stat().st_size))
    done(tokenizer, config=TrainingConfig(max_length=400, seed=3))
    assert {path.name for path in on_disk.iterdir()} & {*names} == {names[0], names[2]}
    assert len(encoded) == 4


def test_memory_keeps_only_the_last_results(tokenizer: Any, encoded: list[int]) -> None:
    for seed in range(100, 120):
        done(tokenizer, config=TrainingConfig(max_length=400, seed=seed))
    done(tokenizer, config=TrainingConfig(max_length=400, seed=119))
    assert len(encoded) == 20
    done(tokenizer, config=TrainingConfig(max_length=400, seed=100))
    assert len(encoded) == 21


def test_records_that_are_refused_and_estimates_are_not_kept(tokenizer: Any, on_disk: Path) -> None:
    assert done(tokenizer, config=TrainingConfig(max_length=120)).over_length
    done(TokenEstimator())
    with pytest.raises(RecordError, match="no sql"):
        done(tokenizer, [RECORDS[0], RECORDS[1].asked])
    assert not [*on_disk.glob("*")]


def test_evaluation_records_are_not_taken_for_training_records(tokenizer: Any, on_disk: Path) -> None:
    assert SHAPE is not None
    records = [Record("Is <|pad|> noted?", "CREATE TABLE t (a)", "SELECT a FROM t")]
    outline = prepared.BaseOutline(SHAPE, tokenizer)
    for _ in range(2):
        train, held_out = prepared.prepare_both(records, records, PromptFormatter(), outline, TrainingConfig())
        assert held_out is not None
        assert (train.note.startswith("evaluation"), held_out.note.startswith("evaluation")) == (False, True)
    assert len([*on_disk.iterdir()]) == 2
