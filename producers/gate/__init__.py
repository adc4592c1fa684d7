"""When a camera sends at all: its schedule, and whether anything moves."""
