"""The question patterns, from plain lists to set operations. Each call of a pattern returns one random draft.

The patterns are uniform on purpose. One intent has the same form of SQL in all domains, so a small model can learn it
from few records.
"""

from tools.sample_data.patterns import groups, joins, rows, special

PATTERNS = rows.PATTERNS + groups.PATTERNS + joins.PATTERNS + special.PATTERNS
