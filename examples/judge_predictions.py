"""Judge a JSON Lines file of answers with four graders and write report.html and report.md.

    python examples/judge_predictions.py --template answers.jsonl     write a template with the gold queries as answers
    python examples/judge_predictions.py answers.jsonl                judge the answers

    python examples/judge_predictions.py answers.jsonl --data questions.csv --dialect postgres --databases URL

Each line is {"id": "<id of a record>", "answer": "<the model's answer>"}. The answers may come from any model. The
default records are the sample data. Use --data for your own records. Without --databases (a directory of SQLite files
or a URL), your records are judged only on databases that are generated from their CREATE TABLE text.
"""

import argparse
import json
from pathlib import Path

import sqlquarry as sq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--template", action="store_true", help="write a template to the file instead of judging it")
    parser.add_argument("--data", help="anything that load_records reads (default: the sample's test records)")
    parser.add_argument("--dialect", help="SQL dialect of rows without one, such as postgres")
    parser.add_argument("--databases", help="directory of SQLite files, or a URL with {database} in it")
    parser.add_argument("--output", type=Path, default=Path("runs/judge"), help="directory for databases and reports")
    options = parser.parse_args()
    records = sq.load_records(options.data, dialect=options.dialect) if options.data else sq.sample_records("test")
    by_id = {record.id: record for record in records}
    if options.template:
        lines = [json.dumps({"id": name, "answer": record.sql}) for name, record in by_id.items()]
        options.answers.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    try:
        answers = [json.loads(line) for line in options.answers.read_text(encoding="utf-8").splitlines()]
        unknown = [str(line["id"]) for line in answers if line["id"] not in by_id]
        texts = [line["answer"] for line in answers]
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"{options.answers} cannot be read ({error!r}). Use --template to write a valid file.")
    if unknown:
        parser.error(f"no record has the ids {', '.join(unknown[:5])}. Use --template to write a file with valid ids.")
    databases = options.databases or (None if options.data else sq.sample_databases(options.output / "databases"))
    made = sq.SynthesizedDatabases(options.output / "made")  # needs only the CREATE TABLE text
    judge = sq.SQLJudge(
        [
            *([sq.ExecutionGrader(databases)] if databases else []),
            sq.ExecutionGrader(made, name="on made rows"),
            sq.EquivalenceGrader(),
            sq.ExactGrader(),
        ],
        journal=options.output / "judging.jsonl",  # a second run judges only new answers
    )
    report = judge.judge([by_id[line["id"]] for line in answers], texts)
    sq.write_html(report, options.output / "report.html", group_by=lambda record: record.database or "")
    sq.write_markdown(report, options.output / "report.md")
    print(report.summary(), f"report: {options.output / 'report.html'}", sep="\n")


if __name__ == "__main__":
    main()
