"""Matrix -> scorer.

Here: the contract (`contract`), one module per model family, the exact top-K for all of them
(`topk`), and the list of families (`families`). A new family is a module with a `Recipe` and a
`Scorer`, imported in `families`.
Not here: the quality of a scorer (`evaluation`), the choice of the live one (`serving`), the
storage of its bytes (`stores`).
"""
