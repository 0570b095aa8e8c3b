import pytest
import torch
from torch import nn

from lichen.coding.exact import freeze
from lichen.priors import coarse_to_fine
from lichen.priors.coarse_to_fine import MeanAndScale, joined
from lichen.priors.window import AROUND5, WindowPredictor


def test_bands_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact: the same bits at once and in bands of one, two and three rows, alone and in a batch."""
    torch.manual_seed(0)
    net = freeze(nn.ModuleList([MeanAndScale(WindowPredictor(4, 4, 6, AROUND5), reach=2)]))[0]
    psi = torch.randn(2, 7, 5, 4, dtype=torch.float64) * 8
    mu, index = net(psi)
    assert mu.shape == index.shape == (2, 7, 5, 3)
    assert len(index.unique()) > 3
    for positions in (1, 5, 10, 15, 100):
        monkeypatch.setattr(coarse_to_fine, "POSITIONS", positions)
        for pictures in (slice(None), slice(1, 2)):
            found = net.in_bands(psi[pictures])
            assert torch.equal(found[0], mu[pictures])
            assert torch.equal(found[1], index[pictures])


def test_joined() -> None:
    y_hat, psi2 = torch.randn(1, 3, 5, 2), torch.randn(1, 3, 5, 4)
    psi1 = torch.arange(2 * 3 * 4.0).view(1, 2, 3, 4)
    found = joined(y_hat, psi2, psi1)
    assert found.shape == (1, 3, 5, 7)
    assert torch.equal(found[..., :2], y_hat)
    assert torch.equal(found[..., 2:6], psi2)
    assert found[0, :2, :2, 6].tolist() == [[0, 1], [2, 3]]
    assert found[0, 2, 4, 6] == psi1[0, 1, 2, 0]
