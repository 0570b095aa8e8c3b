from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from lichen.coding.coder import Decoder, Encoder, Meter
from lichen.models import build, find
from lichen.models.hu2020 import PRESETS, STAGES, Config, Hu2020, conv, deconv, guess_error
from lichen.models.weights import identity, read, save
from lichen.priors import gaussian
from lichen.training.loss import TrainingLoss, bits_per_pixel, rate_distortion, squared_error

TINY = Config(N=8, M=12, E=8, C2=8, K=8, C1=4)
PARTS = {"y", "z2", "z1"}
START_OF_STAGE = (0.0, *STAGES)


def tiny(seed: int = 0, **changes: Any) -> Hu2020:
    """Random weights whose latents deviate by a few steps, and whose means and scales deviate too."""
    torch.manual_seed(seed)
    model = build(find("hu2020"), replace(TINY, **changes))
    assert isinstance(model, Hu2020)
    p, x = model.prior, pictures()
    with torch.no_grad():
        for q in model.parameters():
            q.add_(0.03 * torch.randn(q.shape))
        quality = torch.full((2,), 50.0) if model.variable_rate else None
        for last, output in (
            (model.g_a[-1][-1], lambda: model.analyse(x, quality)),
            (getattr(p.h_a2, "net", p.h_a2)[-1], lambda: p.hyper_analysis(model.analyse(x, quality))[0]),
            (getattr(p.h_a1, "net", p.h_a1)[-1], lambda: p.hyper_analysis(model.analyse(x, quality))[1]),
        ):
            last.weight.mul_(4 / output().std())
        p.z1_prior.sigma *= 4
        for predict, channels in ((p.predict, TINY.M), (p.predict2, TINY.C2)):
            predict.net.head.linear.weight[:channels] *= 8
            predict.net.head.linear.bias[channels:] += 1.0
    return model


