"""How results are kept and shown: rows in CSV files, tables in Markdown."""
