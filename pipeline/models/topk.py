"""Scores -> lists: exact top-K, blocked, never padded.

(written next)
"""
