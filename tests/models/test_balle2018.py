from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lichen.coding.coder import Decoder, Encoder
from lichen.layers.gdn import GDN, SimplifiedGDN
from lichen.layers.spectral_conv import SpectralConv2d, SpectralConvTranspose2d
from lichen.models import create
from lichen.models.balle2018 import PRESETS, Activation, Balle2018, Config, Kernels

ACTIVATIONS: list[Activation] = ["gdn", "simplified-gdn", "relu", "leaky-relu", "tanh"]


def tiny(activation: Activation = "gdn", kernels: Kernels = "plain", levels: int = 0, seed: int = 0) -> Balle2018:
    """Random weights whose latents deviate by a few steps."""
    torch.manual_seed(seed)
    model = Balle2018(Config(activation, kernels, 12, 18, levels))
    with torch.no_grad():
        for p in model.g_a[4].parameters():
            p.mul_(5 / model.analyse(pictures(), quality_of(model)).std())
    return model


def quality_of(model: Balle2018, batch: int = 2) -> Tensor | None:
    return torch.full((batch,), 60.0) if model.variable_rate else None


def pictures(seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return torch.nn.functional.interpolate(torch.rand(2, 3, 16, 24), size=(64, 128), mode="bilinear")


# Parameters layer by layer: kernel^2 * inputs * outputs, a bias an output but for the analysis's last.


def count(cfg: Config) -> int:
    N, M = cfg.N, cfg.M
    g_a = (81 * 3 * N + N) + (25 * N * N + N) + 25 * N * M
    g_s = (25 * M * N + N) + (25 * N * N + N) + (81 * N * 3 + 3)
    gdn = 4 * (N * N + N) if cfg.activation in ("gdn", "simplified-gdn") else 0
    density = M * ((3 + 9 + 9 + 9 + 3) + (3 + 3 + 3 + 3 + 1) + (3 + 3 + 3 + 3))
    return g_a + g_s + gdn + density + 2 * cfg.levels * M  # gains and inverse gains


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_of_the_presets(preset: str) -> None:
    cfg = PRESETS[preset].config
    with torch.device("meta"):
        model = Balle2018(cfg)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count(cfg)


def test_published_widths() -> None:
    """N = M, one quality a network, spectra; the smallest has the 1.77 million numbers of the layer table."""
    for name, preset in PRESETS.items():
        cfg = preset.config
        if name.startswith("small"):
            assert cfg.levels == 4 and count(cfg) < 1_000_000
        else:
            assert name == f"{cfg.activation}-{cfg.N}" and cfg.N == cfg.M
            assert cfg.levels == 0 and cfg.kernels == "rdft"
    assert count(PRESETS["gdn-128"].config) == 1_774_595


def test_the_configuration_decides_what_is_built() -> None:
    def kinds(cfg: Config) -> list[list[type[nn.Module]]]:
        model = Balle2018(cfg)
        return [[type(layer) for layer in net] for net in (model.g_a, model.g_s)]

    for activation, kind in zip(ACTIVATIONS, [GDN, SimplifiedGDN, nn.ReLU, nn.LeakyReLU, nn.Tanh], strict=True):
        a, s = nn.Conv2d, nn.ConvTranspose2d
        assert kinds(Config(activation, "plain", 2, 2)) == [[a, kind, a, kind, a], [s, kind, s, kind, s]]
        b, t = SpectralConv2d, SpectralConvTranspose2d
        assert kinds(Config(activation, "rdft", 2, 2)) == [[b, kind, b, kind, b], [t, kind, t, kind, t]]
    model = Balle2018(Config("gdn", "plain", 2, 2))
    assert [model.g_a[k].inverse for k in (1, 3)] + [model.g_s[k].inverse for k in (1, 3)] == [False, False, True, True]


def test_unknown_configurations() -> None:
    for cfg, match in [
        ({"activation": "gelu"}, "no activation is called gelu"),
        ({"kernels": "fft"}, "not as fft"),
        ({"M": 0}, "positive"),
    ]:
        with pytest.raises(ValueError, match=match):
            Config(**cfg)  # type: ignore[arg-type]


def test_held_as_spectra_it_is_the_same_codec() -> None:
    plain, rdft = tiny(kernels="plain"), tiny(kernels="rdft")
    x = pictures()
    torch.testing.assert_close(plain.analyse(x), rdft.analyse(x), rtol=1e-4, atol=1e-3)
    y = torch.randn(1, 3, 5, 18)
    torch.testing.assert_close(plain.synthesise(y), rdft.synthesise(y), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (16, 48), (80, 32), (112, 144)])
