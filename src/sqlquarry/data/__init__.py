"""Rows of any source -> `Records`: readers, leak-free splits, and a small data set to try everything with."""

from sqlquarry.data.readers import load_records
from sqlquarry.data.records import Records
from sqlquarry.data.sample import sample_databases, sample_records

__all__ = ["Records", "load_records", "sample_databases", "sample_records"]
