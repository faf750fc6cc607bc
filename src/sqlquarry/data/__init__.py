"""Rows of any source -> `Records`: readers, leak-free splits, and a small data set to try everything with."""

from sqlquarry.data.readers import load_records
from sqlquarry.data.records import Records, Split
from sqlquarry.data.sample import sample_databases, sample_records
from sqlquarry.data.split import SplitReport

__all__ = ["Records", "Split", "SplitReport", "load_records", "sample_databases", "sample_records"]
