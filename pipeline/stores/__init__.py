"""The doors, each library named in one place.

Here: the Delta lake (`lake`), the files of a run (`runs`), the promotion ledger (`ledger`), the
vault of pseudonyms (`vault`), MLflow (`registry`). A store knows one library, bytes and sums.
Not here: what a metric, a recipe or a list means.
"""
