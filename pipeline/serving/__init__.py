"""Champion -> what users see.

Here: lists of K for all users, the fallback list for users without events, fold-in, churn, and the
rows of a publication.
Not here: the commit of a publication (`workspace.publications`, `stores.lake`), the choice
of the champion (`evaluation.gate`).
"""
