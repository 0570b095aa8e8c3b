import pytest
import torch

from lichen.coding import exact
from lichen.priors.context import DepthwiseContext, causal_taps, wavefronts


def test_taps_are_those_before_the_centre() -> None:
    assert len(causal_taps()) == 12
    assert causal_taps()[0] == (-2, -2)
    assert causal_taps()[-1] == (0, -1)
    assert set(causal_taps()) - set(causal_taps(2)) == {(-1, 2)}
    assert set(causal_taps()) - set(causal_taps(1)) == {(-1, 1), (-1, 2), (-2, 2)}


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
        for di, dj in causal_taps(context.slope):
            if 0 <= i - di < 9 and 0 <= j - dj < 8:
                expected[i - di, j - dj] = True
        assert torch.equal(changed, expected)


@pytest.mark.parametrize("slope", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 1, 7), (2, 7, 1), (3, 8, 12), (1, 3, 2)])
def test_every_neighbour_lies_on_an_earlier_front(slope: int, size: tuple[int, int, int]) -> None:
    B, h, w = size
    walk = wavefronts(B, h, w, slope)
    assert torch.equal(walk.order.sort().values, torch.arange(B * h * w))
    assert torch.equal(walk.order[walk.rank], torch.arange(B * h * w))
    assert [f.start for f in walk.fronts] == [0, *(f.stop for f in walk.fronts)][:-1]
    for front, neighbours in zip(walk.fronts, walk.neighbours, strict=True):
        assert len(neighbours) == -4 * (-(front.stop - front.start) // 4)
        assert all(n < front.start or n == B * h * w for n in neighbours.flatten().tolist())
        assert bool((neighbours[front.stop - front.start :] == B * h * w).all())


def test_neighbours_are_the_taps_and_pictures_stay_apart() -> None:
    B, h, w = 2, 5, 6
    walk = wavefronts(B, h, w, 2)
    raster = [*walk.order.tolist(), None]
    for front, neighbours in zip(walk.fronts, walk.neighbours, strict=True):
        found = iter(neighbours.flatten().tolist())
        for at in walk.order[front].tolist():
            b, i, j = at // (h * w), at // w % h, at % w
            for di, dj in causal_taps(2):
                inside = i + di >= 0 and 0 <= j + dj < w
                assert raster[next(found)] == (((b * h + i + di) * w + j + dj) if inside else None)


def test_a_kodak_picture_has_this_many_fronts() -> None:
    assert len(wavefronts(1, 32, 48, 3).fronts) == 141
    assert len(wavefronts(1, 32, 48, 1).fronts) == 79


def test_the_exact_twin_agrees_with_the_convolution() -> None:
    torch.manual_seed(0)
    context = DepthwiseContext(4)
    x = exact.snap(torch.randn(1, 6, 7, 4, dtype=torch.float64))
    frozen = exact.freeze(torch.nn.Sequential(context))[0]
    walk = wavefronts(1, 6, 7, context.slope)
    past = torch.cat([x.flatten(0, 2)[walk.order], torch.zeros(1, 4)])
    expected = context(x.float()).flatten(0, 2)[walk.order]
    for front, neighbours in zip(walk.fronts, walk.neighbours, strict=True):
        phi = frozen(past, neighbours)[: front.stop - front.start]
        assert torch.allclose(phi.float(), expected[front], atol=1e-3)
