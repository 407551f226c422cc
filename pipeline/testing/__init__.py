"""Fault injection and the checks that follow it.

Here: programs that break a workspace on purpose and count the damage.
Not here: tests (`tests`), and failpoints (`failpoints`), which the code under test imports.
"""
