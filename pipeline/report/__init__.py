"""Frozen results -> figures, page, JSON.

Here: the one user of matplotlib, and the wording of pages and tables.
Not here: computing a result (`evaluation`), storing it (`stores`).
"""
