"""The reference pages of the documentation, made from the code: `python -m infra.reference`.

What stands there is what the code says of itself: docstrings, help texts, types, defaults and bounds. So a page that
reads badly is mended in the code.
"""
