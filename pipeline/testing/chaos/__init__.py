"""Kills processes of a sandbox at random points and checks the invariants of its workspace.

Here: the episodes and their counts (`chaos`), the processes to kill (`fork_server`), the shop that
they work on (`synthetic_shop`), and the content of a workspace that is checked (`invariants`).
Not here: the points of a kill (`failpoints`), and kills at one chosen point (`tests/crash`).
To add an invariant: read the content in `invariants`, and compare it in `chaos`.
"""
