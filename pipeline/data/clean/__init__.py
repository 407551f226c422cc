"""Missing values and outliers, by a policy that somebody declared for a column.

Promises: what is filled in, and where values are cut, is learnt on the frame given to `learn` and
nowhere else, so a holdout is cleaned with the figures of its training window; nothing is touched
without a policy; everything that was done is counted.

Here: `policies`, what may be declared; `treat`, learning the figures and applying them.
Not here: what makes a row bad (`data.validate`), what a value is worth (`data.features`).
"""
