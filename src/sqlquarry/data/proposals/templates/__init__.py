"""The question templates, from plain lists to set operations. Each call of a template returns one random draft."""

from sqlquarry.data.proposals.templates import groups, joins, nested, rows

TEMPLATES = rows.TEMPLATES + groups.TEMPLATES + joins.TEMPLATES + nested.TEMPLATES

__all__ = ["TEMPLATES"]
