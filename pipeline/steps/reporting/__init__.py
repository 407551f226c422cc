"""Builds the pages of a run and of all nights from artefacts; no arithmetic.

Here: reading the artefacts for a page, and the files of a page.
Not here: HTML and figures (`report`), measurements (`diagnostics`).
"""
