"""What may be deleted: old versions, files of runs, small files put together.

Here: which lake versions and files of runs are still needed, and the removal of the others.
Not here: how a store removes (`stores`).
"""
