"""A look inside: the same bits as the coder's, correlations with a known answer, and a figure."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lichen.benchmark import analyses, look
from lichen.benchmark.codecs import LichenCodec
from lichen.cli import main


@pytest.fixture(scope="module")
def picture(photo):
    return np.ascontiguousarray(photo[64:256, 100:300])


def test_every_model(tiny, picture):
    """mu is what the codec adds to whole numbers, and bits by mu and sigma agree with the coder's."""
    found = look.look(picture, tiny, 60)
    assert found.y.shape == found.y_hat.shape
    assert found.bits == look.bits(picture, tiny, 60)
    if found.mu is None or tiny.name.endswith("factorized"):
        return  # a density that is not normal
    assert np.abs(found.y - found.y_hat).max() <= 0.51
    steps = found.y_hat - found.mu
    assert np.abs(steps - steps.round()).max() < 0.01
    if (np.abs(found.residual) > 5.5).mean() < 0.01:  # else escapes, whose bits no density tells
        assert found.bits_of_y.sum() == pytest.approx(found.bits["y"], rel=0.02)
    numbers = found.numbers()
    assert set(numbers["correlation"]) >= {"y", "mu", "sigma", "residual"}
    assert sum(numbers["bits_per_pixel"].values()) == pytest.approx(sum(found.bits.values()) / picture[..., 0].size)


def test_correlation_of_noise_of_ramps_and_of_stripes():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(64, 64, 8))
    table = look.correlation(noise)
    assert table[2, 2] == 1 and np.abs(np.delete(table.flatten(), 12)).max() < 0.05
    smooth = np.repeat(np.repeat(rng.normal(size=(16, 16, 8)), 4, axis=0), 4, axis=1)
    assert look.correlation(smooth)[2, 3] == pytest.approx(0.75, abs=0.05)
    stripes = np.tile(np.array([1.0, -1.0]), 32)[None, :, None] * np.ones((64, 64, 1))
    table = look.correlation(stripes)
    assert table[2, 3] == pytest.approx(-1) and table[3, 2] == pytest.approx(1)
    assert look.correlation(np.zeros((8, 8, 2)))[2, 2] == 1


def test_channels_count_as_their_weight():
    rng = np.random.default_rng(0)
    v = rng.normal(size=(64, 64, 2))
    v[..., 1] = np.tile(np.array([1.0, -1.0]), 32)
    assert look.correlation(v, np.array([0.0, 1.0]))[2, 3] == pytest.approx(-1)
    assert abs(look.correlation(v, np.array([1.0, 0.0]))[2, 3]) < 0.06


def test_where_the_bits_go(tiny_light, picture, tmp_path):
    from PIL import Image

    Image.fromarray(picture).save(tmp_path / "p.png")
    codec = LichenCodec(tiny_light, name="tiny", settings=(20.0, 80.0))
    table = analyses.where_the_bits_go([codec], [tmp_path / "p.png"])
    assert list(table.columns) == ["codec", "setting", "all", "z", "y"]
    totals = [float(r[2]) for r in table.rows]
    assert totals[0] < totals[1]
    assert sum(float(c.split()[0]) for c in table.rows[0][3:]) == pytest.approx(totals[0], abs=2e-4)


def test_the_command(picture, tmp_path, tiny_light, capsys):
    pytest.importorskip("matplotlib")
    from PIL import Image

    from lichen.models import weights

    Image.fromarray(picture).save(tmp_path / "p.png")
    weights.save(tiny_light, tmp_path / "tiny.safetensors")
    command = ["inspect", str(tmp_path / "p.png"), "--weights", str(tmp_path / "tiny.safetensors")]
    assert main([*command, "-o", str(tmp_path / "out.png")]) == 0
    said = capsys.readouterr().out
    assert "bits of y" in said and "residual" in said
    with Image.open(tmp_path / "out.png") as image:
        assert min(image.size) > 500
    assert main([*command, "-o", str(tmp_path / "out.png"), "--json"]) == 1
    assert "--force to overwrite" in capsys.readouterr().err
    assert main([*command, "-o", str(tmp_path / "out.png"), "--json", "--force"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "light"
    before = (tmp_path / "p.png").read_bytes()
    for output, word in (("p.png", "is the picture itself"), ("out.foo", "no format of figures"), ("out", "no format")):
        assert main([*command, "-o", str(tmp_path / output), "--force"]) == 1
        assert word in capsys.readouterr().err
    assert (tmp_path / "p.png").read_bytes() == before
    for wrong in (["-q", "0"], ["--threads", "0"], ["--channels", "-1"]):
        with pytest.raises(SystemExit, match="2"):
            main([*command, *wrong])


def test_the_shipped_model(photo):
    import lichen

    found = look.look(np.ascontiguousarray(photo[:256, :256]), lichen.load(), 60)
    assert found.bits_of_y.sum() == pytest.approx(found.bits["y"], rel=0.01)
    correlations = found.numbers()["correlation"]
    assert abs(correlations["residual"]["right"]) < correlations["y"]["right"]
    assert found.numbers()["residual_deviation"] < 1.5
