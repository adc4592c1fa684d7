"""Storage and display of results: rows in CSV files, tables in Markdown."""
