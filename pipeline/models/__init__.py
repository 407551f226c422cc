"""Matrix -> scorer.

Here: the contract (`contract`), one module a model family, the exact top-K that serves them all
(`topk`), and the one list of families (`families`).
Not here: how good a scorer is (`evaluation`), which one people see (`serving`), where its bytes
lie (`stores`).
"""
