import torch

from lichen.coding import exact
from lichen.priors.context import DepthwiseContext, causal_taps, fronts


def test_taps_are_the_twelve_before_the_centre() -> None:
    assert len(causal_taps()) == 12
    assert causal_taps()[0] == (-2, -2)
    assert causal_taps()[-1] == (0, -1)


def test_a_position_depends_on_earlier_ones_alone() -> None:
    torch.manual_seed(0)
    context = DepthwiseContext(3)
    x = torch.randn(1, 9, 8, 3)
    base = context(x)
    for i, j in [(0, 0), (4, 3), (8, 7)]:
        moved = x.clone()
        moved[0, i, j] += 1
        changed = (context(moved) != base).any(-1)[0]
        expected = torch.zeros(9, 8, dtype=torch.bool)
        for di, dj in causal_taps():
            if 0 <= i - di < 9 and 0 <= j - dj < 8:
                expected[i - di, j - dj] = True
        assert torch.equal(changed, expected)


def test_every_neighbour_lies_on_an_earlier_front() -> None:
    for h, w in [(1, 1), (1, 7), (7, 1), (8, 12), (3, 2)]:
        when = torch.full(((h + 2) * (w + 4),), -1)
        walk = fronts(1, h, w)
        for f, front in enumerate(walk):
            assert int(when[front.neighbours].max()) < f
            when[front.padded] = f
        assert torch.equal(torch.cat([f.at for f in walk]).sort().values, torch.arange(h * w))
    assert len(fronts(1, 32, 48)) == 3 * 31 + 47 + 1


def test_fronts_of_a_batch_keep_pictures_apart() -> None:
    one, two = fronts(1, 4, 5), fronts(2, 4, 5)
    for a, b in zip(one, two, strict=True):
        n = len(a.at)
        assert torch.equal(b.at[:n], a.at)
        assert torch.equal(b.at[n:], a.at + 20)


def test_the_exact_twin_agrees_with_the_convolution() -> None:
    torch.manual_seed(0)
    context = DepthwiseContext(4)
    x = exact.snap(torch.randn(1, 6, 7, 4, dtype=torch.float64))
    frozen = exact.freeze(torch.nn.Sequential(context))[0]
    padded = torch.zeros(1, 8, 11, 4, dtype=torch.float64)
    padded[:, 2:, 2:-2] = x
    flat, expected = padded.flatten(0, 2), context(x.float()).flatten(0, 2)
    for front in fronts(1, 6, 7):
        phi = frozen(flat[front.neighbours].view(len(front.at), 12, 4))
        assert torch.allclose(phi.float(), expected[front.at], atol=1e-3)
