"""Text rows -> rows of the lake, with every row accounted for.

Here: `config`; `times`, instants out of text; `events`, typing, judging, derived ids and
duplicates; `catalogue`, the same for items and users, and their upsert; `quarantine`, what is
kept of a bad row.
Not here: reading files (`sources`), pseudonyms, locks and commits (`stores`), rules (`validate`),
what new rows ask for (`monitoring.policy`).
"""