def pictures(seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return F.interpolate(torch.rand(2, 3, 16, 24), size=(64, 128), mode="bilinear")


# Parameters by the layer table of the public code: kernel^2 * inputs * outputs + outputs.


def layer(inputs: int, outputs: int, kernel: int = 1) -> int:
    return kernel * kernel * inputs * outputs + outputs


def transforms_count(N: int, M: int) -> int:
    gdn = 3 * (N + N * N)
    g_a = layer(3, N, 5) + 2 * layer(N, N, 5) + layer(N, M, 5) + gdn
    return g_a + layer(M, N, 5) + 2 * layer(N, N, 5) + gdn


def preserving_count(M: int, E: int, C2: int, K: int, C1: int) -> int:
    h_a2 = layer(M, 2 * E, 3) + layer(8 * E, 4 * E) + layer(4 * E, 4 * E) + layer(4 * E, C2)
    h_a1 = layer(C2, K, 3) + layer(4 * K, K // 2) + layer(K // 2, K // 2) + layer(K // 2, C1)
    h_s1 = layer(C1, K) + 2 * layer(K, K) + layer(K // 4, C2, 3)
    h_s2 = layer(C2, 4 * E) + 2 * layer(4 * E, 4 * E) + layer(E, E, 3)
    return h_a2 + h_a1 + h_s1 + h_s2


def plain_count(M: int, E: int, C2: int, K: int, C1: int) -> int:
    h_a2 = layer(M, 2 * E, 3) + layer(2 * E, E, 5) + layer(E, C2, 3)
    h_a1 = layer(C2, K, 3) + layer(K, K // 2, 5) + layer(K // 2, C1, 3)
    h_s1 = layer(C1, K // 2, 5) + layer(K // 2, K // 2, 3) + layer(K // 2, C2, 3)
    h_s2 = layer(C2, E, 5) + layer(E, E, 3) + layer(E, E, 3)
    return h_a2 + h_a1 + h_s1 + h_s2


def prediction_count(features: int, channels: int) -> int:
    return 3 * layer(features, features, 3) + layer(9 * features, 2 * channels)


def aggregation_count(N: int, features: int) -> int:
    up = layer(features, N, 5) + 2 * layer(N, N, 5)
    residual = layer(2 * N, N, 3) + layer(N, N, 3) + layer(N, 2 * N, 3)
    a, b = -(-N // 3), -(-N // 12)
    return up + residual + layer(2 * N, a, 5) + layer(a, b, 3) + layer(b, 3)


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_layer_by_layer(preset: str) -> None:
    c = PRESETS[preset].config
    hyper = plain_count if c.hyper == "plain" else preserving_count
    features = c.E + c.C2 // 4
    codec = transforms_count(c.N, c.M) + hyper(c.M, c.E, c.C2, c.K, c.C1) + c.C1
    codec += prediction_count(c.E, c.M) + prediction_count(c.C2, c.C2) + 2 * c.levels * c.M
    training = layer(c.E, c.M, 3) + layer(c.C2, c.C2, 3) + c.C2
    if c.reconstruction == "aggregation":
        codec += aggregation_count(c.N, features) + c.levels * features
        training += layer(c.N, 3, 5)
    else:
        codec += layer(c.N, 3, 5)
    with torch.device("meta"):
        model = Hu2020(c)
    shipped = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(model.training_only))
    assert shipped == codec
    assert sum(p.numel() for p in model.parameters()) == codec + training
    assert not preset.startswith("small") or codec < 1_000_000


@pytest.mark.parametrize(("preset", "N", "K"), [("low", 192, 256), ("high", 384, 512)])
def test_published_shapes(preset: str, N: int, K: int) -> None:
    """Widths of every pointwise layer of the hyper transforms, and shapes of latents and features."""
    with torch.device("meta"):
        model = Hu2020(PRESETS[preset].config)
        y = model.analyse(torch.zeros(1, 3, 128, 192))
        found = model.prior.relaxed(y)
        z1 = model.prior.hyper_analysis(y)[1]
    assert found.psi1 is not None
    shapes = [tuple(t.shape[1:]) for t in (found.y_hat, found.psi2, found.z2, found.psi1, z1)]
    assert shapes == [(8, 12, N), (8, 12, N), (4, 6, 256), (4, 6, 256), (2, 3, 128)]
    p: Any = model.prior
    widths = {
        name: [(m.in_features, m.out_features) for m in getattr(p, name).modules() if isinstance(m, torch.nn.Linear)]
        for name in ("h_a2", "h_a1", "h_s1", "h_s2")
    }
    assert widths == {
        "h_a2": [(8 * N, 4 * N), (4 * N, 4 * N), (4 * N, 256)],
        "h_a1": [(4 * K, K // 2), (K // 2, K // 2), (K // 2, 128)],
        "h_s1": [(128, K), (K, K), (K, K)],
        "h_s2": [(256, 4 * N), (4 * N, 4 * N), (4 * N, 4 * N)],
    }


def test_padding() -> None:
    """One row above, two below (of which an even size needs no more); `deconv` is the transpose of `conv`."""
    torch.manual_seed(0)
    down, up = conv(2, 3).double(), deconv(3, 2).double()
    x, y = torch.randn(1, 2, 6, 8, dtype=torch.float64), torch.randn(1, 3, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        down[1].bias.zero_()
        up[1].bias.zero_()
        up[1].weight.copy_(down[1].weight)
        impulse = torch.zeros_like(x)
        impulse[0, 0, 0, 0] = 1
        assert torch.equal(down(impulse)[0, :, 0, 0], down[1].weight[:, 0, 1, 1])
        torch.testing.assert_close((down(x) * y).sum(), (x * up(y)).sum())
        assert up(y).shape == x.shape


def test_unknown_configurations() -> None:
    with pytest.raises(ValueError, match="no hyper transforms"):
        Config(hyper="fancy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no reconstruction"):
        Config(reconstruction="fancy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positive"):
        Config(N=0)
    with pytest.raises(ValueError, match="multiples of 4"):
        Config(C2=30)


def test_hyper_analysis_sees_rounded_latents() -> None:
    model = tiny()
    y = torch.randn(1, 4, 4, 12) * 5
    with torch.no_grad():
        z2, z1 = model.prior.hyper_analysis(torch.round(y))
        for moved in (torch.round(y) + 0.4, torch.round(y) - 0.4):
            found = model.prior.hyper_analysis(moved)
            torch.testing.assert_close(found[0], z2)
            torch.testing.assert_close(found[1], z1)
        torch.testing.assert_close(model.prior.h_a1(torch.round(z2)), z1)


# Training


def loss_of(
    model: Hu2020, x: torch.Tensor, quality: torch.Tensor | None, lmbda: torch.Tensor, done: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    loss: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = TrainingLoss(model, "mse", 0.01)(x, quality, lmbda, done)
    return loss


def gradients(model: Hu2020, done: float) -> set[str]:
    model.zero_grad()
    x, quality = pictures(), torch.tensor([20.0, 90.0]) if model.variable_rate else None
    lmbda = torch.tensor([0.01, 0.02])
    loss, bpp, x_hat = loss_of(model, x, quality, lmbda, done)
    assert loss.ndim == 0
    assert bpp.shape == (2,)
    assert x_hat.shape == x.shape
    loss.backward()
    for name, p in model.named_parameters():
        assert p.grad is None or bool(torch.isfinite(p.grad).all()), name
    return {name for name, p in model.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}


@pytest.mark.parametrize("changes", [{}, {"hyper": "plain"}, {"reconstruction": "plain", "levels": 3}, {"levels": 3}])
def test_stages_reach_their_parameters(changes: dict[str, Any]) -> None:
    model = tiny(**changes).train()
    names = {name for name, _ in model.named_parameters()}
    coarse = {n for n in names if n.startswith(("prior.h_a1", "prior.h_s1", "prior.z1_prior", "prior.predict2"))}
    heads = {n for n in names if n.startswith("helping.to_")}
    head2 = {n for n in names if n.startswith("helping.to_z2")}
    alone = {"helping.z2_prior.sigma"}
    aggregated = {n for n in names if n.startswith(("aggregation", "log_factor"))}
    plain = {n for n in names if n.startswith("plain_out")} if aggregated else set()
    assert gradients(model, 0.0) == names - coarse - head2 - aggregated
    assert gradients(model, STAGES[0]) == names - alone - aggregated
    assert gradients(model, STAGES[1]) == names - alone - plain
    assert gradients(model, STAGES[2]) == names - alone - plain - heads


def test_stages_are_the_papers() -> None:
    assert [round(share * 5500) for share in STAGES] == [1001, 1201, 1301]


def test_last_stage_is_rate_and_distortion() -> None:
    model, x, lmbda = tiny().train(), pictures(), torch.tensor([0.01, 0.02])
    torch.manual_seed(3)
    loss, bpp, x_hat = loss_of(model, x, None, lmbda, 1.0)
    torch.manual_seed(3)
    expected, bits = model(x)
    assert bits.keys() == PARTS
    torch.testing.assert_close(x_hat, expected)
    torch.testing.assert_close(bpp, bits_per_pixel(bits, x))
    mse = squared_error(x_hat, x)
    torch.testing.assert_close(loss, rate_distortion(bpp, mse, lmbda))


def test_helping_losses() -> None:
    """Stage 3 against stage 4: the mean squared errors of both heads."""
    model, x, lmbda = tiny().train(), pictures(), torch.tensor([0.01, 0.02])
    torch.manual_seed(3)
    with_help = loss_of(model, x, None, lmbda, STAGES[1])[0]
    torch.manual_seed(3)
    without = loss_of(model, x, None, lmbda, STAGES[2])[0]
    with torch.no_grad():
        y = model.analyse(x)
        found = model.prior.relaxed(y)
        errors = [
            (head(psi) - latents).square().mean((1, 2, 3))
            for head, psi, latents in (
                (model.helping.to_y, found.psi2, y),
                (model.helping.to_z2, found.psi1, found.z2),
            )
        ]
    torch.testing.assert_close(
        with_help - without, ((errors[0] + errors[1]) / lmbda.sqrt()).mean(), rtol=1e-3, atol=0.0
    )


def test_helping_losses_move_features_alone() -> None:
    guess, latents = torch.randn(2, 3, 3, 4, requires_grad=True), torch.randn(2, 3, 3, 4, requires_grad=True)
    guess_error(guess, latents).sum().backward()
    assert guess.grad is not None
    assert latents.grad is None


# Files


@pytest.mark.parametrize("changes", [{}, {"hyper": "plain"}, {"reconstruction": "plain"}, {"levels": 3}])
def test_eval_is_what_the_decoder_makes(changes: dict[str, Any]) -> None:
    """Encoder, decoder, meter and eval forward agree bit for bit, at latents of odd sizes."""
    model = tiny(**changes).eval()
    x, quality = pictures()[:, :, :48, :80], torch.tensor([60.0, 60.0]) if model.variable_rate else None
    q = None if quality is None else quality[:1]
    with torch.no_grad():
        x_hat, bits = model(x, quality)
        assert bits.keys() == PARTS
        y = model.analyse(x, quality)
        assert y.shape == (2, 3, 5, 12)
        assert float(y.std()) > 1
        for b in range(2):
            encoder = Encoder()
            joint = model.code([encoder], y[b : b + 1], q)
            assert joint.shape == (1, 3, 5, 12 + 8 + 2)
            data = encoder.finish()
            assert torch.equal(model.code([Decoder(data)], None, q, (3, 5)), joint)
            torch.testing.assert_close(model.synthesise(joint, q)[0], x_hat[b], atol=1e-4, rtol=0.0)
            assert float((joint[..., :12] - y[b]).abs().max()) < 0.501
            estimate = sum(float(v[b]) for v in bits.values()) / 8
            assert abs(estimate - len(data)) < 0.005 * estimate + 16


def test_frozen_parameters_are_those_of_training() -> None:
    """The coder's means and bits against those of the float network."""
    model = tiny().eval()
    with torch.no_grad():
        y = model.analyse(pictures())
        meter = Meter()
        joint = model.code([meter, Meter()], y, None)
        found = model.prior.relaxed(y)
        assert float(found.z2.std()) > 1
        assert float(found.psi2.std()) > 0.3
        torch.testing.assert_close(joint[..., 12:20], found.psi2, atol=0.02, rtol=0.01)
        mu, sigma = model.prior.predict(found.psi2)
        v = joint[..., :12] - mu  # integers, up to the snapping of weights and activations
        assert float(mu.std()) > 0.1
        assert float((v - v.round()).abs().max()) < 0.02
        bits = gaussian.bits(v, sigma)[0].sum()
    assert abs(float(bits) / meter.bits["y"] - 1) < 0.02


def test_training_promises_what_the_coder_needs() -> None:
    """The bits of each latent, with noise in training and as coded."""
    model = tiny().eval()
    with torch.no_grad():
        y = model.analyse(pictures())
        meters = [Meter(), Meter()]
        model.code(meters, y, None)
        found = [model.prior.relaxed(y).bits for _ in range(10)]
        assert float(model.prior.predict(model.prior.relaxed(y).psi2)[0].std()) > 1
    for part in PARTS:
        promised = torch.stack([bits[part] for bits in found]).mean(0)
        needed = torch.tensor([meter.bits[part] for meter in meters])
        torch.testing.assert_close(promised, needed, rtol=0.05, atol=0.0)


@pytest.mark.parametrize("changes", [{}, {"hyper": "plain"}, {"reconstruction": "plain"}])
def test_files_of_weights(tmp_path: Path, changes: dict[str, Any]) -> None:
    """What training alone needs is not in them, and their configuration tells ablations apart."""
    model = tiny(**changes).eval()
    save(model, tmp_path / "weights.safetensors")
    with safe_open(tmp_path / "weights.safetensors", framework="pt") as f:
        names = set(f.keys())
    assert not any(name.startswith("helping") for name in names)
    assert any(name.startswith("plain_out") for name in names) == (changes.get("reconstruction") == "plain")
    loaded = read(tmp_path / "weights.safetensors")
    assert loaded.cfg == model.cfg
    assert identity(loaded) == identity(model)
    assert not torch.equal(loaded.helping.to_y.net[0].weight, model.helping.to_y.net[0].weight)  # of its own start
    with torch.no_grad():
        assert torch.equal(loaded(pictures())[0], model(pictures())[0])


def test_checkpoints_keep_what_training_needs() -> None:
    model, other = tiny(0), tiny(1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.helping.to_y.net[0].weight, model.helping.to_y.net[0].weight)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("g_a")}
    with pytest.raises(RuntimeError, match="g_a"):
        other.load_state_dict(state)
