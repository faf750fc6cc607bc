"""Merge an adapter into its base, prove the result, and say how near it is to what was trained.

    python examples/merge.py runs/quickstart/adapter runs/merged
    python examples/merge.py runs/quickstart/adapter s3://bucket/merged --records held_out.jsonl

Without --records the sample data's test records are used. Run it again to resume an interrupted merge.
"""

import argparse

import sqlquarry as sq
from sqlquarry.merging import Thresholds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter")
    parser.add_argument("output", help="a directory or an s3:// prefix")
    parser.add_argument("--base", help="directory, s3:// prefix or cached hub id of the base, where it moved")
    parser.add_argument("--records", help="held-out records with SQL, as sq.load_records reads them")
    parser.add_argument("--count", type=int, default=16, help="records to measure with")
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float16", "float32"], default="auto")
    options = parser.parse_args()
    records = (sq.load_records(options.records) if options.records else sq.sample_records("test"))[: options.count]
    merger = sq.AdapterMerger(base_model=options.base, dtype=options.dtype, thresholds=Thresholds())
    merged = merger.merge(sq.AdapterCheckpoint.load(options.adapter), options.output, evaluation=records)
    merge = merged.merge
    for base, numbers in merge.candidates.items():
        print(f"{base:12} KL {numbers.kl:.2e}  greedy agreement {numbers.greedy_agreement:.2%}")
    measured = merge.verification.agreement
    print(f"merged into the {merge.base} base at {merged.uri}")
    print(
        f"against the adapter, on {measured.answer_tokens} answer tokens of {measured.records} records: "
        f"KL {measured.kl:.2e} nats, the same token {measured.greedy_agreement:.2%} of the time"
    )


if __name__ == "__main__":
    main()
