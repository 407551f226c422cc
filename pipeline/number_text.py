"""Numbers in sentences, tables and figures: one way to write each kind.

Guarantees: a rounded 0 has no sign; a share above 0 is never written as 0 %, one below 1 never as
100 %.
"""

from __future__ import annotations

import math
from typing import Final

MINUS: Final = "−"
"""U+2212 on pages, in terminals and in files. On a page it is as wide as a plus sign and screen
readers read it as "minus"; one character everywhere lets a reader search for a figure. JSON fields
hold numbers, so no program has to parse it.
"""


def decimal(value: float, places: int = 1) -> str:
    """Format a number with fixed decimals, such as a z-score: ``−1.2``.

    Parameters
    ----------
    value
        Finite.
    places
        Number of decimals.
    """
    # "z" writes −0.0 as 0.0.
    return f"{value:z,.{places}f}".replace("-", MINUS)


def change(value: float) -> str:
    """Format a relative change with its sign and one decimal: ``+1.5 %``, ``−40.0 %``, ``0.0 %``.

    A change that is not finite is ``n/a``.
    """
    if not math.isfinite(value):
        return "n/a"
    text = decimal(100 * value)
    # A sign before a rounded 0 would claim a direction.
    return f"{text} %" if text.startswith((MINUS, "0.0")) else f"+{text} %"


NO_CHANGE: Final = change(0.0)


def share(value: float) -> str:
    """Format a share of a whole: ``93.4 %``, below 1 % with two decimals: ``0.23 %``."""
    percent = 100 * value
    if 0 < percent < 0.005:
        return "under 0.01 %"
    if 99.95 <= percent < 100:
        return "over 99.9 %"
    # 0 and 100 without decimals: exactly none, exactly all.
    if percent in (0, 100):
        return f"{percent:.0f} %"
    return f"{percent:.2f} %" if percent < 0.995 else f"{percent:.1f} %"


def chance(p: float) -> str:
    """Format a probability: ``p 0.021``, ``p under 0.001``."""
    if math.isnan(p):
        return "p unknown"
    if p < 0.001:
        return "p under 0.001"
    # A probability is never 1.
    return "p over 0.999" if p > 0.999 else f"p {p:.3f}"
