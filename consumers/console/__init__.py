"""The console: pages, API and jobs for people."""
