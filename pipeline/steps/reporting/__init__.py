"""Artefacts of a run to its page; no arithmetic.

Here: reading the artefacts for a page, and the files of a page.
Not here: HTML and figures (`report`), measuring what a page shows (`diagnostics`).
"""
