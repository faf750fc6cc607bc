"""Propose records for a database that has no questions yet."""

from sqlquarry.data.proposals.propose import propose_records, records_from_log
from sqlquarry.data.proposals.report import ProposalReport, Proposals

__all__ = ["ProposalReport", "Proposals", "propose_records", "records_from_log"]
