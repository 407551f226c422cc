"""Frozen results -> figures, page, JSON.

Here: the one user of matplotlib, and the words a person reads about a night.
Not here: computing a result (`evaluation`), storing it (`stores`).
"""
