"""Reading SQL: text, syntax trees, schemas and the columns that names mean."""
