"""Repeat purchases: the chance that a user takes an own item again, learnt from earlier blocks.

Here: the pairs of users and their items at an instant (`pairs`), the features of each pair
(`features`), the trees (`booster`), and the recipe that cuts its window at earlier instants and
learns the repurchases that followed (`recipe`).
Not here: items that a user never had, except for the popularity that fills up a list.
"""
