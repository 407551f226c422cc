from __future__ import annotations

import hashlib
import math

import numpy as np

from pipeline.models.keyed_random import keyed_normal

IDS = np.array([f"item-{n}" for n in range(20_000)])


def test_a_draw_belongs_to_its_id():
    draws = keyed_normal(IDS, 9, key="k")
    assert (draws.shape, draws.dtype) == ((20_000, 9), np.float32)
    order = np.random.default_rng(0).permutation(len(IDS))[:500]
    assert np.array_equal(keyed_normal(IDS[order], 9, key="k"), draws[order])
    assert np.array_equal(keyed_normal(IDS[:1], 4, key="k"), draws[:1, :4])


def test_other_keys_and_ids_are_other_draws():
    draws = keyed_normal(IDS, 2, key="als|item|0|0")
    assert not np.isclose(draws, keyed_normal(IDS, 2, key="als|item|0|1")).mean() > 0.01
    assert len(np.unique(draws[:, 0])) > 19_900


def test_draws_are_standard_normal_and_independent():
    draws = keyed_normal(IDS, 8, key="k").astype(np.float64)
    error = 1 / math.sqrt(draws.size)
    assert abs(draws.mean()) < 4 * error
    assert abs(draws.var() - 1) < 4 * math.sqrt(2) * error
    assert abs((draws**4).mean() - 3) < 4 * math.sqrt(96) * error
    correlation = np.corrcoef(draws.T) - np.eye(8)
    assert abs(correlation).max() < 4.5 / math.sqrt(len(IDS))


def test_the_stream_is_splitmix64_of_the_keyed_hash():
    mask = 2**64 - 1
    key = hashlib.sha256(b"k").digest()
    state = int.from_bytes(hashlib.blake2b(b"item-7", digest_size=8, key=key).digest(), "little")
    numbers = []
    for _ in range(4):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        numbers.append((((z ^ (z >> 31)) >> 11) + 0.5) * 2.0**-53)
    expected = []
    for radius, angle in (numbers[:2], numbers[2:]):
        length = math.sqrt(-2 * math.log(radius))
        expected += [
            length * math.cos(2 * math.pi * angle),
            length * math.sin(2 * math.pi * angle),
        ]
    np.testing.assert_allclose(
        keyed_normal(np.array(["item-7"]), 4, key="k")[0], expected, atol=1e-5
    )


def test_no_ids_and_unicode():
    assert keyed_normal(np.array([], dtype=np.str_), 3, key="k").shape == (0, 3)
    assert np.isfinite(keyed_normal(np.array(["ключ", ""]), 3, key="k")).all()
