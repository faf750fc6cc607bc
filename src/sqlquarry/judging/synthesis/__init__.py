"""Schema and gold SQL -> small databases on which wrong queries return something else."""

from sqlquarry.judging.synthesis.source import Coverage, SynthesizedDatabases
from sqlquarry.judging.synthesis.store import KillRate

__all__ = ["Coverage", "KillRate", "SynthesizedDatabases"]
