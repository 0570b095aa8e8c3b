"""The commands through `lichen.cli.main`, as a shell would call them; where streams matter, in a real process."""

from __future__ import annotations

import argparse
import inspect
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import lichen
from lichen.cli import main, parser
from lichen.cli.encode import OPTIONS
from lichen.models import REGISTRY
from lichen.models.weights import SHIPPED

Photo = npt.NDArray[np.uint8]


@pytest.fixture
def png(tmp_path: Path, photo: Photo) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(photo[:96, :128]).save(path)
    return path


def test_there_and_back(png: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", str(png), "-q", "60"]) == 0
    coded = png.with_suffix(".lichen")
    assert coded.stat().st_size < png.stat().st_size / 4
    back = png.with_name("back.png")
    assert main(["decode", str(coded), "-o", str(back)]) == 0
    assert Image.open(back).size == (128, 96)
    assert capsys.readouterr().err == ""
    assert np.array_equal(np.asarray(Image.open(back)), np.asarray(lichen.decode(coded)))


def test_several_at_once_go_into_a_folder(png: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jpg"
    Image.open(png).save(other)
    out = tmp_path / "out"
    assert main(["encode", str(png), str(other), "-o", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["other.lichen", "photo.lichen"]
    assert main(["decode", *map(str, sorted(out.iterdir())), "-o", str(tmp_path / "back")]) == 0
    assert sorted(p.name for p in (tmp_path / "back").iterdir()) == ["other.png", "photo.png"]


def test_an_existing_file_is_kept_unless_forced(png: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = png.with_suffix(".lichen")
    target.write_bytes(b"precious")
    assert main(["encode", str(png)]) == 1
    assert target.read_bytes() == b"precious"
    assert "--force" in capsys.readouterr().err
    assert main(["encode", str(png), "--force"]) == 0
    assert target.read_bytes() != b"precious"


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_bad_input_is_one_sentence_and_no_file(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(content)
    assert main(["encode", str(bad)]) == 1
    assert main(["decode", str(bad)]) == 1
    assert main(["info", str(bad)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("lichen: ") and "bad.png" in line for line in lines)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.png"]


def test_one_bad_file_does_not_stop_the_others(png: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.png"
    assert main(["encode", str(missing), str(png), "-o", str(tmp_path / "out")]) == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["photo.lichen"]
    assert "missing.png" in capsys.readouterr().err


def test_outputs_that_would_collide_are_refused(png: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twin = png.with_suffix(".jpg")
    Image.open(png).save(twin)
    assert main(["encode", str(png), str(twin)]) == 1
    assert "both become" in capsys.readouterr().err


def test_damage_is_named(png: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["encode", str(png)])
    coded = png.with_suffix(".lichen")
    data = bytearray(coded.read_bytes())
    data[-20] ^= 1
    coded.write_bytes(data)
    back = png.with_name("back.png")
    assert main(["decode", str(coded), "-o", str(back)]) == 1
    assert "damaged" in capsys.readouterr().err
    assert not back.exists()


def test_info(png: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["encode", str(png), "-q", "33"])
    coded = png.with_suffix(".lichen")
    assert main(["info", str(coded)]) == 0
    text = capsys.readouterr().out
    size = coded.stat().st_size
    assert "128 x 96" in text
    assert f"{size:,} bytes" in text
    assert f"{8 * size / (128 * 96):.4f} bpp" in text
    assert "quality 33" in text
    assert all(len(line) <= 80 + len(str(png)) for line in text.splitlines())
    assert main(["info", "--json", str(coded)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["width"], told["height"], told["bytes"], told["quality"]) == (128, 96, size, 33)
    parts = sum(p["bytes"] for p in told["parts"])
    assert 0 < size - parts < 48


def test_weights_for_ms_ssim(png: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coded, name = png.with_suffix(".lichen"), "minnen2018-factorized"
    assert main(["encode", str(png), "--model", name]) == main(["info", str(coded)]) == 0
    assert "MS-SSIM" not in capsys.readouterr().out
    assert main(["encode", str(png), "--model", name, "--objective", "ms-ssim", "--force"]) == 0
    assert main(["info", str(coded)]) == 0
    assert "trained  for MS-SSIM" in capsys.readouterr().out
    assert main(["decode", str(coded), "-o", str(png.with_name("back.png"))]) == 0
    assert main(["models"]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert "N = 40, M = 64, four levels of quality (weights ship, for MS-SSIM too) minnen2018-scale" in listed
    assert "small a sixth of the cost, 128 channels minnen2018-factorized" in listed
    assert main(["encode", str(png), "--model", "lee2019-base", "--objective", "ms-ssim", "--force"]) == 1
    assert "no weights of lee2019-base for ms-ssim come with this version" in capsys.readouterr().err


def test_models_lists_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for entry in REGISTRY.values():
        assert entry.name in words
        assert entry.citation in words
        assert all(f"{name} {preset.summary}" in words for name, preset in entry.presets.items())


@pytest.mark.parametrize(
    "arguments",
    [
        ["encode", "-q", "0", "x"],
        ["encode", "--threads", "0", "x"],
        ["encode", "--target-bytes", "0", "x"],
        ["encode", "--target-bpp", "-1", "x"],
        ["encode", "--target-psnr", "nan", "x"],
        [],
        ["fly"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(arguments)
    assert e.value.code == 2


def test_standard_streams(png: Path) -> None:
    lichen_ = [sys.executable, "-m", "lichen"]
    one = ["--threads", "1"]  # sums of floats depend on their number
    coded = subprocess.run(
        [*lichen_, "encode", *one, "-"], input=png.read_bytes(), capture_output=True, check=True
    ).stdout
    assert coded == lichen.encode(png)
    picture = subprocess.run([*lichen_, "decode", "-"], input=coded, capture_output=True, check=True).stdout
    assert Image.open(io.BytesIO(picture)).size == (128, 96)
    info = subprocess.run([*lichen_, "info", "-"], input=coded, capture_output=True, check=True).stdout
    assert b"128 x 96" in info


def test_streams_that_are_closed(png: Path) -> None:
    def run(command: str) -> subprocess.CompletedProcess[str]:
        line = f"{sys.executable} -m lichen {command.format(png.name)}"
        return subprocess.run(["sh", "-c", line], cwd=png.parent, capture_output=True, text=True)

    done = run("encode {0} -o a.lichen >&-")
    assert (done.returncode, done.stderr) == (0, "") and png.with_name("a.lichen").exists()
    assert run("info a.lichen >&-").returncode == 0
    for command, word in (
        ("encode - -o b.lichen <&-", "input"),
        ("info - <&-", "input"),
        ("encode {0} -o - >&-", "output"),
    ):
        done = run(command)
        assert done.returncode == 1 and f"standard {word} is closed" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_sigterm_before_anything_is_done(png: Path) -> None:
    code = "import os, signal, lichen.cli as c; from lichen.cli import encode\n"
    code += "encode.add_parser = lambda commands: commands.add_parser('encode').set_defaults(\n"
    code += "    run=lambda args: os.kill(os.getpid(), signal.SIGTERM))\nraise SystemExit(c.main(['encode']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "lichen: interrupted\n")


def test_names_are_shown_as_they_are(png: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = png.with_name("of :x: [green]joy.png")
    bad.write_bytes(b"no picture")
    assert main(["encode", str(bad)]) == 1
    assert capsys.readouterr().err.startswith(f"lichen: {bad}: ")


def test_a_picture_beyond_the_limit_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("1", (20000, 10000)).save(tmp_path / "large.png")
    assert main(["encode", str(tmp_path / "large.png")]) == 1
    error = capsys.readouterr().err
    assert "200000000" in error.replace(",", "") or "20000x10000" in error
    assert len(error.splitlines()) == 1


def test_words_stay_out_of_a_file_on_standard_output(png: Path) -> None:
    one = [sys.executable, "-m", "lichen", "encode", "--threads", "1", "-o", "-", str(png)]
    quiet, verbose = (subprocess.run([*one, *v], capture_output=True, check=True).stdout for v in ([], ["-v"]))
    assert quiet == verbose


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_output_that_cannot_be_written(png: Path) -> None:
    lichen_ = [sys.executable, "-m", "lichen"]
    subprocess.run([*lichen_, "encode", str(png)], check=True)
    for command in (["info", str(png.with_suffix(".lichen"))], ["encode", str(png), "-o", "-"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run([*lichen_, *command], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr and "Traceback" not in done.stderr
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([*lichen_, *command], stdout=writer, stderr=subprocess.PIPE, text=True)
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, "")


def test_a_pipe_with_a_name(png: Path) -> None:
    os.mkfifo(png.with_name("pipe"))
    with subprocess.Popen(["cp", str(png), str(png.with_name("pipe"))]):
        assert main(["encode", str(png.with_name("pipe")), "-o", str(png.with_name("a.lichen"))]) == 0
    assert png.with_name("a.lichen").read_bytes() == lichen.encode(png)


def test_decode_asks_which_model_wrote_a_file(png: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coded, back = str(png.with_suffix(".lichen")), str(png.with_name("back.png"))
    assert main(["encode", str(png), "--objective", "ms-ssim"]) == 0
    assert main(["decode", coded, "--model", "light", "-o", back]) == 0  # whatever its weights
    assert main(["decode", coded, "--model", "hu2020", "-o", back, "-f"]) == 1
    assert "light wrote this file, not hu2020" in capsys.readouterr().err
    assert main(["decode", coded, "--model", "heavy", "-o", back, "-f"]) == 1
    assert "no model is called heavy" in capsys.readouterr().err


def test_presets(png: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coded = png.with_suffix(".lichen")
    assert main(["encode", str(png), "--model", "hu2020", "--preset", "small-plain"]) == 0
    plain = coded.read_bytes()
    assert main(["encode", str(png), "--model", "hu2020", "-f"]) == 0
    assert coded.read_bytes() != plain
    weights = str(SHIPPED / "hu2020.safetensors")
    assert main(["encode", str(png), "--weights", weights, "--preset", "small", "-f"]) == 0
    for preset, sentence in (("small-plain", "another preset than small-plain"), ("nope", "has no preset nope")):
        assert main(["encode", str(png), "--weights", weights, "--preset", preset, "-f"]) == 1
        assert sentence in capsys.readouterr().err
    assert main(["encode", str(png), "--model", "hu2020", "--preset", "high", "-f"]) == 1
    assert "no weights of hu2020, preset high, come with this version" in capsys.readouterr().err


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, lichen.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False"
    assert "encode" in out


def test_targets_and_crops(png: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coded = png.with_suffix(".lichen")
    assert main(["encode", str(png), "--target-bytes", "1200"]) == 0
    assert 0.98 * 1200 <= coded.stat().st_size <= 1200
    assert main(["encode", str(png), "--force", "--target-bytes", "20"]) == 1
    assert "the smallest file has" in capsys.readouterr().err
    assert 0.98 * 1200 <= coded.stat().st_size <= 1200
    part = png.with_name("part.png")
    assert main(["decode", str(coded), "--crop", "10,20,110,90", "-o", str(part)]) == 0
    whole = np.asarray(lichen.decode(coded), int)
    assert np.abs(np.asarray(Image.open(part), int) - whole[20:90, 10:110]).max() <= 1
    assert main(["decode", str(coded), "--crop", "10,20,129,90", "-o", str(part), "-f"]) == 1
    assert "does not lie in the picture of 128x96" in capsys.readouterr().err
    for command in (["encode", str(png)], ["decode", str(coded)]):
        assert main([*command, "-f", "--max-pixels", "1000"]) == 1
        assert "limit is 1000" in capsys.readouterr().err
        assert main([*command, "-f", "--max-pixels", "0"]) == 0
    for wrong in (["--target-bpp", "1", "-q", "5"], ["--target-bytes", "many"]):
        with pytest.raises(SystemExit, match="2"):
            main(["encode", str(png), *wrong])
    with pytest.raises(SystemExit, match="2"):
        main(["decode", str(coded), "--crop", "1,2,3"])


def test_options_are_arguments_of_the_same_name() -> None:
    """Each that the command and `lichen.encode` both have is handed on."""
    commands = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    options = {a.dest for a in commands.choices["encode"]._actions}
    arguments = set(inspect.signature(lichen.encode).parameters)
    assert options & arguments == {*OPTIONS, "model"}
