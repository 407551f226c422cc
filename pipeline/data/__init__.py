"""Raw rows -> one training window.

Here: reading files of any declared shape as text, typing and judging rows, cleaning, the time
split, features as of an instant, the matrix. Everything is a plain function of frames and config.
Not here: where files and tables lie (`stores`), when a night runs (`steps`), anything that learns
from the matrix (`models`).
"""
