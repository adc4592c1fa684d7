"""The databases: tables, frames, cameras, history and queries of the recorder's; tables of the console's own."""
