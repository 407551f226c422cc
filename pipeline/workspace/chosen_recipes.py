"""What a config leaves to the data, chosen on windows that end before the holdout begins.

Promises: nothing of the holdout is looked at; what was chosen once is found again in the ledger and
stays, until something else has passed the gate; a history too short for a window leaves the
defaults, and says so.
"""

from __future__ import annotations

from typing import Any

from pipeline.workspace.night import Night


def in_words(night: Night) -> dict[str, str]:
    """Return what the data chose for the recipes that left something open, in words, by name."""
    return {
        name: night.recipes[name].told
        for name, asked in night.asked.items()
        if asked.open and not night.recipes[name].open
    }


def choices(night: Night) -> dict[str, Any]:
    """Return what this night chose, by the hash of the recipe that left it open."""
    return {
        asked.hash: night.recipes[name].model_dump(mode="json")
        for name, asked in night.asked.items()
        if asked.open and not night.recipes[name].open
    }
