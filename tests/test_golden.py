"""Golden files: stored bytes give exactly the stored latents and the other way round, on every machine and version.

A change that breaks them breaks every file that anyone has written. If that is meant, raise the format's version, say
so in CHANGELOG.md, and write them anew: python -m pytest tests/test_golden.py --regenerate-golden
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

import lichen
from lichen import codec, tiles
from lichen.coding.coder import Decoder, Encoder
from lichen.models import REGISTRY
from lichen.models.weights import load, save

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(params=sorted(REGISTRY))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _regenerate(request: pytest.FixtureRequest, name: str, photo: npt.NDArray[np.uint8]) -> None:
    if not request.config.getoption("--regenerate-golden"):
        return
    from tiny import make_tiny

    GOLDEN.mkdir(exist_ok=True)
    model = make_tiny(name, photo)
    save(model, GOLDEN / f"{name}.safetensors", half=True)
    model = load(name, weights=GOLDEN / f"{name}.safetensors")
    pixels = photo[30:110, 180:276]
    data = lichen.encode(pixels, 65, model=model)
    file = codec.read(data)
    q = codec.quality_tensor(file.header.quality)
    with torch.inference_mode():
        y = model.analyse(tiles.to_tensor(pixels, model), q)
        y_hat = model.code([Decoder(file.tiles[0])], None, q, (y.shape[1], y.shape[2]))
    (GOLDEN / f"{name}.lichen").write_bytes(data)
    np.savez_compressed(
        GOLDEN / f"{name}.npz", y=y.numpy(), y_hat=y_hat.numpy(), pixels=np.asarray(lichen.decode(data, model=model))
    )


def test_stored_bytes_give_the_stored_latents(name: str) -> None:
    model, stored = load(name, weights=GOLDEN / f"{name}.safetensors"), np.load(GOLDEN / f"{name}.npz")
    file = codec.read((GOLDEN / f"{name}.lichen").read_bytes())
    decoder = Decoder(file.tiles[0])
    y_hat = model.code([decoder], None, codec.quality_tensor(file.header.quality), stored["y_hat"].shape[1:3])
    decoder.finish()
    assert np.array_equal(y_hat.numpy(), stored["y_hat"])
    assert np.abs(stored["y_hat"]).max() >= 1  # latents that mean something


def test_stored_latents_give_the_stored_bytes(name: str) -> None:
    model, stored = load(name, weights=GOLDEN / f"{name}.safetensors"), np.load(GOLDEN / f"{name}.npz")
    file = codec.read((GOLDEN / f"{name}.lichen").read_bytes())
    encoder = Encoder()
    model.code([encoder], torch.from_numpy(stored["y"]), codec.quality_tensor(file.header.quality))
    assert encoder.finish() == file.tiles[0]


def test_pixels_are_within_one_level(name: str) -> None:
    model, stored = load(name, weights=GOLDEN / f"{name}.safetensors"), np.load(GOLDEN / f"{name}.npz")
    decoded = lichen.decode((GOLDEN / f"{name}.lichen").read_bytes(), model=model)
    assert np.abs(np.asarray(decoded).astype(int) - stored["pixels"]).max() <= 1
