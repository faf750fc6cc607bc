"""Read SQL: text, syntax trees, schemas and the columns that names refer to."""
