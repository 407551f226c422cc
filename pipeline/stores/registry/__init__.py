"""MLflow, a mirror for people: what a night found, side by side with other nights.

Here: the client that copies files already written (`client`), the records it is given (`records`),
the runs of a night (`runs`), the winner as an MLflow model (`package`) and the code that
`mlflow models serve` runs for it (`pyfunc_model`), how MLflow is reached and fails (`connection`).
Not here: what a metric means (`evaluation`), the truth about what is live (`stores.lake`); only
version numbers and aliases are born in MLflow, and a night can be mirrored again from its files.
"""
