"""Pages of the console, one module each, and the parts that pages with a form share."""
