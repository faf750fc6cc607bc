"""Merge an adapter into its base model, verify the result, and print how well it agrees with the trained adapter.

    python examples/merge.py runs/quickstart/adapter runs/merged
    python examples/merge.py runs/quickstart/adapter s3://bucket/merged --records held_out.jsonl

Without --records the test records of the sample data are used. Run the same command again to resume an interrupted
merge.
"""

import argparse

import sqlquarry as sq
from sqlquarry.merging import Thresholds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter")
    parser.add_argument("output", help="directory or s3:// prefix")
    parser.add_argument("--base", help="directory, s3:// prefix or cached hub id of the base model if it has moved")
    parser.add_argument("--records", help="held-out records with SQL, as sq.load_records reads them")
    parser.add_argument("--count", type=int, default=16, help="number of records to measure with")
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float16", "float32"], default="auto")
    options = parser.parse_args()
    records = (sq.load_records(options.records) if options.records else sq.sample_records("test"))[: options.count]
    merger = sq.AdapterMerger(base_model=options.base, dtype=options.dtype, thresholds=Thresholds())
    merged = merger.merge(sq.AdapterCheckpoint.load(options.adapter), options.output, evaluation=records)
    merge = merged.merge
    for base, numbers in merge.candidates.items():
        print(f"{base:12} KL {numbers.kl:.2e}  greedy agreement {numbers.greedy_agreement:.2%}")
    measured = merge.verification.agreement
    print(f"merged into the {merge.base} base: {merged.uri}")
    print(
        f"compared with the adapter on {measured.answer_tokens} answer tokens of {measured.records} records: "
        f"KL {measured.kl:.2e} nats, greedy agreement {measured.greedy_agreement:.2%}"
    )


if __name__ == "__main__":
    main()
