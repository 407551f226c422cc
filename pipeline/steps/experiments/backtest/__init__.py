"""Replays past days in sandboxes, once for each retrain schedule, and compares the schedules."""
