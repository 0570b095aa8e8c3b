"""The default model's curve over its training: the log, the fit, and that the page shows what the log says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import training_curve
from training_curve import Line, Stand

from lichen.benchmark import published


def lines(gigapixels: float, factor: float, ended: int = 1) -> list[Line]:
    """Those of BPG itself, at a rate so many times higher."""
    curve = published.curve("kodak", "bpg-444-x265", "psnr")
    pairs = list(zip(curve.bpp, curve.quality, strict=True))[:6]
    return [Line(gigapixels, 1.0, ended, f"{factor}", float(q), r * factor, d) for q, (r, d) in enumerate(pairs)]


def test_the_log_keeps_what_is_added_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_curve, "LOG", tmp_path / "log.csv")
    training_curve.add(lines(4.0, 1.1))
    training_curve.add(lines(2.0, 1.2))
    training_curve.add(lines(4.0, 1.1))  # again: in place of the first
    found = training_curve.lines_of(tmp_path / "log.csv")
    assert [line.gigapixels for line in found] == 6 * [2.0] + 6 * [4.0]
    first, second = training_curve.stands(found)
    assert first.against["bpg-444-x265"] == pytest.approx(20, abs=0.1)
    assert second.against["bpg-444-x265"] == pytest.approx(10, abs=0.1)


def test_the_fit_is_over_the_ends_of_trainings() -> None:
    found = [Stand(g, 1.0, g != 3, "", {"bpg-444-x265": v}) for g, v in ((1, 20.0), (2, 15.0), (3, 99.0), (4, 10.0))]
    a, b = training_curve.fit(found) or (0.0, 0.0)
    assert (a, b) == pytest.approx((20, -5))
    assert training_curve.fit(found[:3]) is None
    text = training_curve.table(lines(1, 1.2) + lines(2, 1.15) + lines(4, 1.1))
    assert "+20.0" in text
    assert "Each doubling of what was seen was worth 5.0 %" in text
    assert "+1.0 % after 10 Gpx more" in text  # 10 - 5 log2(1 + 10 / 4)


def test_the_figure_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        training_curve.draw(lines(1, 1.2) + lines(2, 1.3, 0) + lines(4, 1.1), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "BD-rate against BPG" in (tmp_path / "a.svg").read_text()


def test_the_page_shows_the_log() -> None:
    page = (training_curve.DOCS / "training.md").read_text()
    assert training_curve.table(training_curve.lines_of(training_curve.LOG)) in page


def test_weights_without_their_hours_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["training_curve", "--data", "kodak", "--weights", "w.safetensors"])
    with pytest.raises(SystemExit):
        training_curve.main()
    assert "go together" in capsys.readouterr().err
