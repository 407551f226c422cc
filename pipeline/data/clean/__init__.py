"""Treatment of missing values and outliers by policies declared per column.

Guarantees: fill values and bounds come only from the frame given to `learn`, so a holdout is
cleaned with the statistics of its training window; a column without a policy is not changed; each
change is counted.

Here: `policies`, the declarations; `treat`, computing the statistics and applying them.
Not here: validation of rows (`data.validate`), weights of events (`data.features`).
To add one more: a value of `ColumnTreatment.missing` or `outliers`, and its case in `treat`.
"""
