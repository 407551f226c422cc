"""Artefacts of a run to its page; no arithmetic.

Here: reading artefacts and handing them to `report`, and where a page's files lie.
Not here: markup and figures (`report`), and figures that nobody computed yet (`diagnostics`).
"""
