import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import models_table
import numpy as np
import numpy.typing as npt
import pages
import pytest
from PIL import Image
from rich.console import Console
from tiny import make_tiny

import lichen
from lichen.benchmark import metrics, published
from lichen.benchmark.complexity import Complexity
from lichen.benchmark.store import Row, Store
from lichen.errors import WeightsError
from lichen.models import REGISTRY, weights

Photo = npt.NDArray[np.uint8]

DOCUMENT = """# Models

before
<!-- begin cost: scripts/models_table.py -->
old
<!-- end cost -->
between
<!-- begin measured: scripts/models_table.py -->
old, measured
<!-- end measured -->
<!-- begin published: scripts/models_table.py -->
<!-- end published -->
after
"""


def cells(table: str) -> list[list[str]]:
    """Rows of a Markdown table without header and rule."""
    return [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_what_stands_between_markers_alone_changes() -> None:
    text = models_table.replaced(DOCUMENT, "cost", "new")
    assert text == DOCUMENT.replace("\nold\n", "\n\nnew\n\n")
    assert models_table.replaced(text, "cost", "new") == text
    for broken in (DOCUMENT.replace("<!-- end cost -->", ""), DOCUMENT + DOCUMENT, ""):
        with pytest.raises(pages.TableError, match="begin cost"):
            models_table.replaced(broken, "cost", "new")


def test_the_document_has_all_places() -> None:
    text = models_table.DOCUMENT.read_text()
    for name in ("cost", "measured", "distances", "published"):
        models_table.replaced(text, name, "")


def test_a_row_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_table, "create", lambda model, preset: (model, preset))
    monkeypatch.setattr(models_table, "complexity", lambda model: Complexity(1_234_567, 91.4, 2.0, 0.0, 0.125))
    rows = cells(models_table.cost_table(Console(quiet=True)))
    assert [tuple(r[:2]) for r in rows] == [(e.name, p) for e in REGISTRY.values() for p in e.presets]
    assert all(r[2:] == ["1.23", "91.4", "2.00", "0", "0.12", "91.5", "2.12"] for r in rows)


def test_published_figures_are_those_of_the_table() -> None:
    rows = cells(models_table.published_table())
    of_2017 = [r for r in rows if "`balle2017-mse`" in r[1]]
    assert [r[2] for r in of_2017] == ["0.195", "0.481", "0.721", "1.061"]  # nearest to 0.25, 0.5, 0.75, 1
    point = next(p for p in published.points("kodak", "balle2017-mse") if f"{p.bpp:.3f}" == "0.721")
    assert of_2017[2][3:] == [f"{point.psnr:.2f}", models_table.similarity(point.ms_ssim)]
    for codecs in models_table.PUBLISHED.values():
        assert all(published.points("kodak", codec) for codec in codecs)


