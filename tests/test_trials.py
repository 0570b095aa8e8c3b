"""The trials' script and the measure on held-out pictures, with a tiny model."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import held_out
import pytest
import torch
import trials

from lichen.models.base import Model
from lichen.models.weights import save
from lichen.training.config import TrainConfig

CURVE = "quality,bpp,psnr,loss\n" + "".join(f"{q},{0.1 * q},{20 + q},{10 - q / 10}\n" for q in range(1, 9))


def test_held_out_counts_what_a_file_needs(tiny_light: Model, folder: Path, cache: Path) -> None:
    crops = held_out.held_out_crops([str(folder)], cache)[:2]
    points = held_out.measure(tiny_light, crops)
    assert [p.quality for p in points] == list(held_out.QUALITIES)
    x_hat, bits = tiny_light(crops[:1], torch.tensor([points[3].quality]))
    (one, *_) = [p for p in held_out.measure(tiny_light, crops[:1]) if p.quality == points[3].quality]
    assert one.bpp == pytest.approx(float(sum(bits.values())) / 192**2, rel=1e-5)
    mse = float(((x_hat.detach().clamp(0, 1) - crops[:1]) ** 2).mean())
    assert one.psnr == pytest.approx(-10 * torch.tensor(mse).log10().item(), abs=0.05)  # but for 8 bits
    lmbda = float(tiny_light.lmbda_of(torch.tensor(one.quality)))
    assert one.loss == pytest.approx((lmbda * 255**2 * 10 ** (-one.psnr / 10) + one.bpp) / lmbda**0.5, rel=1e-4)


def test_held_out_prints_and_writes(
    tiny_light: Model, folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    weights, table = tmp_path / "w.safetensors", tmp_path / "points.csv"
    save(tiny_light, weights)
    monkeypatch.setattr(held_out, "difference", lambda *_: 0.0)  # a tiny model's curve does not rise
    line = ["held_out", "--data", str(folder), "--weights", str(weights), "--csv", str(table), "--cache", str(cache)]
    monkeypatch.setattr("sys.argv", line)
    assert held_out.main() == 0
    points = held_out.points_of(table)
    assert f"loss {held_out.loss(points):.3f}" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*line[:-4], "--weights", str(tmp_path / "none"), *line[-2:]])
    assert held_out.main() == 1
    assert "there are no weights at" in capsys.readouterr().err


def test_every_trial_is_one_that_can_be_trained() -> None:
    base = trials.TRIALS["base"].steps() * 4 * 192**2
    assert base == pytest.approx(trials.PIXELS, rel=1e-3)
    for name, trial in trials.TRIALS.items():
        TrainConfig(data=["d"], out="o", steps=trial.steps(), **{**trials.BASE, **trial.settings})
        values = {**trials.BASE, **trial.settings}
        pixels = trial.steps() * values["batch"] * values["crop"] ** 2
        assert pixels * trial.cost == pytest.approx(trials.PIXELS, rel=1e-3)
        assert (trials.LOGS / f"{name}.patch").exists() == trial.patched


@pytest.mark.parametrize("name", trials.TRIALS)
def test_patches_apply(name: str, tmp_path: Path) -> None:
    try:
        trials.git("cat-file", "-e", f"{trials.COMMIT}^{{commit}}")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no history here")
    source = trials.source(name, tmp_path)
    assert trials.source(name, tmp_path) == source  # made once
    changed = [p for p in (source / "lichen").rglob("*.py") if not same_as_committed(p, source)]
    assert bool(changed) == trials.TRIALS[name].patched


def same_as_committed(path: Path, source: Path) -> bool:
    return path.read_bytes() == trials.git("show", f"{trials.COMMIT}:src/{path.relative_to(source)}")


def test_the_table_has_the_best_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "LOGS", tmp_path)
    (tmp_path / "start-held-out.csv").write_text(CURVE)
    for name, loss in (("base", 5.0), ("lr-2e-3", 4.0)):
        rows = [line.rsplit(",", 1)[0] + f",{loss}" for line in CURVE.splitlines()[1:]]
        (tmp_path / f"{name}-held-out.csv").write_text("\n".join(["quality,bpp,psnr,loss", *rows]))
    start, best, worse = trials.table().splitlines()[2:]
    assert "9.550" in start
    assert best.startswith("| rate 2e-3 |")
    assert "4.000 | +0.00" in best
    assert worse.startswith("| 4 crops of 192x192")


def test_a_trial_trains_and_is_measured(
    tiny_config: Any, tiny_light: Model, folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del tiny_config  # registers presets
    settings = {"preset": "tiny", "batch": 4, "crop": 64, "cache": str(cache), "precision": "32-true", "lr": 1e-3}
    monkeypatch.setattr(trials, "BASE", settings)
    monkeypatch.setattr(trials, "PIXELS", 3 * 4 * 64**2)
    monkeypatch.setattr(trials, "grown", lambda: tiny_light)
    monkeypatch.setattr(held_out, "CACHE", cache)
    crops = held_out.held_out_crops([str(folder)], cache)
    monkeypatch.setattr(held_out, "held_out_crops", lambda data: crops[:1])
    trials.finish("base", [str(folder)], tmp_path)
    first = (tmp_path / "base" / "held-out.csv").read_text()
    trials.finish("base", [str(folder)], tmp_path)  # finished already: measured again
    assert (tmp_path / "base" / "held-out.csv").read_text() == first
    assert len(held_out.points_of(tmp_path / "base" / "held-out.csv")) == 8
