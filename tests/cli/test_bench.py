"""`lichen bench` from end to end on small pictures."""

from __future__ import annotations

import json
import re
import shutil
import sys

import pytest
from PIL import Image

from lichen.benchmark.store import Store
from lichen.cli import main


@pytest.fixture
def pictures(tmp_path, photo):
    folder = tmp_path / "mine"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(photo[i * 100 : i * 100 + 170, :180]).save(folder / f"{i}.png")
    return folder


def bench(pictures, tmp_path, *options):
    return main(
        [
            *("bench", "--dataset", str(pictures), "--store", str(tmp_path / "s.jsonl"), "--processes", "1"),
            *("--timed", "1", "--repeats", "1", *options),
        ]
    )


def test_measures_prints_and_writes(pictures, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    outputs = ["--report", str(tmp_path / "out.html"), "--markdown", str(tmp_path / "out.md")]
    outputs += ["--figures", str(tmp_path / "figures"), "--pictures", "1"]
    assert bench(pictures, tmp_path, "--codecs", "jpeg-420,webp,bpg-444", *outputs) == 0
    said = capsys.readouterr()
    assert "BD-rate against jpeg-420" in said.out and "webp" in said.out
    assert "bpg-444 was not measured: bpg" in said.err
    data = json.loads(re.search(r'id="data">(.*?)</script>', (tmp_path / "out.html").read_text(), re.S)[1])
    assert data["sets"][0]["name"] == "mine" and data["sets"][0]["pictures"] == 3
    assert any("bpg-444" in n for n in data["notes"])
    assert data["viewer"][0]["versions"]
    assert "| webp |" in (tmp_path / "out.md").read_text()
    assert sorted(p.name for p in (tmp_path / "figures").iterdir())[0] == "mine-ms-ssim.png"
    rows = Store(tmp_path / "s.jsonl").rows
    assert len(rows) == 3 * 2 * 8 and all(r.ms_ssim is not None for r in rows.values())
    lines = (tmp_path / "s.jsonl").read_text()
    assert bench(pictures, tmp_path, "--codecs", "jpeg-420,webp") == 0
    assert (tmp_path / "s.jsonl").read_text() == lines  # nothing was measured again


def test_lichen_and_weights_by_name(pictures, tmp_path, tiny_light, capsys):
    from lichen.models import weights

    path = tmp_path / "tiny.safetensors"
    weights.save(tiny_light, path)
    options = ["--codecs", "jpeg-420", "--weights", "tiny", str(path), "--every", "3", "--no-ms-ssim"]
    assert bench(pictures, tmp_path, *options) == 0
    assert {r.codec for r in Store(tmp_path / "s.jsonl").rows.values()} == {"jpeg-420", "tiny"}


def test_folders_of_one_name_are_told_apart(pictures, tmp_path, capsys):
    other = tmp_path / "other" / "mine"
    shutil.copytree(pictures, other)
    options = ["--codecs", "jpeg-420", "--no-ms-ssim", "--figures", str(tmp_path / "curves")]
    assert bench(pictures, tmp_path, "--dataset", str(other), *options) == 0
    drawn = {p.name for p in (tmp_path / "curves").glob("*-psnr.png")}
    assert drawn == {f"{tmp_path.name}-mine-psnr.png", "other-mine-psnr.png"}


def test_limits(pictures, tmp_path):
    assert bench(pictures, tmp_path, "--codecs", "jpeg-420,webp", "--limit", "webp=1", "--no-ms-ssim") == 0
    rows = Store(tmp_path / "s.jsonl").rows.values()
    assert len({r.image for r in rows if r.codec == "webp"}) == 1
    assert len({r.image for r in rows if r.codec == "jpeg-420"}) == 3


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--codecs", "gif"], "no codec is called gif"),
        (["--codec", "mine:enc"], "is no codec"),
        (["--limit", "webp"], "CODEC=N"),
        (["--weights", "name"], "names no file"),
        (["--codecs", "bpg-444"], "no codec can run here"),
        (["--codecs", "webp", "--codec", "x:enc ' {in} {out}:dec {in} {out}"], "no command line: No closing quotation"),
        (["--codecs", "webp", "--again", "wepb"], "--again wepb: no such codec is measured, but webp"),
        (["--codecs", "webp", "--limit", "wepb=2"], "--limit wepb: no such codec"),
        (["--codecs", "webp", "--anchor", "wepb"], "--anchor wepb: no codec is called so"),
        (["--codecs", "webp", "--report", "."], "--report . cannot be written"),
        (["--codecs", "webp", "--figures", __file__], "cannot be written (File exists)"),
        (["--codecs", "webp", "--markdown", f"{__file__}/x.md"], "x.md cannot be written (File exists)"),
    ],
)
def test_refusals_are_a_sentence(pictures, tmp_path, capsys, options, word):
    assert bench(pictures, tmp_path, *options) == 1
    assert word in capsys.readouterr().err


def test_a_codec_that_breaks_ends_its_own_measurements_alone(pictures, tmp_path, capsys):
    script = tmp_path / "copy.py"
    script.write_text("import sys, shutil; shutil.copy(sys.argv[1], sys.argv[2])")
    script = f"{sys.executable} {script} {{in}} {{out}}"
    nothing = f"{sys.executable} -c 'import sys; open(sys.argv[1], chr(119))' {{out}} {{in}}"
    codecs = [
        "--codecs",
        "jpeg-420",
        "--codec",
        f"broken:{script}:{nothing}:1,2",
        "--markdown",
        str(tmp_path / "a/b.md"),
    ]
    assert bench(pictures, tmp_path, *codecs, "--every", "2", "--processes", "2") == 1
    said = capsys.readouterr()
    assert "broken 1 on 0.png: UnidentifiedImageError" in said.err and "Traceback" not in said.err
    assert "jpeg-420" in (tmp_path / "a" / "b.md").read_text()
    assert {r.codec for r in Store(tmp_path / "s.jsonl").rows.values()} == {"jpeg-420"}


def test_small_pictures_are_measured_without_ms_ssim(pictures, tmp_path, photo, capsys):
    Image.fromarray(photo[:100, :180]).save(pictures / "small.png")
    assert bench(pictures, tmp_path, "--codecs", "jpeg-420", "--anchor", "webp") == 0
    said = capsys.readouterr()
    assert "MS-SSIM needs 161 pixels to each side, and 1 pictures have less (small.png, ...)" in said.err
    assert "no BD-rates: webp was not measured" in said.out
    rows = Store(tmp_path / "s.jsonl").rows.values()
    assert {(r.image == "small.png", r.ms_ssim is None) for r in rows} == {(True, True), (False, False)}
    lines = (tmp_path / "s.jsonl").read_text()
    assert bench(pictures, tmp_path, "--codecs", "jpeg-420") == 0
    assert (tmp_path / "s.jsonl").read_text() == lines


def test_again_of_a_group(pictures, tmp_path):
    options = ["--codecs", "jpeg", "--every", "3", "--no-ms-ssim"]
    assert bench(pictures, tmp_path, *options) == 0
    lines = len((tmp_path / "s.jsonl").read_text().splitlines())
    assert bench(pictures, tmp_path, *options, "--again", "jpeg", "--timed", "0") == 0
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == lines + 2 * 8


def test_data_that_are_not_there(tmp_path, capsys):
    assert main(["bench", "--dataset", "kodak", "--data", str(tmp_path)]) == 1
    assert "https://" in capsys.readouterr().err


def test_the_list(capsys):
    assert main(["bench", "--list"]) == 0
    said = capsys.readouterr().out
    assert "jpeg-420" in said and "tecnick" in said
