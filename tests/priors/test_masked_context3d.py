import pytest
import torch
from torch import Tensor

from lichen.coding.exact import freeze, snap
from lichen.priors.masked_context3d import KEPT, SLOPES, MaskedConv3d, VolumeContext, taps


def network(features: int = 5, levels: int = 6) -> VolumeContext:
    torch.manual_seed(0)
    net = VolumeContext(features, levels)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2)
    return net


def logits_of_walk(net: VolumeContext, v: Tensor, outside: Tensor) -> tuple[Tensor, int]:
    """(B h w C, L), position by position; and the number of fronts."""
    twin = freeze(torch.nn.Sequential(net))[0]
    logits, coded = torch.full((v.numel(), 6), torch.nan, dtype=torch.float64), torch.zeros(v.numel(), dtype=torch.bool)
    walk, steps = twin.walk(tuple(v.shape), outside), 0
    for positions, found in walk:
        assert not bool(coded[positions].any())
        coded[positions] = True
        logits[positions] = found
        walk.put(v.flatten()[positions])
        steps += 1
    assert bool(coded.all())
    return logits, steps


def test_taps() -> None:
    assert len(taps(False)) == 13
    assert taps(True) == [*taps(False), (0, 0, 0)]
    assert taps(False)[:9] == [(-1, i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    assert taps(False)[9:] == [(0, -1, -1), (0, -1, 0), (0, -1, 1), (0, 0, -1)]


def test_every_tap_lies_on_an_earlier_front_that_is_kept() -> None:
    steps = [SLOPES[0] * c + SLOPES[1] * i + j for c, i, j in taps(False)]
    assert max(steps) == -1
    assert min(steps) == -(KEPT - 1)
    for smaller in ((3, 2), (4, 1)):  # and no smaller slopes would do
        assert max(smaller[0] * c + smaller[1] * i + j for c, i, j in taps(False)) >= 0


@pytest.mark.parametrize("itself", [False, True])
def test_a_masked_convolution_sees_its_taps_alone(itself: bool) -> None:
    torch.manual_seed(0)
    conv = MaskedConv3d(2, 3, itself).double()
    x = torch.randn(1, 2, 4, 5, 6, dtype=torch.float64)
    before = conv(x)
    assert before.shape == (1, 3, 3, 3, 4)
    c, i, j = 2, 2, 3  # of the input; the output's is (1, 1, 2)
    for dc in (-2, -1, 0, 1):
        for di in (-2, -1, 0, 1, 2):
            for dj in (-2, -1, 0, 1, 2):
                changed = x.clone()
                changed[0, :, c + dc, i + di, j + dj] += 1
                moves = bool((conv(changed) != before)[0, :, 1, 1, 2].any())
                assert moves == ((dc, di, dj) in taps(itself)), (dc, di, dj)


def test_the_receptive_field_is_causal_and_5x9x9() -> None:
    """A logit moves with symbols before it in raster order, up to 4 channels back and 4 places to the sides."""
    net = VolumeContext(4, 6).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(p.abs())  # all ReLUs open
    v = torch.rand(1, 11, 12, 7, dtype=torch.float64, requires_grad=True)
    c, i, j = 5, 5, 6
    (gradient,) = torch.autograd.grad(net(v, torch.tensor(0.2))[0, i, j, c].sum(), v)
    seen = {tuple(t) for t in gradient[0].nonzero().tolist()}
    assert all((k, a, b) < (c, i, j) for a, b, k in seen)
    assert (min(k for _, _, k in seen), max(k for _, _, k in seen)) == (c - 4, c)
    assert (min(a for a, _, _ in seen), max(a for a, _, _ in seen)) == (i - 4, i + 4)
    assert (min(b for _, b, _ in seen), max(b for _, b, _ in seen)) == (j - 4, j + 4)
    # in its own channel each row up allows one place more to the right
    assert {(a, b) for a, b, k in seen if k == c} == {
        (i - up, b) for up in range(5) for b in range(j - 4, j + up + (up > 0))
    }
    assert len([0 for a, b, k in seen if k == c - 4]) == 9 * 9


@pytest.mark.parametrize("size", [(1, 6, 7, 5), (2, 3, 5, 4), (1, 1, 1, 1), (1, 1, 9, 2), (3, 5, 1, 3), (1, 2, 2, 9)])
def test_the_walk_gives_the_convolutions_logits(size: tuple[int, int, int, int]) -> None:
    net = network()
    v, outside = snap(1.5 * torch.randn(*size, dtype=torch.float64)), torch.tensor(-0.75, dtype=torch.float64)
    found, steps = logits_of_walk(net, v, outside)
    wanted = net.double()(v, outside)
    assert wanted.shape == (*size, 6)
    assert float(wanted.detach().std()) > 0.1
    torch.testing.assert_close(found.view(wanted.shape), wanted.detach(), rtol=0, atol=2e-3)
    _, h, w, C = size
    assert steps == len({4 * c + 2 * i + j for c in range(C) for i in range(h) for j in range(w)})


def test_the_walk_is_exact() -> None:
    """A picture's logits are the same bits alone and among others, on one thread and on two."""
    net = network()
    v, outside = snap(torch.randn(2, 3, 4, 3, dtype=torch.float64)), torch.tensor(0.25, dtype=torch.float64)
    together = logits_of_walk(net, v, outside)[0].view(2, -1)
    threads = torch.get_num_threads()
    for n in (1, 2):
        torch.set_num_threads(n)
        for b in range(2):
            assert torch.equal(logits_of_walk(net, v[b : b + 1], outside)[0].flatten(), together[b])
    torch.set_num_threads(threads)


def test_fronts_of_a_kodak_picture() -> None:
    net = freeze(torch.nn.Sequential(VolumeContext(24, 6)))[0]
    assert len(net.walk((1, 64, 96, 32), torch.zeros((), dtype=torch.float64)).fronts) == 346
