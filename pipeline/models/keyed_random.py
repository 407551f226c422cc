"""Random numbers keyed by ids: the same id, key and dimension give the same draw on any machine.

Guarantees: a draw does not depend on the row of an id, on the other ids, or on their number. So a
model changes only where the data changed, and the lists of two nightly runs stay similar.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_BLOCK = 1 << 18
"""Draws made at a time: bounds the memory needed beside the result."""


def keyed_seed(key: str) -> int:
    """Return a seed of 32 bits: the first bytes of the sha256 of `key`."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little")


def keyed_normal(ids: NDArray[np.str_], dimensions: int, *, key: str) -> NDArray[np.float32]:
    """Draw one standard normal vector per id.

    The first 64 bits of BLAKE2b of the id under `key` start a SplitMix64 stream (Steele, Lea and
    Flood 2014); Box and Muller turn two of its numbers into two draws.

    Parameters
    ----------
    ids
        ``(n,)`` str.
    dimensions
        Length ``d`` of a vector; a shorter vector is the beginning of a longer one.
    key
        Names the purpose and the seed; another key gives other draws.

    Returns
    -------
    ``(n, d)`` float32.
    """
    draws = np.empty((len(ids), dimensions), np.float32)
    step = max(1, _BLOCK // max(1, dimensions))
    for at in range(0, len(ids), step):
        draws[at : at + step] = _draw(ids[at : at + step], dimensions, key)
    return draws


def _draw(ids: NDArray[np.str_], dimensions: int, key: str) -> NDArray[np.float32]:
    pairs = (dimensions + 1) // 2
    bits = _splitmix(_hashes(ids, key)[:, None], np.arange(1, 2 * pairs + 1, dtype=np.uint64))
    # 53 bits fill a float64; the half keeps the result above 0, whose logarithm is infinite.
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[:, 0::2]))
    angle = (2.0 * np.pi * uniform[:, 1::2]).astype(np.float32)
    draws = np.empty((len(ids), 2 * pairs), np.float32)
    draws[:, 0::2] = radius * np.cos(angle)
    draws[:, 1::2] = radius * np.sin(angle)
    return draws[:, :dimensions]


def _hashes(ids: NDArray[np.str_], key: str) -> NDArray[np.uint64]:
    """Hash each id to ``(n,)`` uint64."""
    # BLAKE2b takes keys of at most 64 bytes, so the key itself is hashed first.
    keyed = hashlib.blake2b(digest_size=8, key=hashlib.sha256(key.encode()).digest())
    digests = bytearray()
    for name in ids.tolist():
        digest = keyed.copy()
        digest.update(name.encode())
        digests += digest.digest()
    return np.frombuffer(bytes(digests), dtype="<u8").astype(np.uint64)


def _splitmix(start: NDArray[np.uint64], step: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the `step`-th number of the streams that begin at `start`."""
    z = start + step * _GAMMA
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
