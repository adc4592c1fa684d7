"""Jobs that users start in the console: their commands, output, rows and bundles."""
