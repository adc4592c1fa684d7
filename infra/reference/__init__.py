"""The reference pages of the documentation, made from the code: `python -m infra.reference`.

Their text comes from the code: docstrings, help texts, types, defaults and bounds. Mend a page that reads badly in the
code.
"""
