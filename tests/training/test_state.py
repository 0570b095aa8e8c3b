"""The average of weights, and how they lie in memory."""

from __future__ import annotations

import torch

from lichen.models import create
from lichen.training.state import Average, _channels_last


def test_the_average_forgets_its_start() -> None:
    net = create("light", "small")
    average = Average(net, 0.99)
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(3.0)
    for step in range(1, 400):
        average.update(net, step)
    assert all(torch.allclose(v, torch.full_like(v, 3.0), atol=1e-3) for v in average.values.values())


def test_kernels_lie_as_their_gradients_come() -> None:
    net = create("light", "small")
    before = {k: v.clone() for k, v in net.state_dict().items()}
    _channels_last(net)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    net.start_from(torch.rand(300, 3, 64, 64))
    x_hat, bits = net(torch.rand(2, 64, 64, 3).permute(0, 3, 1, 2), torch.tensor([20.0, 80.0]))
    (x_hat.mean() + sum(b.mean() for b in bits.values())).backward()
    assert all(p.grad is None or p.grad.stride() == p.stride() for p in net.parameters())
