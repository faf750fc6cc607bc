"""The question patterns, from plain lists to set operations; each makes one random draft per call.

Uniform on purpose: one intent has one SQL shape in all domains, so a small model can learn it from few records.
"""

from tools.sample_data.patterns import groups, joins, rows, special

PATTERNS = rows.PATTERNS + groups.PATTERNS + joins.PATTERNS + special.PATTERNS
