"""Raw rows -> one training window.

Here: reading files as text, parsing and validating rows, cleaning, the time split, features as of
an instant, the matrix. All functions take frames and config, and read no path and no clock.
Not here: storage of files and tables (`stores`), the order of tasks (`steps`), models (`models`).
To add one more: a source format in `sources`, a validation rule in `validate.rules`, a policy for
missing values in `clean.policies`, a feature of an item or user in `feature_encoding`.
"""
