"""Load rows from any source as `Records`, split them without leaks, and get sample data."""

from sqlquarry.data.database import Database
from sqlquarry.data.proposals import ProposalReport, Proposals, propose_records, records_from_log
from sqlquarry.data.readers import load_records
from sqlquarry.data.records import Records, Split
from sqlquarry.data.sample import sample_databases, sample_records
from sqlquarry.data.split import SplitReport

__all__ = [
    "Database",
    "ProposalReport",
    "Proposals",
    "Records",
    "Split",
    "SplitReport",
    "load_records",
    "propose_records",
    "records_from_log",
    "sample_databases",
    "sample_records",
]
