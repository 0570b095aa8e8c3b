from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny import make_tiny
from torch import Tensor

import lichen
from lichen import codec
from lichen.container import Container, parts
from lichen.errors import DamagedError, WeightsError
from lichen.models import REGISTRY, build, find
from lichen.models.base import Model
from lichen.models.toderici2017 import PRESETS, Binarizer, Config, Received, Toderici2017

Photo = npt.NDArray[np.uint8]
SMALL = Config("gru", "one-shot", 3, 4, (4, 6, 8, 8), (8, 8, 8, 8, 8), (1, 1, 3, 1), 6)
VARIANTS = [
    (cell, reconstruction)
    for cell in ("lstm", "associative-lstm", "gru", "residual-gru")
    for reconstruction in ("one-shot", "additive", "residual-scaling")
]


def variant(cell: Any = "gru", reconstruction: Any = "one-shot", seed: int = 0) -> Toderici2017:
    torch.manual_seed(seed)
    return Toderici2017(dataclasses.replace(SMALL, cell=cell, reconstruction=reconstruction))


def pictures(B: int = 3, H: int = 32, W: int = 48, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return torch.nn.functional.interpolate(torch.rand(B, 3, H // 8, W // 8), size=(H, W), mode="bilinear")


@pytest.fixture(scope="module")
def model(photo: Photo) -> Model:
    return make_tiny("toderici2017", photo)


# ---- sizes -----------------------------------------------------------------------------------------------------------


def cell_count(cell: str, i: int, o: int, kernel: int, hidden: int) -> int:
    gru = 3 * o * (kernel**2 * i + 1) + 3 * o * hidden**2 * o
    return {
        "lstm": 4 * o * (kernel**2 * i + 1) + 4 * o * hidden**2 * o,
        "associative-lstm": (9 * o // 2) * (kernel**2 * i + 1 + hidden**2 * o),
        "gru": gru,
        "residual-gru": gru + o * o + i * o,
    }[cell]


def entropy_coder_count(layers: int, bits: int, e: int) -> int:
    first = (24 * bits * e + e) + 4 * e * (2 * e + 3 * e + 1) + (e * e + e) + (e * bits + bits)
    other = first + (9 * bits * e + e) + 4 * e * 2 * e
    reader = (9 * bits * e + e) + (9 * e * bits + bits)
    memory = 4 * e * (bits + e + 1) + (e * e + e) + (e * bits + bits)
    return first + (layers - 1) * (other + reader) + memory


def count(cfg: Config) -> int:
    (c0, c1, c2, c3), (d0, d1, d2, d3, d4), (k1, k2, k3, k4) = cfg.encoder, cfg.decoder, cfg.decoder_hidden
    of_encoder = "lstm" if cfg.cell == "associative-lstm" else cfg.cell
    encoder = (27 * c0 + c0) + sum(cell_count(of_encoder, i, o, 3, 1) for i, o in ((c0, c1), (c1, c2), (c2, c3)))
    widths = ((d0, d1, k1), (d1 // 4, d2, k2), (d2 // 4, d3, k3), (d3 // 4, d4, k4))
    decoder = (cfg.bits * d0 + d0) + sum(cell_count(cfg.cell, i, o, 3, k) for i, o, k in widths) + (d4 // 4 * 3 + 3)
    gain = (27 * 32 + 32) + 3 * (9 * 32 * 32 + 32) + (9 * 32 + 1) if cfg.reconstruction == "residual-scaling" else 0
    return (
        encoder
        + (c3 * cfg.bits + cfg.bits)
        + decoder
        + gain
        + (entropy_coder_count(cfg.iterations, cfg.bits, cfg.context))
    )


@pytest.mark.parametrize("name", PRESETS)
def test_parameters(name: str) -> None:
    with torch.device("meta"):
        model = Toderici2017(PRESETS[name].config)
    assert sum(p.numel() for p in model.parameters()) == count(PRESETS[name].config)


def test_published_widths_and_the_small_one() -> None:
    public = PRESETS["residual-gru"].config
    assert (public.iterations, public.bits) == (16, 32)
    assert count(public) == 32_140_739
    assert count(PRESETS["small"].config) < 1_000_000
    assert {(p.config.cell, p.config.reconstruction) for p in PRESETS.values()} >= {
        ("residual-gru", "one-shot"), ("gru", "one-shot"), ("lstm", "additive"), ("lstm", "one-shot"),
        ("residual-gru", "residual-scaling"), ("associative-lstm", "one-shot"),
    }  # fmt: skip


def test_the_registry_knows_it() -> None:
    assert find(11).name == "toderici2017"
    assert REGISTRY["toderici2017"].presets is PRESETS


def test_impossible_configurations() -> None:
    for change in ({"cell": "rnn"}, {"reconstruction": "two-shot"}, {"iterations": 0}, {"decoder": (8, 8, 8, 8, 6)}):
        with pytest.raises(ValueError):
            dataclasses.replace(SMALL, **change)
    from_json = Config(**{**dataclasses.asdict(SMALL), "encoder": [4, 6, 8, 8]})
    assert from_json == SMALL


# ---- the loop --------------------------------------------------------------------------------------------------------


def test_the_binarizer() -> None:
    torch.manual_seed(0)
    b = Binarizer(3, 5)
    t = torch.randn(1, 3, 40, 50, requires_grad=True)
    v = torch.tanh(b.conv(t)).detach()
    assert torch.equal(b.eval()(t), torch.where(v >= 0, 1.0, -1.0))
    drawn = torch.stack([b.train()(t).detach() for _ in range(400)])
    assert torch.equal(drawn.round().abs(), torch.ones_like(drawn))
    assert float((drawn.mean(0) - v).abs().mean()) < 0.06  # unbiased: E[b] = v
    (gradient,) = torch.autograd.grad(b(t).sum(), t)
    (of_tanh,) = torch.autograd.grad(torch.tanh(b.conv(t)).sum(), t)
    torch.testing.assert_close(gradient, of_tanh)


@pytest.mark.parametrize(("cell", "reconstruction"), VARIANTS)
def test_the_iterations_are_those_of_the_paper(cell: str, reconstruction: str) -> None:
    model = variant(cell, reconstruction).eval()
    x = pictures(1, 48, 80)
    with torch.no_grad():
        y = model.analyse(x, None)
        assert y.shape == (1, 3, 5, 12)
        assert torch.equal(y.abs(), torch.ones_like(y))
        x_t, gain, e, d = torch.zeros_like(x), torch.ones(1), [None] * 3, [None] * 4
        for t in range(3):
            r = (x - 0.5) - x_t
            features, e = model.encoder(r * gain, e)
            b = model.binarizer(features)
            assert torch.equal(b, y.permute(0, 3, 1, 2)[:, 4 * t : 4 * t + 4])
            out, d = model.decoder(b, d)
            x_t = out if reconstruction == "one-shot" else x_t + out / gain
            if model.gain is not None:
                gain = model.gain(x_t)
            torch.testing.assert_close(model.synthesise(y[..., : 4 * t + 4], None), x_t + 0.5)


def test_the_gain_is_above_one_and_fills_blocks() -> None:
    model = variant(reconstruction="residual-scaling")
    assert model.gain is not None
    gain = model.gain(4 * torch.randn(2, 3, 80, 48)).detach()
    assert gain.shape == (2, 1, 80, 48)
    assert bool((gain > 1).all())
    assert float(gain[:, :, :32, :32].flatten(1).std(1).max()) == 0
    assert float(gain.flatten(1).std(1).min()) > 0


@pytest.mark.parametrize(("cell", "reconstruction"), VARIANTS)
def test_training_reaches_every_parameter(cell: str, reconstruction: str) -> None:
    model = variant(cell, reconstruction).train()
    x, q = pictures(), torch.tensor([1.0, 50.0, 100.0])
    loss, bpp, x_hat = model.own_loss(x, q, model.lmbda_of(q), 0.0)
    assert loss.shape == () and bpp.shape == (3,) and x_hat.shape == x.shape
    loss.backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and bool(torch.isfinite(p.grad).all()) and bool((p.grad != 0).any()), name


def test_own_loss_is_the_mean_error_and_the_mean_code_length(monkeypatch: pytest.MonkeyPatch) -> None:
    model = variant(reconstruction="additive").eval()  # no chance in the bits
    x, q = pictures(), torch.tensor([1.0, model.prior.quality_of(2), 100.0])
    with torch.no_grad():
        loss, bpp, x_hat = model.own_loss(x, q, model.lmbda_of(q), 0.0)
        y = model.analyse(x, None)
        steps = [model.synthesise(y, torch.full((3,), model.prior.quality_of(n))) for n in (1, 2, 3)]
        bits = model.prior.bits_of_layers(y)
    expected = torch.stack([(x - s).abs().mean() for s in steps]).mean() + bits.sum() / y.numel()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(x_hat, torch.stack([steps[b][b] for b in range(3)]))
    torch.testing.assert_close(bpp, torch.stack([bits[b, : b + 1].sum() for b in range(3)]) / (32 * 48))


def test_the_code_length_sends_no_gradient_to_the_codec() -> None:
    model = variant().train()
    y = model.analyse(pictures(), None)
    _, bits = model.prior(y)
    bits["b"].sum().backward()
    assert all(p.grad is None for n, p in model.named_parameters() if not n.startswith("prior"))


def test_qualities_are_prefixes_and_a_batch_may_have_several() -> None:
    model = variant(reconstruction="additive").eval()
    x, q = pictures(), torch.tensor([1.0, model.prior.quality_of(2), 100.0])
    with torch.inference_mode():
        y = model.analyse(x, q)
        whole = model.analyse(x, None)
        x_hat, bits = model(x, q)
        for b in range(3):
            n = 4 * (b + 1)
            assert torch.equal(y[b, ..., :n], whole[b, ..., :n])
            assert not bool(y[b, ..., n:].any())
            alone, own = model(x[b : b + 1], q[b : b + 1])
            torch.testing.assert_close(alone[0], x_hat[b], atol=1e-5, rtol=0)
            torch.testing.assert_close(own["b"][0], bits["b"][b])


def test_start_from_pictures(photo: Photo) -> None:
    model = variant("residual-gru").eval()
    x = torch.from_numpy(photo[:256, :256].copy()).permute(2, 0, 1).float().unfold(1, 64, 64).unfold(2, 64, 64) / 255
    crops = x.permute(1, 2, 0, 3, 4).flatten(0, 1)
    model.start_from(crops)
    nothing = Received(torch.zeros_like(crops))
    with torch.no_grad():
        t, _ = model.encoder(crops - 0.5, [None] * 3)
        v = model.binarizer.conv(t)
        x_hat = model.receive(model.binarizer(t), nothing).x_hat
    assert 0.99 < float((v - v.mean((0, 2, 3), keepdim=True)).std()) < 1.01
    assert 0.05 < float(x_hat.std()) < 0.15


def test_broken_weights_are_named(model: Model, photo: Photo) -> None:
    broken = build(find("toderici2017"), model.cfg)
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.encoder.conv.weight[0] = float("nan")
    with pytest.raises(WeightsError, match="broken"):
        lichen.encode(photo[:32, :32], model=broken.eval())


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [0, 1])
def test_a_file_cut_short_decodes_to_the_layers_that_are_whole(model: Model, photo: Photo, tile: int) -> None:
    pixels = photo[:70, :100]
    data = lichen.encode(pixels, 100, model=model, tile=tile)
    found = parts(data)
    layers = [p for p in found if p.type == "LAYR"]
    assert [p.type for p in found] == ["HEAD", *["LAYR"] * 5]
    assert len(codec.read(data).tiles) == (4 if tile else 1)
    ends = [p.offset + p.length + 4 for p in layers]
    assert ends[-1] == len(data)
    for n in range(1, 6):
        quality = float(model.quality_of(n))
        fewer = np.asarray(lichen.decode(lichen.encode(pixels, quality, model=model, tile=tile), model=model))
        cuts = [ends[n - 1]] if n == 5 else [ends[n - 1], ends[n - 1] + n, ends[n] - 1]
        for cut in cuts:
            partial = np.asarray(lichen.decode(data[:cut], model=model, partial=True))
            assert np.array_equal(partial, fewer)
            if cut < len(data):
                with pytest.raises(DamagedError, match="--partial"):
                    lichen.decode(data[:cut], model=model)
    for cut in (0, 20, ends[0] - 1):
        with pytest.raises(DamagedError):
            lichen.decode(data[:cut], model=model, partial=True)


def test_metadata_survive_a_cut(model: Model, photo: Photo) -> None:
    rgba = np.dstack([photo[:40, :40], photo[:40, :40, 0]])
    data = lichen.encode(rgba, 100, model=model)
    assert [p.type for p in parts(data)][:2] == ["HEAD", "ALPH"]
    decoded = lichen.decode(data[:-1], model=model, partial=True)
    assert np.array_equal(np.asarray(decoded)[..., 3], rgba[..., 3])


def test_other_models_have_no_layers_to_spare(tiny_light: Model, photo: Photo) -> None:
    data = lichen.encode(photo[:64, :64], model=tiny_light)
    assert codec.describe(data)["layers"] == 0
    for partial in (False, True):
        with pytest.raises(DamagedError) as caught:
            lichen.decode(data[:-1], model=tiny_light, partial=partial)
        assert "--partial" not in str(caught.value)


def test_layers_have_to_be_those_of_the_quality(model: Model, photo: Photo, tiny_light: Model) -> None:
    file = codec.read(lichen.encode(photo[:48, :48], 100, model=model))
    few = Container(file.header, [file.tiles[0][: file.layers[2][0]]], {}, file.layers[:3])
    many = Container(file.header, file.tiles, {}, [*file.layers, file.layers[-1]])
    for wrong in (few, many):
        with pytest.raises(DamagedError, match="5 that its quality asks for"):
            lichen.decode(wrong.to_bytes(), model=model)
    light = codec.read(lichen.encode(photo[:48, :48], model=tiny_light))
    foreign = Container(light.header, light.tiles, {}, [[len(light.tiles[0])]])
    with pytest.raises(DamagedError, match="layers"):
        lichen.decode(foreign.to_bytes(), model=tiny_light)
