"""Generates the sample data set of `sqlquarry.data.sample`: run `python -m tools.sample_data` in the repository.

Domains and their vocabulary are written by hand (`domains/`), generic questions come from patterns that are filled from
the domain's own rows (`patterns/`). Nothing is copied from a public data set. The content is the same on every machine
and in every Python version.
"""
