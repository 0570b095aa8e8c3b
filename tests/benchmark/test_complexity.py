"""Parameters and products, counted by hand for a network of the paper's kind."""

from __future__ import annotations

import pytest
from tiny import make_tiny

from lichen.benchmark.complexity import complexity


def test_the_factorized_model_by_hand(photo):
    """Four 5x5 convolutions of stride 2 and their mirror image, N = 8, M = 12; GDN is a 1x1 product of 8 channels."""
    found = complexity(make_tiny("minnen2018-factorized", photo), 64, 64)
    layers = [(3, 8, 4), (8, 8, 16), (8, 8, 64), (8, 12, 256)]  # inputs, outputs, pixels a position
    convolutions = sum(25 * i * o / a for i, o, a in layers) / 1000
    gdn = sum(8 * 8 / a for a in (4, 16, 64)) / 1000
    assert found.analysis == pytest.approx(convolutions + gdn, rel=0.02)
    assert found.synthesis == pytest.approx(convolutions + gdn, rel=0.02)
    assert found.hyper_analysis == found.prior == 0


def test_every_model_counts(tiny):
    found = complexity(tiny, 64, 64)
    assert found.parameters == sum(p.numel() for p in tiny.parameters())
    assert found.analysis > 0 and found.synthesis > 0
    hyper = getattr(tiny.prior, "h_a", None) is not None
    assert (found.hyper_analysis > 0) == hyper
