"""Text rows -> rows of the lake; each row is accepted, quarantined or a duplicate.

Here: `config`; `times`, parsing of instants; `events`, parsing, validation, derived ids and
duplicates; `catalogue`, the same for items and users, and their upsert; `quarantine`, the stored
form of a bad row.
Not here: reading files (`sources`), pseudonyms, locks and commits (`stores`), rules (`validate`),
the retrain decision that new rows may cause (`monitoring.policy`).
To add one more table: a module like `catalogue`, its schema in `columns`, its columns in `sources`.
"""
