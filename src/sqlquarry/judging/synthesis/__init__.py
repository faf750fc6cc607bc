"""Schema and gold SQL -> small databases on which wrong queries return something else."""

from sqlquarry.judging.synthesis.suite_files import KillRate
from sqlquarry.judging.synthesis.synthesized_databases import Coverage, SynthesizedDatabases

__all__ = ["Coverage", "KillRate", "SynthesizedDatabases"]
