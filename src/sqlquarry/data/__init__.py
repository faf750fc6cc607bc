"""Load rows from any source as `Records`, check them, split them without leaks, and get sample data."""

from sqlquarry.data.checkup.repair import Repair
from sqlquarry.data.checkup.report import DataReport
from sqlquarry.data.database import Database
from sqlquarry.data.proposals import ProposalReport, Proposals, propose_records, records_from_log
from sqlquarry.data.readers import load_records
from sqlquarry.data.records import Records, Split
from sqlquarry.data.sample import sample_databases, sample_records
from sqlquarry.data.split import SplitReport

__all__ = [
    "DataReport",
    "Database",
    "ProposalReport",
    "Proposals",
    "Records",
    "Repair",
    "Split",
    "SplitReport",
    "load_records",
    "propose_records",
    "records_from_log",
    "sample_databases",
    "sample_records",
]
