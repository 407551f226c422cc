"""Measures the gate's false-switch rate and power with the champion's recipe on its own data.

Here: the command (`calibrate`), and the fits of the recipe at earlier cutoffs (`fits`).
Not here: the statistics (`evaluation.calibrate`), and the text and figure (`report.calibration`).
"""
