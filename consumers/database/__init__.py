"""The recorder's database: tables, frames, cameras, history and queries."""
