from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

import lichen
from lichen.coding.coder import Meter
from lichen.models.base import Model
from lichen.models.weights import DEFAULT, load

Photo = npt.NDArray[np.uint8]


@pytest.mark.parametrize("quality", [20, 60, 100])
def test_pictures_unlike_photographs_stay_what_they_are(quality: int) -> None:
    """Edges of full contrast and salt on black: gated products without a tight bound made noise of them."""
    i, j = np.mgrid[:128, :128]
    squares = np.repeat(((i // 8 + j // 8) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    salt = np.repeat((np.random.default_rng(0).random((128, 128, 1)) < 0.05).astype(np.uint8) * 255, 3, axis=2)
    for pixels in (squares, salt):
        decoded = np.asarray(lichen.decode(lichen.encode(pixels, quality)))
        assert ((decoded / 255 - pixels / 255.0) ** 2).mean() < 0.15 * (pixels / 255.0).var()


@pytest.mark.parametrize(("shape", "levels"), [((1, 1), 11), ((8, 8), 2), ((16, 16), 2), ((3, 40), 2)])
def test_small_pictures_keep_their_colours(shape: tuple[int, int], levels: float) -> None:
    for colour in ([0, 0, 0], [200, 30, 40], [255, 255, 255], [20, 120, 220]):
        pixels = np.full((*shape, 3), colour, np.uint8)
        decoded = np.asarray(lichen.decode(lichen.encode(pixels, 90))).astype(int)
        assert abs(decoded - pixels).mean() < levels


@pytest.mark.parametrize("quality", [10.0, 50.0, 100.0])
def test_the_synthesis_takes_means_of_bins(photo: Photo, quality: float) -> None:
    """They lie nearer to what was rounded than the bins' middles, by what the shipped weights expect."""
    light, q = load(DEFAULT), torch.tensor([quality])
    x = torch.from_numpy(photo[:128, :192]).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        y = light.analyse(x, q)
        s = light.code([Meter()], y, q)
    M = y.shape[-1]
    y_hat, pull = s.chunk(2, dim=-1)
    assert y_hat.shape[-1] == pull.shape[-1] == M
    assert (pull.abs() < 0.5).all()
    assert ((y_hat + pull - y) ** 2).mean() < 0.98 * ((y_hat - y) ** 2).mean()


def test_training_hands_on_what_files_do(tiny_light: Model, photo: Photo) -> None:
    """With the gradient of the way between middles."""
    q = torch.tensor([50.0])
    x = torch.from_numpy(photo[:128, :192]).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        y = tiny_light.analyse(x, q)
        s = tiny_light.code([Meter()], y, q)
    v = y.clone().requires_grad_()
    handed_on, _ = tiny_light.prior(v, tiny_light.prior.condition(q))
    assert ((handed_on.detach() - s).abs() > 0.01).float().mean() < 0.05  # ties may fall to either
    y_hat, pull = handed_on.chunk(2, dim=-1)
    (slope,) = torch.autograd.grad((y_hat + pull).sum(), v)
    assert (slope > 0.5).all() and (slope <= 1.5).all() and (slope < 0.99).any()


def test_the_skeleton_stays_in_float32(tiny_light: Model, photo: Photo) -> None:
    """What passes beside all blocks is the same in bfloat16, so that no training makes up for its roundings."""
    net = tiny_light.g_a
    x = torch.from_numpy(photo[:64, :64]).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        for layer in (net.into, net.mid, net.out):
            v = torch.randn(5, layer.in_features)
            with torch.autocast("cpu", torch.bfloat16):
                there = layer(v)
            assert there.dtype == torch.float32
            assert torch.equal(there, layer(v))
        q = torch.tensor([50.0])
        with torch.autocast("cpu", torch.bfloat16):
            assert tiny_light.analyse(x, q).dtype == torch.float32
