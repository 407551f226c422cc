"""Champion -> lists that users see.

Here: lists of K for all users, the fallback list for users without events, fold-in, churn, and the
rows of a publication.
Not here: the commit of a publication (`workspace.publications`, `stores.lake`), the choice
of the champion (`evaluation.gate`). To add a rule for lists, extend `recommend.ListRules`.
"""
