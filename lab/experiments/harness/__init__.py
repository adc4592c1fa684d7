"""The harness of experiments: cells are planned, measured in the order of their worth, stored as rows, and rendered."""
