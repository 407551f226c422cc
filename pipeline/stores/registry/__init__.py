"""MLflow as a mirror: results of nightly runs for display and comparison.

Here: the client that copies written files to MLflow (`client`), its input (`records`), the runs of
a nightly run (`runs`), the winner as an MLflow model (`package`), the code that
`mlflow models serve` runs (`pyfunc_model`), connection and errors (`connection`).
Not here: the meaning of a metric (`evaluation`), the live version (`stores.lake`). Only version
numbers and aliases originate in MLflow; all else can be mirrored again from the run's files.
"""
