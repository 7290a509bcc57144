"""The calculated estimate of scaling, against its formula by hand."""

import pytest

from app.bench.estimate import HOP_SECONDS, Link, Network, efficiency, exchange_seconds, stops_paying

NETWORK = Network("toy", parameters=1_000_000, macs=1_000_000_000, batch=100)
SLOW, FAST = Link("slow", 1e9), Link("fast", 1e15)


def test_ring_all_reduce():
    # 4 MB over four accelerators: six hops of 1 MB each at 1 GB/s.
    assert exchange_seconds(NETWORK, SLOW, 4) == pytest.approx(6 * (1e-3 + HOP_SECONDS))
    assert exchange_seconds(NETWORK, SLOW, 1) == 0


def test_a_step_counts_forward_and_twice_as_much_backward():
    assert NETWORK.step_seconds(100) == pytest.approx(100 * 6e9 / 100e12)


def test_efficiency_falls_with_accelerators_and_rises_with_the_link():
    few, many = (efficiency(NETWORK, SLOW, count, batch=100) for count in (2, 64))
    assert 0 < many < few < 1 == efficiency(NETWORK, SLOW, 1, batch=100)
    assert efficiency(NETWORK, FAST, 2, batch=100) > 0.99


def test_where_it_stops_paying():
    # On one accelerator 800 images take 48 ms, an exchange of 4 MB between two 4.02 ms, between four 6.06 ms:
    # 48, 28.0, 18.1, 13.1, ... ms; the third doubling falls short of one and a half times.
    assert stops_paying(NETWORK, SLOW) == 4
    assert stops_paying(NETWORK, FAST) > 16