def test_sizes(size: tuple[int, int]) -> None:
    h, w = size
    model = tiny()
    y = model.analyse(torch.rand(1, 3, h, w))
    assert y.shape == (1, h // 16, w // 16, 18)
    assert model.synthesise(y).shape == (1, 3, h, w)


def test_latents_move_with_the_picture() -> None:
    """16 pixels are one latent, away from the borders."""
    model = tiny()
    x = pictures()
    moved = torch.roll(x, 16, dims=3)
    y, y_moved = model.analyse(x), model.analyse(moved)
    torch.testing.assert_close(y_moved[:, :, 3:-2], y[:, :, 2:-3], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_training_reaches_every_parameter(activation: Activation) -> None:
    model = tiny(activation, "rdft", levels=3).train()
    x = pictures()
    x_hat, bits = model(x, torch.tensor([30.0, 80.0]))
    assert x_hat.shape == x.shape
    assert bits.keys() == {"y"} and bits["y"].shape == (2,) and bool((bits["y"] > 0).all())
    (bits["y"].sum() + ((x_hat - x) ** 2).mean() * 1e4).backward()
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None, name
            assert bool(torch.isfinite(p.grad).all()), name
            assert bool((p.grad != 0).any()), name


def test_one_density_serves_all_qualities() -> None:
    """The density is that of latents before their gain: a gain of k costs about log2(k) bits a latent more."""
    model = tiny(levels=4).eval()
    model.prior.gain.log_gain.data += 2.0  # fine steps, where the rule holds
    x = pictures()
    with torch.no_grad():
        bits = [float(model(x, torch.full((2,), q))[1]["y"].sum()) for q in (1.0, 34.0, 67.0, 100.0)]
        gain = [float(model.prior.gain(torch.tensor([q]))[0].mean()) for q in (1.0, 34.0, 67.0, 100.0)]
        latents = model.analyse(x, torch.full((2,), 50.0)).numel()
    for k in range(3):
        expected = latents * float(torch.tensor(gain[k + 1] / gain[k]).log2())
        assert bits[k + 1] - bits[k] == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("levels", [0, 3])
def test_eval_is_what_the_decoder_makes(levels: int) -> None:
    """Encoder, decoder, meter and eval forward agree bit for bit, at a size that is no multiple of 64."""
    model = tiny("relu", "plain", levels).eval()
    x = pictures()[:, :, :48, :80]
    with torch.no_grad():
        x_hat, bits = model(x, quality_of(model))
        y = model.analyse(x, quality_of(model))
        assert float(y.std()) > 1
        for b in range(2):
            encoder, q = Encoder(), quality_of(model, 1)
            y_hat = model.code([encoder], y[b : b + 1], q)
            data = encoder.finish()
            decoder: Any = Decoder(data)
            assert torch.equal(model.code([decoder], None, q, (3, 5)), y_hat)
            decoder.finish()
            torch.testing.assert_close(model.synthesise(y_hat, q)[0], x_hat[b], atol=1e-4, rtol=0.0)
            assert float((y_hat - y[b]).abs().max()) < 0.501
            estimate = float(bits["y"][b]) / 8
            assert abs(estimate - len(data)) < 0.005 * estimate + 16


def test_first_preset() -> None:
    assert create("balle2018-factorized").cfg == Config("gdn", "rdft", 128, 128)
