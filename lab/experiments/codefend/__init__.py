"""The experiment on backdoors: CoDefend's tables and figures, and its repair compared with other methods."""
