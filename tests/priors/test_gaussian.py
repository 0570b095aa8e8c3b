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


def test_the_pull_leads_to_the_mean_of_a_bin() -> None:
    rng = torch.Generator().manual_seed(0)
    for i in (12, 20, 28, 40, 55):
        sigma = gaussian.SIGMA_MIN * (gaussian.SIGMA_MAX / gaussian.SIGMA_MIN) ** (i / 63)
        v = sigma * torch.randn(400_000, generator=rng, dtype=torch.float64)
        k = v.round()
        error = v - k - gaussian.pull(k, torch.full_like(k, i))
        for size in range(gaussian.FAR + 1):
            here = error[k.abs() == size] * k[k.abs() == size].sign()
            if len(here) > 1000:
                assert abs(float(here.mean())) < 5 * 0.3 / len(here) ** 0.5 + 1e-3
        assert float((error**2).mean()) <= float(((v - k) ** 2).mean())


def test_pulls_lie_within_their_bins_and_fade_with_the_scale() -> None:
    pulls = gaussian.pulls()
    assert pulls.shape == (gaussian.SCALES, gaussian.FAR + 1)
    assert (pulls[:, 0] == 0).all()
    assert (pulls >= 0).all() and (pulls < 0.5).all()
    assert (pulls.diff(dim=0) <= 0).all() and (pulls[:50].diff(dim=1) >= 0).all()


def test_the_pull_is_linear_between_whole_residuals() -> None:
    residual = torch.tensor([-7.5, -2.0, -1.5, -0.25, 0.0, 0.25, 1.0, 1.5, 4.0], requires_grad=True)
    index = torch.full((9,), 14.0)
    _, one, two, three = gaussian.pulls()[14].tolist()
    found = gaussian.pull(residual, index)
    expected = [three, two, (one + two) / 2, one / 4, 0, -one / 4, -one, -(one + two) / 2, -three]
    torch.testing.assert_close(found.detach(), torch.tensor(expected))
    (slope,) = torch.autograd.grad(found.sum(), residual)
    torch.testing.assert_close(slope[[0, 3, 4, 5, 6, 7]], torch.tensor([0, -one, -one, -one, -one, one - two]))