@pytest.fixture
def pictures(photo: Photo, tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, left in zip(paths, (0, 200), strict=True):
        Image.fromarray(photo[100:276, left : left + 192]).save(path)
    return paths


def test_measured_from_files(photo: Photo, pictures: list[Path], tmp_path: Path) -> None:
    """Means over pictures at the four levels, of the same bytes that lichen.encode gives."""
    pytest.importorskip("pytorch_msssim")
    folder = tmp_path / "weights"
    folder.mkdir()
    for name, file in [("balle2018-factorized", "balle2018-factorized"), ("minnen2018-scale", "trained")]:
        weights.save(make_tiny(name, photo), folder / f"{file}.safetensors", half=True)
    found = [w for w in models_table.find_weights(folder, 1) if w.preset.startswith("of its own")]
    assert [(w.model, w.preset) for w in found] == [
        ("minnen2018-scale", "of its own (trained)"),
        ("balle2018-factorized", "of its own"),
    ]
    store = Store(tmp_path / "store.jsonl")
    measured = models_table.measure(found, pictures, store, Console(quiet=True))
    rows = cells(models_table.measured_table(found, measured))
    assert [r[2] for r in rows] == ["fixed", "1", "34", "67", "100"]
    model = weights.read(folder / "balle2018-factorized.safetensors")
    for row, quality in zip(rows[1:], (1, 34, 67, 100), strict=True):
        originals = [np.asarray(Image.open(p)) for p in pictures]
        files = [lichen.encode(v, quality, model=model) for v in originals]
        decoded = [np.asarray(lichen.decode(f, model=model)) for f in files]
        pairs = list(zip(originals, decoded, strict=True))
        assert row[3] == f"{np.mean([8 * len(f) / (176 * 192) for f in files]):.3f}"
        assert row[4] == f"{np.mean([metrics.psnr(a, b) for a, b in pairs]):.2f}"
        assert row[5].startswith(f"{np.mean([metrics.ms_ssim(a, b) for a, b in pairs]):.4f} (")
    again = models_table.measure(found, pictures, Store(store.path), Console(quiet=True))
    assert again == measured  # times too: nothing was measured anew


def test_distances_against_the_factorized_prior() -> None:
    codecs = {file: SimpleNamespace(name=file, settings=(1.0, 34.0, 67.0, 100.0)) for file in "abc"}
    codecs["once"] = SimpleNamespace(name="once", settings=(1.0,))
    found = [models_table.Weights("m", file, file, codec) for file, codec in codecs.items()]  # type: ignore[arg-type]
    found[0] = dataclasses.replace(found[0], file=models_table.ANCHOR)

    def row(codec: str, setting: float, rate: float, psnr: float) -> Any:
        return Row(codec, "", setting, "p.png", "", 8, 8, 1, rate, psnr, 1 - 10 ** (-psnr / 20), 1, 1, "", 1)

    measured = []
    for q, psnr in ((1.0, 30.0), (34.0, 32.0), (67.0, 34.0), (100.0, 36.0)):
        rate = 2 ** (psnr - 30)
        measured += [row("a", q, rate, psnr), row("b", q, 0.8 * rate, psnr), row("c", q, rate, psnr + 40)]
    measured.append(row("once", 1.0, 1.0, 30.0))
    rows = cells(models_table.distances_table(found, measured))
    assert rows[0][2:] == ["0", "", "0", ""]
    assert rows[1][2:] == ["-20.0 %", "30.00 to 36.00", "-20.0 %", "15.00 to 18.00"]
    assert rows[2][2:] == ["-", "", "-", ""]
    assert len(rows) == 3


def test_weights_that_ship_are_found_once(tmp_path: Path) -> None:
    shipped = models_table.find_weights(None, 1)
    assert ("light", "default") in [(w.model, w.preset) for w in shipped]
    source = next(iter(weights.shipped().values()))
    (tmp_path / "copy.safetensors").write_bytes(source.read_bytes())
    assert len(models_table.find_weights(tmp_path, 1)) == len(shipped)
    (tmp_path / "copy.safetensors").unlink()
    with pytest.raises(WeightsError, match="holds no weights"):
        models_table.find_weights(tmp_path, 1)


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without pictures the measured table stays; a document without places is refused before any work."""
    monkeypatch.setattr(models_table, "complexity", lambda model: Complexity(1, 1.0, 1.0, 1.0, 1.0))
    document = tmp_path / "models.md"
    document.write_text(DOCUMENT)
    assert models_table.main(["--document", str(document), "--threads", "1"]) == 0
    text = document.read_text()
    assert "\nold\n" not in text and "\nold, measured\n" in text
    assert "| light | default |" in text and "`balle2017-mse`" in text
    document.write_text("nothing")
    assert models_table.main(["--document", str(document)]) == 1
    assert document.read_text() == "nothing"
    assert "has no place" in capsys.readouterr().err
    assert models_table.main(["--document", str(tmp_path / "missing.md")]) == 1
