from typing import Any

import pytest
import torch
from torch import Tensor

from lichen.coding.coder import Decoder, Encoder, Meter
from lichen.models.minnen2018 import PRESETS, Config, Minnen2018, Prior
from lichen.priors import gaussian
from lichen.priors.context import wavefronts
from lichen.priors.masked_context import FullContext, taps_of

PRIORS: list[Prior] = ["factorized", "scale", "mean-scale", "context", "joint"]


def tiny(prior: Prior, seed: int = 0) -> Minnen2018:
    """Random weights whose latents deviate by a few steps, and whose scales do about as well."""
    torch.manual_seed(seed)
    model = Minnen2018(Config(prior, 12, 18))
    with torch.no_grad():
        model.g_a[6].weight.mul_(100.0)
        p: Any = model.prior
        if prior not in ("factorized", "context"):
            p.h_a.net[4].weight.mul_(40.0)
        if prior in ("scale", "mean-scale"):
            p.h_s.net[4].weight.mul_(8.0)
            p.h_s.net[4].bias[:18] += 3.0
        elif prior in ("context", "joint"):
            p.entropy_parameters.net[4].weight.mul_(5.0)
            p.entropy_parameters.net[4].bias[:18] += 3.0
    return model


def pictures(seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return torch.nn.functional.interpolate(torch.rand(2, 3, 16, 24), size=(64, 128), mode="bilinear")


def parts(prior: Prior) -> set[str]:
    return {"y"} if prior in ("factorized", "context") else {"y", "z"}


# Parameters by the paper's table 1, layer by layer: kernel^2 * inputs * outputs + outputs.


def transforms_count(N: int, M: int) -> int:
    gdn = N + N * N
    g_a = (75 * N + N) + 2 * (25 * N * N + N) + (25 * N * M + M) + 3 * gdn
    g_s = (25 * M * N + N) + 2 * (25 * N * N + N) + (75 * N + 3) + 3 * gdn
    return g_a + g_s


def density_count(C: int) -> int:
    return C * ((3 + 9 + 9 + 9 + 3) + (3 + 3 + 3 + 3 + 1) + (3 + 3 + 3 + 3))


def hyper_count(N: int, M: int) -> int:
    h_a = (9 * M * N + N) + 2 * (25 * N * N + N)
    h_s = (25 * N * M + M) + (25 * M * (3 * M // 2) + 3 * M // 2) + (9 * (3 * M // 2) * 2 * M + 2 * M)
    return h_a + h_s + density_count(N)


def scale_count(N: int, M: int) -> int:
    h_a = (9 * M * N + N) + 2 * (25 * N * N + N)
    h_s = 2 * (25 * N * N + N) + (9 * N * M + M)
    return h_a + h_s + density_count(N)


def entropy_parameters_count(inputs: int, M: int) -> int:
    a, b = 10 * M // 3, 8 * M // 3
    return (inputs * a + a) + (a * b + b) + (b * 2 * M + 2 * M)


def context_count(M: int) -> int:
    return 12 * M * 2 * M + 2 * M  # the causal taps alone


COUNTS = {
    "factorized": lambda N, M: transforms_count(N, M) + density_count(M),
    "scale": lambda N, M: transforms_count(N, M) + scale_count(N, M),
    "mean-scale": lambda N, M: transforms_count(N, M) + hyper_count(N, M),
    "context": lambda N, M: transforms_count(N, M) + context_count(M) + entropy_parameters_count(2 * M, M),
    "joint": lambda N, M: (
        transforms_count(N, M) + hyper_count(N, M) + context_count(M) + entropy_parameters_count(4 * M, M)
    ),
}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("preset", ["low", "high", "small"])
def test_parameters_of_the_published_sizes(name: str, preset: str) -> None:
    cfg = PRESETS[name][preset].config
    assert name == f"minnen2018-{cfg.prior}"
    with torch.device("meta"):
        model = Minnen2018(cfg)
    count = COUNTS[cfg.prior](cfg.N, cfg.M) + 2 * cfg.levels * cfg.M  # gains and inverse gains
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


def test_published_widths() -> None:
    """Section 3 and CompressAI's model zoo: entropy parameters 640, 512, 384 at M = 192."""
    with torch.device("meta"):
        joint = Minnen2018(PRESETS["minnen2018-joint"]["low"].config)
    weights = [p for p in joint.prior.entropy_parameters.parameters() if p.ndim == 2]
    assert [tuple(w.shape) for w in weights] == [(640, 768), (512, 640), (384, 512)]
    assert {k: (v["low"].config.N, v["low"].config.M) for k, v in PRESETS.items()} == {
        "minnen2018-factorized": (128, 192),
        "minnen2018-scale": (128, 192),
        "minnen2018-mean-scale": (128, 192),
        "minnen2018-context": (192, 192),
        "minnen2018-joint": (192, 192),
    }
    assert {(v["high"].config.N, v["high"].config.M) for v in PRESETS.values()} == {(192, 320)}


def test_unknown_configurations() -> None:
    with pytest.raises(ValueError, match="no prior is called"):
        Config("gaussian")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positive"):
        Config("joint", 0, 12)


@pytest.mark.parametrize("prior", PRIORS)
def test_training_reaches_every_parameter(prior: Prior) -> None:
    model = tiny(prior).train()
    x = pictures()
    x_hat, bits = model(x)
    assert x_hat.shape == x.shape
    assert bits.keys() == parts(prior)
    assert all(b.shape == (2,) and bool((b > 0).all()) for b in bits.values())
    (sum(b.sum() for b in bits.values()) + ((x_hat - x) ** 2).mean() * 1e4).backward()
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None, name
            assert bool(torch.isfinite(p.grad).all()), name
            assert bool((p.grad != 0).any()), name


@pytest.mark.parametrize("prior", PRIORS)
def test_eval_is_what_the_decoder_makes(prior: Prior) -> None:
    """Encoder, decoder, meter and eval forward agree bit for bit, at a size that is no multiple of 64."""
    model = tiny(prior).eval()
    x = pictures()[:, :, :48, :80]
    with torch.no_grad():
        x_hat, bits = model(x)
        y = model.analyse(x, None)
        assert y.shape == (2, 3, 5, 18)
        assert float(y.std()) > 1
        for b in range(2):
            encoder = Encoder()
            y_hat = model.code([encoder], y[b : b + 1], None)
            data = encoder.finish()
            assert torch.equal(model.code([Decoder(data)], None, None, (3, 5)), y_hat)
            torch.testing.assert_close(model.synthesise(y_hat, None)[0], x_hat[b], atol=1e-4, rtol=0.0)
            assert float((y_hat - y[b]).abs().max()) < 0.501
            estimate = sum(float(v[b]) for v in bits.values()) / 8
            assert abs(estimate - len(data)) < 0.005 * estimate + 16


@pytest.mark.parametrize("prior", ["scale", "mean-scale", "context", "joint"])
def test_frozen_parameters_are_those_of_training(prior: Prior) -> None:
    """The coder's means and bits against those of the float network, given the same latents before."""
    model = tiny(prior).eval()
    with torch.no_grad():
        y = model.analyse(pictures(), None)
        meter = Meter()
        y_hat = model.code([meter, Meter()], y, None)
        p: Any = model.prior
        psi = None
        if p.h_a is not None:
            z = p.h_a(y)
            psi = p.h_s(p.z_prior.median + torch.round(z - p.z_prior.median))
        mu, sigma = p.parameters_of(psi, y_hat, None)
        v = y_hat - mu  # integers, up to the snapping of weights and activations
        assert float((v - v.round()).abs().max()) < 0.01
        bits = gaussian.bits(v, sigma)[0].sum()
    assert abs(float(bits) / meter.bits["y"] - 1) < 0.02


def test_context_is_causal() -> None:
    """phi at a position moves with the 12 positions before it in the window, and with nothing else."""
    torch.manual_seed(0)
    context = FullContext(3).double()
    x = torch.randn(1, 9, 11, 3, dtype=torch.float64)
    row, column = 4, 5
    phi = context(x)
    assert phi.shape == (1, 9, 11, 6)
    for i in range(9):
        for j in range(11):
            changed = x.clone()
            changed[0, i, j] += 1.0
            moves = bool((context(changed)[0, row, column] != phi[0, row, column]).any())
            inside = abs(i - row) <= 2 and abs(j - column) <= 2 and (i, j) < (row, column)
            assert moves == inside, (i, j)


@pytest.mark.parametrize("prior", ["context", "joint"])
def test_prior_is_causal(prior: Prior) -> None:
    """mu and sigma of a position do not move with its own latents or later ones."""
    model = tiny(prior).double().eval()
    y = torch.randn(1, 8, 8, 18, dtype=torch.float64) * 4
    psi = None if prior == "context" else torch.randn(1, 8, 8, 36, dtype=torch.float64)
    mu, sigma = model.prior.parameters_of(psi, y, None)
    changed = y.clone()
    changed[0, 3, 4:] += 5.0
    changed[0, 4:] -= 3.0
    mu2, sigma2 = model.prior.parameters_of(psi, changed, None)
    before = torch.arange(64).view(8, 8) <= 3 * 8 + 4
    torch.testing.assert_close(mu2[0][before], mu[0][before], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sigma2[0][before], sigma[0][before], rtol=1e-12, atol=1e-12)
    assert bool((mu2[0, 3, 5] != mu[0, 3, 5]).any())


def test_exact_context_is_the_convolution() -> None:
    """The twin on gathered neighbours, front by front, against the float convolution."""
    torch.manual_seed(0)
    context = FullContext(4).double()
    x = torch.randint(-20, 20, (2, 6, 7, 4)).double()
    phi = context(x).detach().flatten(0, 2)
    twin: Any = context.exact()
    walk = wavefronts(2, 6, 7, twin.slope)
    past = torch.cat([x.flatten(0, 2)[walk.order], x.new_zeros(1, 4)])
    for front, neighbours in zip(walk.fronts, walk.neighbours, strict=True):
        found = twin(past, neighbours)[: front.stop - front.start]
        torch.testing.assert_close(found, phi[walk.order[front]], atol=1e-9, rtol=0.0)


def test_taps() -> None:
    kernel = torch.arange(25.0).view(1, 1, 5, 5)
    assert taps_of(kernel).flatten().tolist() == list(range(12))
