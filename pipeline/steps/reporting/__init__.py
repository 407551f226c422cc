"""Builds the page of a run from its artefacts; no arithmetic.

Here: reading the artefacts for a page, and the files of a page.
Not here: HTML and figures (`report`), measurements (`diagnostics`).
"""
