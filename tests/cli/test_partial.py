"""Progressive files on the command line: `lichen decode --partial` and the layers of `lichen info`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lichen
from lichen.cli import main

GOLDEN = Path(__file__).parent.parent / "golden"
WEIGHTS = ["--weights", str(GOLDEN / "toderici2017.safetensors")]


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    path = tmp_path / "cut.lichen"
    path.write_bytes((GOLDEN / "toderici2017.lichen").read_bytes()[:-1])
    return path


def test_decode(cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decode", *WEIGHTS, str(cut)]) == 1
    said = capsys.readouterr().err
    assert "--partial" in said and "2 whole layers" in said
    assert not cut.with_suffix(".png").exists()
    assert main(["decode", "--partial", *WEIGHTS, str(cut)]) == 0
    model = lichen.load(weights=GOLDEN / "toderici2017.safetensors")
    expected = lichen.decode(cut, model=model, partial=True)
    assert np.array_equal(np.asarray(Image.open(cut.with_suffix(".png"))), np.asarray(expected))


def test_info(cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = GOLDEN / "toderici2017.lichen"
    assert main(["info", str(whole)]) == 0
    text = capsys.readouterr().out
    assert "layer 3" in text and "layer 4" not in text and "ends early" not in text
    assert f"{whole.stat().st_size:,} bytes of the file" in text
    assert main(["info", "--json", str(whole)]) == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["layers"], described["missing"]) == (3, 0)
    assert [p["type"] for p in described["parts"]] == ["HEAD", "LAYR", "LAYR", "LAYR"]
    assert main(["info", str(cut)]) == 1
    assert "--partial" in capsys.readouterr().err
    assert main(["info", "--partial", str(cut)]) == 0
    text = capsys.readouterr().out
    assert "layer 2" in text and "layer 3" not in text and "ends early" in text
