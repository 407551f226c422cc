"""Kills processes of a sandbox at random points and checks the invariants of its workspace."""
