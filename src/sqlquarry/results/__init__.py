"""Decide whether two query results are the same: cells, rows, and the order that a query asks for."""
