"""Which of their own items a user takes again next, learnt from how earlier windows went on.

Here: what users had at an instant (`pairs`), the features of each pair (`features`), the trees
(`booster`), and the recipe that cuts its window at earlier instants and learns what came after them
(`recipe`).
Not here: items that a user never had, but for the popularity that fills a list up.
"""
