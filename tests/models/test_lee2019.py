from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny import make_tiny
from torch import Tensor

import lichen
from lichen import codec, tiles
from lichen.coding.coder import Decoder, Encoder, Meter
from lichen.models.lee2019 import PRESETS, Config, Lee2019
from lichen.priors import gaussian

Photo = npt.NDArray[np.uint8]

BASE, HYBRID = Config(8, 6), Config(8, 6, 5)


def tiny(cfg: Config, seed: int = 0) -> Lee2019:
    """Random weights whose latents deviate by a few steps, and whose scales do about as well."""
    torch.manual_seed(seed)
    model = Lee2019(cfg)
    with torch.no_grad():
        p: Any = model.prior
        model.g_a[6].weight.mul_(100.0)
        p.h_a.net[4].weight.mul_(40.0)
        p.h_s.net[4].weight.mul_(8.0)
        p.h_s.net[4].bias[cfg.M1 :] += 5.0
        p.context.weight.mul_(3.0)
        p.entropy_parameters.head.linear.weight.mul_(3.0)
        p.entropy_parameters.head.linear.bias[cfg.M1 :] += 1.7
    return model


def pictures(seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return torch.nn.functional.interpolate(torch.rand(2, 3, 16, 24), size=(64, 128), mode="bilinear")


# Parameters layer by layer: kernel^2 * inputs * outputs + outputs.


def conv_count(inputs: int, outputs: int, kernel: int) -> int:
    return kernel * kernel * inputs * outputs + outputs


def transforms_count(N: int, M: int) -> int:
    gdn = N + N * N
    return (
        conv_count(3, N, 5) + 2 * conv_count(N, N, 5) + conv_count(N, M, 5)
        + conv_count(M, N, 5) + 2 * conv_count(N, N, 5) + conv_count(N, 3, 5)
        + 6 * gdn
    )  # fmt: skip


def hyper_count(N: int, M: int) -> int:
    h_a = conv_count(M, N, 3) + 2 * conv_count(N, N, 5)
    h_s = 2 * conv_count(N, N, 5) + conv_count(N, M, 3)
    return h_a + h_s + N  # a sigma for each channel of z


def f_count(M: int) -> int:
    """4x4 windows of c'' and c' -> 4x4 -> 2x2 -> 2x2 -> mu and log sigma."""
    return conv_count(2 * M, M, 3) + 2 * conv_count(M, M, 3) + (4 * M * 2 * M + 2 * M)


@pytest.mark.parametrize(("name", "preset"), [(n, p) for n, presets in PRESETS.items() for p in presets])
def test_parameters_of_the_published_sizes(name: str, preset: str) -> None:
    cfg = PRESETS[name][preset].config
    with torch.device("meta"):
        model = Lee2019(cfg)
    M = cfg.M1 + cfg.M2
    count = transforms_count(cfg.N, M) + hyper_count(cfg.N, M) + f_count(cfg.M1) + 2 * cfg.levels * M
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count
    assert preset != "small" or count < 1_000_000


def test_published_widths_and_recipes() -> None:
    """M of the public code; lmbda rises from level to level as the paper's own falls from 0.5 to 0.01."""
    presets = [PRESETS["lee2019-base"]["published"], *(PRESETS["lee2019-hybrid"][k] for k in ("192", "228", "408"))]
    assert [(p.config.M1, p.config.M2) for p in presets] == [(192, 0), (192, 192), (192, 228), (192, 408)]
    lmbda = [v for p in presets for v in p.recipe["lmbda"]]
    assert len(lmbda) == 9
    assert lmbda == sorted(lmbda)
    assert lmbda[0] == pytest.approx(1 / 650, abs=1e-5)
    assert lmbda[-1] == pytest.approx(99 / 650, abs=1e-5)


def test_unknown_configurations() -> None:
    for widths in ((0, 12), (8, 0), (8, 12, -1)):
        with pytest.raises(ValueError, match="positive"):
            Config(*widths)


@pytest.mark.parametrize("cfg", [BASE, HYBRID])
def test_training_reaches_every_parameter(cfg: Config) -> None:
    model = tiny(cfg).train()
    x = pictures()
    x_hat, bits = model(x)
    assert x_hat.shape == x.shape
    assert bits.keys() == {"y", "z"}
    assert all(b.shape == (2,) and bool((b > 0).all()) for b in bits.values())
    (sum(b.sum() for b in bits.values()) + ((x_hat - x) ** 2).mean() * 1e4).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert bool(torch.isfinite(p.grad).all()), name
        assert bool((p.grad != 0).any()), name


@pytest.mark.parametrize("cfg", [BASE, HYBRID])
@pytest.mark.parametrize("size", [(64, 128), (45, 83), (1, 17)])
def test_eval_is_what_the_decoder_makes(cfg: Config, size: tuple[int, int]) -> None:
    """Encoder, decoder, meter and eval forward agree bit for bit, whatever the picture's size."""
    model = tiny(cfg).eval()
    x = pictures()[:, :, : size[0], : size[1]]
    shape = (-(-size[0] // 16), -(-size[1] // 16))
    with torch.no_grad():
        x_hat, bits = model(x)
        assert x_hat.shape == x.shape
        y = model.analyse(x, None)
        assert y.shape == (2, *shape, cfg.M1 + cfg.M2)
        assert float(y.std()) > 0.5
        for b in range(2):
            encoder = Encoder()
            y_hat = model.code([encoder], y[b : b + 1], None)
            data = encoder.finish()
            assert torch.equal(model.code([Decoder(data)], None, None, shape), y_hat)
            torch.testing.assert_close(model.synthesise_to(y_hat, None, size)[0], x_hat[b], atol=1e-4, rtol=0.0)
            assert float((y_hat - y[b]).abs().max()) < 0.501
            estimate = sum(float(v[b]) for v in bits.values()) / 8
            assert abs(estimate - len(data)) < 0.005 * estimate + 16


@pytest.mark.parametrize("cfg", [BASE, HYBRID])
def test_frozen_parameters_are_those_of_training(cfg: Config) -> None:
    """The coder's means and bits against those of the float network, given the same latents before."""
    model = tiny(cfg).eval()
    with torch.no_grad():
        y = model.analyse(pictures(), None)
        meter = Meter()
        y_hat = model.code([meter, Meter()], y, None)
        p: Any = model.prior
        psi = p.h_s(torch.round(p.h_a(y)))
        mu, sigma = p.parameters_of(psi, y_hat, None)
        v = y_hat - mu  # integers, up to the snapping of weights and activations
        assert float((v - v.round()).abs().max()) < 0.02
        bits = gaussian.bits(v, sigma)[0].sum()
    assert abs(float(bits) / meter.bits["y"] - 1) < 0.02


def test_a_distribution_sees_its_windows_alone() -> None:
    """mu and sigma of y_1 move with the 14 positions of y_1 before them, and with all 16 of h_s; y_2 has neither."""
    model: Any = tiny(HYBRID).double().eval()
    prior, row, column = model.prior, 4, 3
    y = torch.randn(1, 8, 8, 11, dtype=torch.float64) * 4
    c = torch.randn(1, 8, 8, 6, dtype=torch.float64) * 4
    sigma_2 = torch.rand(1, 8, 8, 5, dtype=torch.float64) + 0.5

    def parameters(y: Tensor, c: Tensor) -> Tensor:
        psi = torch.cat([prior.h_s.window(c), sigma_2], dim=-1)
        mu, sigma = prior.parameters_of(psi, y, None)
        assert bool((mu[..., 6:] == 0).all())
        assert torch.equal(sigma[..., 6:], sigma_2)
        return torch.cat([mu, sigma], dim=-1)[0, row, column]

    base = parameters(y, c)
    for i in range(8):
        for j in range(8):
            inside = 0 <= row - i <= 3 and -2 <= j - column <= 1
            changed = y.clone()
            changed[0, i, j, :6] += 1.0
            assert bool((parameters(changed, c) != base).any()) == (inside and (i, j) < (row, column)), (i, j)
            changed = c.clone()
            changed[0, i, j] += 1.0
            assert bool((parameters(y, changed) != base).any()) == inside, (i, j)
    changed = y.clone()
    changed[..., 6:] += 1.0
    assert torch.equal(parameters(changed, c), base)


def test_sizes_of_each_stage_follow_from_the_picture() -> None:
    """Rounded up at each halving; on the way back the same sizes, so that at most a row and a column are cut off."""
    model = tiny(BASE).eval()
    sizes: dict[str, list[tuple[int, ...]]] = {"down": [], "up": []}

    def note(of: str) -> Any:
        return lambda module, args: sizes[of].append(tuple(args[0].shape[2:]))

    for module in model.g_a.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(note("down"))
    for module in model.g_s.modules():
        if isinstance(module, torch.nn.ConvTranspose2d):
            module.register_forward_pre_hook(note("up"))
    with torch.no_grad():
        model(pictures()[:1, :, :37, :83])
    assert sizes["down"] == [(38, 84), (19, 42), (10, 21), (5, 11)]
    assert sizes["up"] == [(3, 6), (5, 11), (10, 21), (19, 42)]


@pytest.mark.parametrize("name", ["lee2019-base", "lee2019-hybrid"])
def test_files_of_odd_sizes(name: str, photo: Photo) -> None:
    """The codec neither pads the picture nor cuts anything off; decoding gives the x_hat of `forward`."""
    model = make_tiny(name, photo)
    pixels = photo[:51, :70]
    data = lichen.encode(pixels, model=model)
    x = tiles.to_tensor(pixels, model)
    assert x.shape == (1, 3, 51, 70)
    with torch.inference_mode():
        x_hat, bits = model(x)
    assert torch.equal(codec.reconstruct(codec.read(data), model=model), x_hat[0])
    payload = len(codec.read(data).tiles[0])
    assert abs(float(sum(bits.values())) / 8 - payload) <= 0.005 * payload + 16


def test_one_network_for_four_levels() -> None:
    """More quality, more bits: the gains at the start."""
    torch.manual_seed(0)
    model = Lee2019(Config(8, 6, 5, levels=4)).eval()
    with torch.no_grad():
        model.g_a[6].weight.mul_(100.0)
        _, bits = model(pictures()[:1].repeat(3, 1, 1, 1)[:1], torch.tensor([1.0]))
        _, more = model(pictures()[:1], torch.tensor([100.0]))
    assert float(more["y"]) > 1.1 * float(bits["y"])
    assert model.lmbda_of(torch.tensor([1.0, 100.0])).tolist() == pytest.approx([0.0035, 0.0483])
