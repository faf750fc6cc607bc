"""Judge a JSON Lines file of answers in four ways on the sample data and write report.html and report.md.

    python examples/judge_predictions.py --template answers.jsonl     the form, with the gold queries as answers
    python examples/judge_predictions.py answers.jsonl

A line is {"id": "<id of a sample record>", "answer": "<what the model wrote>"}; which model wrote it does not matter.
For data of your own put `sq.load_records(path)` and the directory of your SQLite files in the place of the sample's.
"""

import argparse
import json
from pathlib import Path

import sqlquarry as sq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--template", action="store_true", help="write such a file instead of judging it")
    parser.add_argument("--output", type=Path, default=Path("runs/judge"), help="receives databases and report.html")
    options = parser.parse_args()
    by_id = {record.id: record for record in sq.sample_records("test")}
    if options.template:
        lines = [json.dumps({"id": name, "answer": record.sql}) for name, record in by_id.items()]
        options.answers.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    answers = [json.loads(line) for line in options.answers.read_text(encoding="utf-8").splitlines()]
    if unknown := [line["id"] for line in answers if line["id"] not in by_id]:
        parser.error(f"these are no ids of sample records: {', '.join(unknown[:5])}")
    databases = sq.sample_databases(options.output / "databases")
    made = sq.SynthesizedDatabases(options.output / "made")  # needs only the CREATE TABLE text
    judge = sq.SQLJudge(
        [
            sq.ExecutionGrader(databases),
            sq.ExecutionGrader(made, name="on made rows"),
            sq.EquivalenceGrader(),
            sq.ExactGrader(),
        ],
        journal=options.output / "judging.jsonl",  # a second run judges only what is new
    )
    report = judge.judge([by_id[line["id"]] for line in answers], [line["answer"] for line in answers])
    report.to_html(options.output / "report.html", group=lambda record: record.database or "")
    report.to_markdown(options.output / "report.md")
    print(report.summary(), f"report: {options.output / 'report.html'}", sep="\n")


if __name__ == "__main__":
    main()
