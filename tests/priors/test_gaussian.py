import hashlib

import numpy as np
import torch

from lichen.coding.tables import PRECISION
from lichen.priors import gaussian


def test_tables_are_these_very_integers() -> None:
    joined = np.concatenate(gaussian.tables().frequencies).astype("<i8").tobytes()
    assert hashlib.sha256(joined).hexdigest()[:16] == "ff240fe632c4215e"


def test_tables_are_the_density_that_training_uses() -> None:
    tables = gaussian.tables()
    for i in (0, 20, 40, 63):
        sigma = gaussian.SIGMA_MIN * (gaussian.SIGMA_MAX / gaussian.SIGMA_MIN) ** (i / 63)
        v = torch.arange(int(tables.low[i]), int(tables.high[i]) + 1)
        p = 2 ** -gaussian.bits(v.double(), torch.tensor(sigma, dtype=torch.float64))
        mine = torch.from_numpy(tables.frequencies[i][:-1] / 2.0**PRECISION)
        assert torch.allclose(p, mine, atol=2e-4 * float(p.max()) + 1e-7)


def test_scales_find_the_nearest_table() -> None:
    share = torch.arange(64, dtype=torch.float64) / 63
    sigma = gaussian.SIGMA_MIN * (gaussian.SIGMA_MAX / gaussian.SIGMA_MIN) ** share
    for off in (0.95, 1.0, 1.05):
        assert torch.equal(gaussian.ExactLinearScale()(sigma * off), torch.arange(64))
        assert torch.equal(gaussian.ExactLogScale()((sigma * off).log()).long(), torch.arange(64))
    assert gaussian.ExactLinearScale()(torch.tensor([-1.0, 1e9], dtype=torch.float64)).tolist() == [0, 63]


def test_bits_and_their_gradients() -> None:
    v, sigma = torch.tensor([0.0, 3.0], requires_grad=True), torch.tensor([0.01, 0.5], requires_grad=True)
    gaussian.bits(v, sigma).sum().backward()
    assert v.grad is not None and sigma.grad is not None
    assert v.grad[1] > 0
    assert sigma.grad[1] < 0  # an outlier asks for a larger scale


def test_rounded_bits_count_what_a_file_has_and_let_the_latent_learn_from_noise() -> None:
    torch.manual_seed(0)
    v, sigma = 3 * torch.randn(1000), torch.rand(1000) + 0.2
    v1, sigma1 = v.clone().requires_grad_(), sigma.clone().requires_grad_()
    torch.manual_seed(1)
    found = gaussian.rounded_bits(v1, sigma1)
    assert torch.allclose(found, gaussian.bits(v.round(), sigma), atol=1e-5)
    found.sum().backward()

    sigma2 = sigma.clone().requires_grad_()
    gaussian.bits(v.round(), sigma2).sum().backward()
    assert torch.equal(sigma1.grad, sigma2.grad)
    v3 = v.clone().requires_grad_()
    torch.manual_seed(1)
    gaussian.noisy_bits(v3, sigma).sum().backward()
    assert torch.equal(v1.grad, v3.grad)
