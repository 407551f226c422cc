"""Frozen results to figures, pages and tables.

Here: the only user of matplotlib, and all texts of pages and tables.
Not here: computing a result (`evaluation`), storing it (`stores`), choosing the artefacts of a page
(`steps.reporting`).
To add a section to the page of a nightly run: a field of `NightPage`, its artefact in
`steps.reporting.night_page`, a table in `sections` or `sections_data`, and a `part` of
`templates/night.html`.
"""
