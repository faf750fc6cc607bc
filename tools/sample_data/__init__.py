"""Generator of the sample data set in `sqlquarry.data.sample`. Run `python -m tools.sample_data` in the repository.

Domains and their vocabulary are written by hand (`domains/`). Generic questions come from patterns that are filled with
values from the domain's own rows (`patterns/`). Nothing is copied from a public data set. The output is the same on
every machine and in every Python version.
"""
