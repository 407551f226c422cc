"""Champion -> what people see.

Here: lists of K for everybody, the fallback for those we know nothing of, and the rows of a
publication.
Not here: the swap itself (`stores.lake`), the choice of the champion (`evaluation.gate`).
"""
