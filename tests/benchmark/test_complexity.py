from collections.abc import Callable

import pytest
import torch
from torch import nn

from lichen.benchmark.complexity import Complexity, complexity, products
from lichen.models.balle2018 import Balle2018, Config
from lichen.models.base import Model
from lichen.models.light import Config as LightConfig
from lichen.models.light import Light
from lichen.models.minnen2018 import Config as Minnen2018Config
from lichen.models.minnen2018 import Minnen2018


def kmac(found: Complexity) -> list[float]:
    return [found.analysis, found.synthesis, found.hyper_analysis, found.prior]


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda: torch.ones(3, 4) @ torch.ones(4, 5), 60),
        (lambda: nn.functional.linear(torch.ones(3, 4), torch.ones(5, 4), torch.ones(5)), 60),
        (lambda: torch.einsum("bij,bjk->bik", torch.ones(2, 3, 4), torch.ones(2, 4, 5)), 120),
        (lambda: nn.functional.conv2d(torch.ones(1, 2, 8, 8), torch.ones(5, 2, 3, 3), padding=1), 5760),
        (lambda: nn.functional.conv2d(torch.ones(1, 2, 8, 8), torch.ones(2, 1, 3, 3), padding=1, groups=2), 1152),
        (lambda: torch.ones(3, 1) * torch.ones(4), 12),
        (lambda: torch.ones(12).addcmul_(torch.ones(12), torch.ones(12)).mul_(2.0), 24),
        (lambda: torch.ones(12) + torch.ones(12).exp(), 0),
        (lambda: 3 * torch.arange(12), 0),
    ],
)
def test_products(run: Callable[[], torch.Tensor], expected: int) -> None:
    with torch.no_grad():
        assert products(run)[1] == expected


def test_transforms_of_three_convolutions() -> None:
    """Kernel^2 x inputs x outputs at each layer's resolution; GDN N products a value, its square, and the factor.

    The simplified form takes no squares, and divides.
    """
    N, M = 6, 10
    convolutions = 81 * 3 * N / 16 + 25 * N * N / 64 + 25 * N * M / 256
    values = N / 16 + N / 64
    for activation, in_analysis, in_synthesis in (
        ("relu", 0, 0), ("gdn", N + 2, N + 2), ("simplified-gdn", N, N + 1)
    ):  # fmt: skip
        found = complexity(Balle2018(Config(activation, "plain", N, M)))  # type: ignore[arg-type]
        expected = [convolutions + values * in_analysis, convolutions + values * in_synthesis, 0, 0]
        assert [1000 * k for k in kmac(found)] == pytest.approx(expected, rel=1e-9)


def test_what_is_done_once_does_not_count() -> None:
    """Kernels from their spectra; of gains all but their product with the latents."""
    N, M = 6, 10
    plain = kmac(complexity(Balle2018(Config("relu", "plain", N, M))))
    assert kmac(complexity(Balle2018(Config("relu", "rdft", N, M)))) == plain
    gains = kmac(complexity(Balle2018(Config("relu", "plain", N, M, levels=4))))
    assert gains[2:] == plain[2:] == [0, 0]
    assert gains[0] - plain[0] == pytest.approx(M / 256 / 1000, rel=1e-9)


def test_joint_prior() -> None:
    """Table 1 of Minnen et al. 2018: context with its 12 causal taps, entropy parameters of 4 M, 10 M / 3, 8 M / 3."""
    N, M = 6, 12
    found = complexity(Minnen2018(Minnen2018Config("joint", N, M)))
    h_a = 9 * M * N / 256 + 25 * N * N / 1024 + 25 * N * N / 4096
    H = 3 * M // 2
    h_s = 25 * N * M / 4096 + 25 * M * H / 1024 + 9 * H * 2 * M / 256
    a, b = 10 * M // 3, 8 * M // 3
    entropy_parameters = (4 * M * a + a * b + b * 2 * M) / 256
    context = 12 * M * 2 * M / 256
    assert found.hyper_analysis == pytest.approx(h_a / 1000, rel=1e-9)
    assert found.prior == pytest.approx((h_s + entropy_parameters + context) / 1000, rel=1e-9)
    assert found.encoder == pytest.approx(found.analysis + found.hyper_analysis + found.prior)
    assert found.decoder == pytest.approx(found.prior + found.synthesis)


def test_depthwise_layers_count() -> None:
    """The light prior, layer by layer: its context sees 9 taps of values and magnitudes, two outputs a channel."""
    h, e, M, N = 5, 7, 6, 3
    found = complexity(Light(LightConfig(c1=8, c2=8, M=M, N=N, n1=1, n2=1, h=h, e=e, levels=2)))
    h_s = N * M / 16 + N * 4 * h / 16 + h * 4 * h / 4 + 9 * h + h * e
    context = 9 * 2 * 2 * M
    entropy_parameters = 2 * M * e + e * e + e * 2 * M
    by_latent = 6 * M  # what the context sees, means, and four for the pull to the mean of a bin
    expected = (h_s + context + entropy_parameters + by_latent) / 256 / 1000
    assert found.prior == pytest.approx(expected, rel=1e-9)


def test_every_model(tiny: Model) -> None:
    found = complexity(tiny)
    assert found.analysis > 0 and found.synthesis > 0
    assert found.hyper_analysis >= 0 and found.prior >= 0


def test_the_model_comes_back_as_it_was() -> None:
    model = Balle2018(Config("relu", "plain", 4, 4))
    for training in (True, False):
        assert complexity(model.train(training)).parameters == sum(p.numel() for p in model.parameters())
        assert model.training == training
