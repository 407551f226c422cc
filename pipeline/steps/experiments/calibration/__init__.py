"""Measures the gate's false-switch rate and power with the champion's recipe on its own data."""
