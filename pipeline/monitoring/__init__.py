"""Responses -> retrain decision.

Here: the attribution of events to the lists that users were shown (`attribution`, `rates`), drift
of data, taste or live quality (`drift`), and the decision to retrain (`policy`): pure functions of
frames.
Not here: the list that was live for a user (`data.exposure`), the score of live lists
(`evaluation.prequential`), reading the lake and requesting a retrain (`steps.feedback`).
To add a signal of drift: yield it in `signals`, with a name of its own, and describe it there.
"""
