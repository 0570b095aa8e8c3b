import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from lichen.benchmark.complexity import complexity
from lichen.coding.coder import Decoder, Encoder
from lichen.layers.ms_ssim import ms_ssim_error
from lichen.models.mentzer2018 import MEAN, PRESETS, VARIANCE, Analysis, Config, Mentzer2018, Normalise

pytest.importorskip("pytorch_msssim")

TINY = Config(C=5, H_target=0.5, n=8, groups=1, features=6)


def tiny(**changes: Any) -> Mentzer2018:
    """Random weights whose latents spread over the centres and whose logits differ."""
    torch.manual_seed(0)
    model = Mentzer2018(dataclasses.replace(TINY, **changes))
    with torch.no_grad():
        for p in model.prior.network.parameters():
            p.mul_(2)
        model.g_a.layers[-1][1].weight.mul_(2)
        model(pictures())  # running statistics
    return model


def pictures() -> Tensor:
    x = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(x, size=(64, 96), mode="bilinear")


def parameters_count(C: int, n: int, groups: int, features: int, L: int = 6) -> int:
    """Layer by layer: kernel^2 * inputs * outputs and two numbers an output of batch norm; context with biases."""

    def conv(k: int, i: int, o: int) -> int:
        return k * k * i * o + 2 * o

    trunk = (3 * groups + 1) * 2 * conv(3, n, n)
    g_a = conv(5, 3, n // 2) + conv(5, n // 2, n) + trunk + conv(5, n, C + 1)
    g_s = conv(3, C, n) + trunk + conv(5, n, n // 2) + conv(5, n // 2, 3)
    f = features
    context = (13 * f + f) + 2 * (14 * f * f + f) + (14 * f * L + L)
    return g_a + g_s + context + L


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_of_the_published_sizes(preset: str) -> None:
    cfg = PRESETS[preset].config
    with torch.device("meta"):
        model = Mentzer2018(cfg)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == parameters_count(cfg.C, cfg.n, cfg.groups, cfg.features)
    if preset == "small":
        assert sum(p.numel() for p in model.parameters()) < 1e6
    else:
        assert (cfg.n, cfg.groups, cfg.features, cfg.L, cfg.K, cfg.beta) == (128, 5, 24, 6, 5000, 500)


def test_published_targets() -> None:
    bpp = {name: p.config.H_target * p.config.C / 64 for name, p in PRESETS.items()}
    assert bpp == pytest.approx({"low": 0.2, "med": 0.6, "hi": 1.0, "small": 0.4})
    assert [PRESETS[p].config.C for p in ("low", "med", "hi")] == [32, 32, 64]


def test_impossible_configurations() -> None:
    for changes in ({"C": 0}, {"n": 1}, {"groups": 0}, {"features": 0}, {"L": 1}):
        with pytest.raises(ValueError, match="at least"):
            dataclasses.replace(TINY, **changes)


def test_complexity_counts_the_context_model() -> None:
    found = complexity(Mentzer2018(TINY))
    per_symbol = 13 * 6 + 2 * 14 * 36 + 14 * 36
    assert found.prior == pytest.approx(5 / 64 * per_symbol / 1000)
    assert found.hyper_analysis == 0


def test_pixels_are_normalised() -> None:
    normalise = Normalise()
    x = torch.tensor(MEAN)[:, None, None] / 255
    one_deviation = torch.tensor([v**0.5 for v in VARIANCE])[:, None, None] / 255
    torch.testing.assert_close(normalise(x + one_deviation), torch.ones(3, 1, 1))
    torch.testing.assert_close(normalise.back(normalise(x)), x)
    assert float(normalise.back(torch.tensor(9.0)).min()) == 1.0


def test_importance_map() -> None:
    """h = C sigmoid(.) opens the first channels one after the other."""
    g_a = Analysis(TINY).eval()
    for h in (0.7, 2.25, 4.9):
        with torch.no_grad():
            last = g_a.layers[-1][1]
            last.weight[0], last.bias[0] = 0.0, torch.logit(torch.tensor(h / 5))
        z, mask = g_a(pictures())
        assert z.shape == mask.shape == (2, 5, 8, 12)
        wanted = torch.tensor([min(max(h - c, 0), 1) for c in range(5)])
        torch.testing.assert_close(mask, wanted[:, None, None].expand_as(mask), atol=1e-5, rtol=0)


def test_eval_is_what_the_decoder_makes() -> None:
    """Encoder, decoder, meter and eval forward agree bit for bit."""
    model = tiny().eval()
    x = pictures()[:, :, :48, :80]
    with torch.no_grad():
        x_hat, bits = model(x)
        y = model.analyse(x)
        assert y.shape == (2, 6, 10, 5)
        for b in range(2):
            encoder = Encoder()
            y_hat = model.code([encoder], y[b : b + 1], None)
            data = encoder.finish()
            assert len(y_hat.unique()) > 3
            assert torch.equal(model.code([Decoder(data)], None, None, (6, 10)), y_hat)
            torch.testing.assert_close(model.synthesise(y_hat)[0], x_hat[b], atol=1e-4, rtol=0.0)
            estimate = float(bits["y"][b]) / 8
            assert abs(estimate - len(data)) < 0.005 * estimate + 16


def test_training_without_noise_is_eval() -> None:
    """Batch norm apart, training mode sees the same symbols at the same price."""
    model = tiny().eval()
    with torch.no_grad():
        y = model.analyse(pictures())
        y_hat, bits = model.prior(y)
        _, coded = model(pictures())
        torch.testing.assert_close(
            model.prior.frozen().code([_Free(), _Free()], {"y": y}, None, (8, 12)).float(), y_hat
        )
    torch.testing.assert_close(bits["y"], coded["y"].float(), rtol=1e-3, atol=0.1)


class _Free:
    """A coder that takes everything and counts nothing."""

    def code_each(self, part: str, frequencies: Any, values: Any) -> Any:
        return values


def test_own_loss() -> None:
    model = tiny().train()
    x = pictures()
    loss, bpp, x_hat = model.own_loss(x, None, torch.ones(2), 0.0)
    z, mask = model.g_a(x)
    y_hat, symbols = model.prior.quantization((z * mask).permute(0, 2, 3, 1))
    bits = model.prior.bits(y_hat, symbols)
    torch.testing.assert_close(bpp, bits.flatten(1).sum(1) / (64 * 96))
    H = 0.5 * (bits.mean() + (bits * mask.permute(0, 2, 3, 1)).mean())
    assert float(H.detach()) > 0.5
    kernels = [p for n, p in model.named_parameters() if n.startswith("g_") and p.ndim == 4]
    assert len(kernels) == 2 * (8 + 3)
    decay = 0.0025 * sum(p.square().sum() for p in kernels) + 0.05 * model.prior.quantization.centres.square().sum()
    torch.testing.assert_close(
        loss, 5000 * ms_ssim_error(x, x_hat).mean() + 500 * (H - 0.5) + decay, rtol=1e-4, atol=0.01
    )
    loss.backward()
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None, name
            assert bool(torch.isfinite(p.grad).all()), name
            assert bool(p.grad.any()), name


def test_rate_reaches_the_transforms_through_the_map_alone() -> None:
    """Bits alone move g_a's importance map, and not its other channels."""
    model = tiny(K=0.0, decay=0.0, decay_centres=0.0).train()
    loss, _, _ = model.own_loss(pictures(), None, torch.ones(2), 0.0)
    loss.backward()
    gradient = model.g_a.layers[-1][1].bias.grad
    assert float(gradient[0]) > 0  # a smaller map is cheaper
    assert not bool(gradient[1:].any())
    assert model.prior.quantization.centres.grad is None or not bool(model.prior.quantization.centres.grad.any())
    assert all(p.grad is None or not bool(p.grad.any()) for p in model.g_s.parameters())
    assert all(bool(p.grad.any()) for p in model.prior.network.parameters())


def test_below_the_target_bits_are_free() -> None:
    model = tiny(K=0.0, decay=0.0, decay_centres=0.0, H_target=100.0).train()
    loss, bpp, _ = model.own_loss(pictures(), None, torch.ones(2), 0.0)
    assert float(loss.detach()) == 0
    assert float(bpp.min()) > 0


def test_a_few_steps_learn(photo: Any) -> None:
    """MS-SSIM rises from wherever an untrained network begins."""
    torch.manual_seed(0)
    model = Mentzer2018(dataclasses.replace(TINY, n=16)).train()
    x = torch.stack([torch.from_numpy(photo[i : i + 64, i : i + 64].copy()) for i in (0, 100, 200, 300)])
    x = x.permute(0, 3, 1, 2).float() / 255
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 2e-3)
    errors = []
    for _ in range(12):
        loss, _, x_hat = model.own_loss(x, None, torch.ones(4), 0.0)
        errors.append(float(ms_ssim_error(x, x_hat.detach()).mean()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert errors[-1] < 0.7 * errors[0]
