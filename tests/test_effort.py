"""Refined latents: never worse, ordinary files, what the prior promises is what the coder takes."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import lichen
from lichen import codec, effort, tiles
from lichen.cli import parser
from lichen.coding.coder import Meter
from lichen.errors import EffortError
from lichen.layers.ms_ssim import ms_ssim_error, ms_ssim_lmbda
from lichen.models.base import Model
from lichen.models.weights import shipped

Photo = npt.NDArray[np.uint8]


def cost(data: bytes, pixels: Photo, model: Model, lmbda: float) -> float:
    """Bits of the streams and lmbda 255^2 times the squared error of the picture before it is rounded to pixels."""
    file = codec.read(data)
    x_hat = codec.reconstruct(file, model=model).permute(1, 2, 0).numpy()
    return 8 * sum(map(len, file.tiles)) + lmbda * 255**2 * float(((x_hat - pixels / 255) ** 2).sum()) / 3


def refinable(model: Model) -> bool:
    return hasattr(model.prior, "conditionals")


def quality_of(model: Model) -> torch.Tensor | None:
    return torch.tensor([50.0]) if model.variable_rate else None


@pytest.mark.parametrize("tile", [0, 2])
def test_shipped_weights_save_bits_at_the_same_quality(photo: Photo, tile: int) -> None:
    model, pixels = lichen.load(), photo[30:220, :250]
    lmbda = float(model.lmbda_of(torch.tensor([60.0])))
    costs = {}
    for level in (0, 1, 2, 4):
        data = lichen.encode(pixels, 60, effort=level, tile=tile)
        assert np.asarray(lichen.decode(data)).shape == pixels.shape
        costs[level] = cost(data, pixels, model, lmbda)
    assert costs[4] < costs[2] < costs[0]
    assert costs[1] <= costs[0]
    assert costs[4] < 0.985 * costs[0]


def test_weights_for_ms_ssim_save_bits_at_the_same_ms_ssim(photo: Photo) -> None:
    model, pixels = lichen.load("minnen2018-joint", objective="ms-ssim"), photo[30:220, :250]
    lmbda = float(ms_ssim_lmbda(model.lmbda_of(torch.tensor([50.0]))))
    costs, sizes = {}, {}
    for level in (0, 5):
        data = lichen.encode(pixels, 50, model=model, effort=level)
        file = codec.read(data)
        x_hat = codec.reconstruct(file, model=model)[None]
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
        sizes[level] = 8 * sum(map(len, file.tiles))
        costs[level] = sizes[level] + lmbda * float(ms_ssim_error(x, x_hat)) * x[0, 0].numel()
    assert sizes[5] < sizes[0]
    assert costs[5] < 0.985 * costs[0]


def test_ms_ssim_needs_its_package_and_room(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lichen.load("minnen2018-joint", objective="ms-ssim")
    small = photo[:32, :90]
    assert lichen.encode(small, 50, model=model, effort=4) == lichen.encode(small, 50, model=model)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EffortError, match="pytorch-msssim: pip install"):
        lichen.encode(photo[:64, :90], 50, model=model, effort=1)


def test_level_0_is_what_encode_does(photo: Photo) -> None:
    assert lichen.encode(photo[:99, :70], 40, effort=0) == lichen.encode(photo[:99, :70], 40)


def test_the_same_picture_gives_the_same_file(photo: Photo) -> None:
    first, second = (lichen.encode(photo[:64, :96], 40, effort=3) for _ in range(2))
    assert first == second


def test_every_model_refines_or_says_that_it_cannot(tiny: Model, photo: Photo) -> None:
    pixels = photo[100:203, 60:190]
    if not refinable(tiny):
        with pytest.raises(EffortError, match=f"latents of {tiny.name} cannot be refined"):
            lichen.encode(pixels, model=tiny, effort=1)
        return
    q = quality_of(tiny)
    refiner = effort.Refiner(tiny, q, 4)
    x, y, tile = tiles.with_surroundings(pixels, tiles.latents_of(103, 130, tiny), tiny, q)
    assert x.shape == (1, 3, 103, 130)
    ticks: list[None] = []
    task = effort._Task(refiner, x, y, tile)
    found = refiner(x, y, tile, lambda: ticks.append(None))
    assert len(ticks) == refiner.steps == 10
    with torch.no_grad():
        start = {"y": y, **tiny.prior.hyper(y, refiner.level)}
        task.weigh(start)
        assert task.cost(found) <= task.cost(start)
    data = lichen.encode(pixels, None if q is None else 50, model=tiny, effort=4)
    assert np.asarray(lichen.decode(data, model=tiny)).shape == pixels.shape


@pytest.mark.parametrize("path", sorted(shipped().values()), ids=lambda path: path.stem)
def test_what_is_expected_is_what_the_coder_takes(path: Path, photo: Photo) -> None:
    model = lichen.load(weights=path)
    if not refinable(model):
        pytest.skip("nothing is expected of symbols that have no neighbours")
    q, prior = quality_of(model), model.prior
    with torch.no_grad():
        y = model.analyse(tiles.to_tensor(photo[:176, :208], model), q)
        level = prior.condition(q)
        latents = {"y": y, **prior.hyper(y, level)}
        meter = Meter()
        s = model.code([meter], latents, q)
        hyper = {part: v for part, v in latents.items() if part != "y"}
        rounded = dict(hyper)
        for _ in hyper:
            found, _ = prior.conditionals({**rounded, "y": y}, level)
            rounded = {p: found[p].centre + torch.round(v - found[p].centre) for p, v in hyper.items()}
        rounded["y"] = s[..., : y.shape[-1]]
        found, taken = prior.conditionals(rounded, level)
        expected = {part: float(found[part].bits(v).sum()) for part, v in rounded.items()}
    M = y.shape[-1]
    torch.testing.assert_close(taken[..., :M], s[..., :M], rtol=0, atol=0.02)
    torch.testing.assert_close(taken[..., M:], s[..., M:], rtol=0, atol=0.05)  # scales between tables may go to either
    assert expected == pytest.approx(meter.bits, rel=0.01, abs=8)


def test_a_tile_keeps_away_from_the_others(tiny_light: Model, photo: Photo) -> None:
    """Refining one tile leaves the latents of the next alone, and knows the pixels that both have a part in."""
    q = torch.tensor([50.0])
    box = tiles.Box(0, 0, 4, 4)
    x, y, tile = tiles.with_surroundings(photo[:192, :224], box, tiny_light, q)
    reach = 2 * tiny_light.reach
    assert y.shape[1:3] == (4 + reach, 4 + reach)
    assert x.shape[2:] == (16 * (4 + reach), 16 * (4 + reach))
    assert tile == (slice(0, 4), slice(0, 4))
    with torch.no_grad():
        whole = tiny_light.analyse(tiles.to_tensor(photo[:192, :224], tiny_light), q)
    torch.testing.assert_close(y, whole[:, : 4 + reach, : 4 + reach], rtol=1e-4, atol=1e-4)
    task = effort._Task(effort.Refiner(tiny_light, q, 1), x, y, tile)
    assert task.around is not None
    with torch.no_grad():
        s = tiny_light.code([Meter()], y, q)
        torch.testing.assert_close(task.error(s[:, :4, :4]), task.error(task.around[:, :4, :4]))


def test_lmbda_of_one_quality_is_found_by_curvature(photo: Photo) -> None:
    """Weights of many qualities know theirs: what their curvature gives without it is near."""
    model = lichen.load("minnen2018-joint")
    for quality in (20.0, 50.0, 80.0):
        q = torch.tensor([quality])
        refiner = effort.Refiner(model, q, 1)
        x, y, tile = tiles.with_surroundings(photo[:256, :256], tiles.latents_of(256, 256, model), model, q)
        task = effort._Task(refiner, x, y, tile)
        with torch.no_grad():
            task.weigh({"y": y, **model.prior.hyper(y, refiner.level)})
        y = y.detach()
        used = torch.round(y).abs().clamp(max=1).mean((0, 1, 2))
        by_curvature = effort.BITS_A_STEP * float(used.sum() / (task.curvature * used).sum())
        assert by_curvature == pytest.approx(float(model.lmbda_of(q)), rel=0.25)


@pytest.mark.parametrize("target", [{"target_bytes": 4500}, {"target_bpp": 0.6}, {"target_psnr": 33.0}])
def test_refined_files_hit_targets(photo: Photo, target: dict[str, Any]) -> None:
    pixels, shares = photo[:256, :256], []
    data = lichen.encode(pixels, effort=2, progress=shares.append, **target)
    if "target_psnr" in target:
        error = (np.asarray(lichen.decode(data)).astype(float) - pixels) ** 2
        assert abs(10 * np.log10(255**2 / error.mean()) - 33.0) <= 0.05
    else:
        budget = target.get("target_bytes", 0.6 * 256 * 256 / 8)
        assert 0.98 * budget <= len(data) <= budget
    assert shares[2] == shares[-1] == 1.0  # three steps a file
    assert all(0 < share <= 1 for share in shares)
    plain = lichen.encode(pixels, **target)
    assert data != plain


def test_levels_that_there_are_not(photo: Photo, capsys: pytest.CaptureFixture[str]) -> None:
    for level in (-1, 10, 2.5):
        with pytest.raises(EffortError, match="not one of 0 to 9"):
            lichen.encode(photo[:32, :32], effort=level)  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        parser().parse_args(["encode", "a.png", "--effort", "10"])
    assert "invalid choice: 10" in capsys.readouterr().err


def test_the_command_has_the_same_levels() -> None:
    for level in effort.LEVELS:
        given: argparse.Namespace = parser().parse_args(["encode", "a.png", "-e", str(level)])
        assert given.effort == level
