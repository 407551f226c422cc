"""Trains a version again from its pinned data and explains any difference."""
