"""Check the sample records, repair what is mechanical, put the rest into quarantine, and split what is good.

    python examples/check_your_records.py
    python examples/check_your_records.py --data questions.csv --databases databases/

The default records are the sample data, into which this program plants faults that real data sets have. It runs offline
in seconds. Use --data for your own records. Without --databases (a directory of SQLite files or a URL), their gold
queries are checked against their CREATE TABLE text only.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import sqlquarry as sq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="anything that load_records reads (default: the sample records with faults)")
    parser.add_argument("--databases", help="directory of SQLite files, or a URL with {database} in it")
    parser.add_argument("--output", type=Path, default=Path("runs/check"), help="directory for all files")
    options = parser.parse_args()
    output: Path = options.output
    records = sq.load_records(options.data) if options.data else with_faults(sq.sample_records("train")[:300])
    databases = options.databases or (None if options.data else sq.sample_databases(output / "databases"))

    report = records.check(databases)
    report.to_html(output / "before.html")
    print_counts("found", report)

    repair = records.repair(databases)
    repair.to_json(output / "repair.json")  # every change, for a review
    print(repair)

    report = repair.records.check(databases)
    kept = repair.records.quarantine(report, output / "quarantine.jsonl")
    print(f"{len(repair.records) - len(kept)} records are in {output / 'quarantine.jsonl'} with the reasons")

    report = kept.check(databases)
    report.to_html(output / "after.html")
    print_counts("left", report)

    train, test = split = kept.split(test_size=0.2)
    print(split.report)
    train.to_jsonl(output / "train.jsonl")
    test.to_jsonl(output / "test.jsonl")


def with_faults(records: sq.Records) -> sq.Records:
    """Return the records with one fault in each of the first ones."""
    faulty = list(records)
    sql = [record.sql or "" for record in faulty]
    with_text = next(place for place, text in enumerate(sql) if text.count("'") == 2 and place >= 10)
    changes = {
        # mechanical
        0: {"sql": f"```sql\n{sql[0]}\n```"},
        1: {"sql": f"[SQL] {sql[1]} [/SQL]"},
        2: {"sql": f"{sql[2]};"},
        3: {"sql": sql[3].replace(" FROM ", "\u00a0FROM ")},
        4: {"question": f"\ufeff{faulty[4].question} "},
        5: {"question": f"{faulty[5].question} (cafÃ©)"},
        with_text: {"sql": sql[with_text].replace("'", '"')},
        # for a person
        6: {"sql": sql[6].replace(" FROM ", " FORM ")},
        7: {"sql": sql[7].replace(" FROM ", ", elevation FROM ")},
        8: {"sql": "TODO"},
        9: {"question": f"{faulty[9].question} {sql[9]}"},
    }
    for place, change in changes.items():
        faulty[place] = replace(faulty[place], **change)
    return sq.Records([*faulty, replace(faulty[20], id="again")])


def print_counts(what: str, report: sq.DataReport) -> None:
    """Print the number of findings of each kind."""
    counts = {kind: count for kind, count in report.counts.items() if count}
    print(f"{what}:", ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing")


if __name__ == "__main__":
    main()
