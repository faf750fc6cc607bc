"""Generates small databases from a schema and gold SQL, on which wrong queries return different rows than the gold."""

from sqlquarry.judging.synthesis.suite_files import KillRate
from sqlquarry.judging.synthesis.synthesized_databases import Coverage, SynthesizedDatabases

__all__ = ["Coverage", "KillRate", "SynthesizedDatabases"]
