"""Removal of old data: lake versions, files of runs, landed files.

Here: the lake versions and files of runs that are still needed, and the removal of the others.
Not here: the removal inside a store (`stores`).
One more kind of data is one more method of `gc._Maintenance`, with its retention time in
`stores.retention`.
"""
