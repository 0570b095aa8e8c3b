"""Folders, patterns and URLs through `lichen.cli.main`; where signals matter, in a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import lichen
from lichen import batch, places
from lichen.cli import main
from lichen.models import weights

Photo = npt.NDArray[np.uint8]


@pytest.fixture
def pictures(tmp_path: Path, photo: Photo) -> Path:
    """Twelve, in two folders, and files that are none."""
    folder = tmp_path / "pictures"
    (folder / "odd").mkdir(parents=True)
    for i in range(12):
        path = folder / ("odd" if i % 2 else ".") / f"{i}.png"
        Image.fromarray(np.ascontiguousarray(photo[i * 8 : i * 8 + 64, :96])).save(path)
    (folder / "notes.txt").write_text("no picture")
    (folder / "movie.mpg").write_text("no picture that Lichen reads")
    return folder


def files(folder: Path) -> list[str]:
    """All of them, hidden ones too."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def encoded(pictures: Path) -> list[str]:
    return [name.replace(".png", ".lichen") for name in files(pictures) if name.endswith(".png")]


def rows(text: str) -> list[list[str]]:
    assert max(map(len, text.splitlines())) <= 80
    return [line.split() for line in text.splitlines()]


@pytest.mark.parametrize("jobs", [["--jobs", "1"], ["--jobs", "3"], ["--threads", "2"]])
def test_there_and_back(pictures: Path, tmp_path: Path, jobs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    assert main(["encode", str(pictures), "-q", "30", "-o", str(out), *jobs]) == 0
    said = capsys.readouterr()
    before = sum((pictures / n).stat().st_size for n in files(pictures) if n.endswith(".png"))
    after = sum(p.stat().st_size for p in out.rglob("*.lichen"))
    header, total = rows(said.out)  # too many for a line each
    assert header == ["bytes", "before", "bytes", "after", "ratio"]
    assert total == ["12", "files", f"{before:,}", f"{after:,}", f"{100 * after / before:.1f}", "%"]
    assert said.err == ""
    assert files(out) == encoded(pictures)
    torch.set_num_threads(1)  # as each of the jobs had
    for name in files(out):
        data = (out / name).read_bytes()
        assert data == lichen.encode(pictures / name.replace(".lichen", ".png"), 30)
    assert main(["decode", str(out), "-o", str(back), *jobs]) == 0
    assert files(back) == [n for n in files(pictures) if n.endswith(".png")]
    for name in files(back):
        decoded = np.asarray(lichen.decode(out / name.replace(".png", ".lichen")), int)
        assert np.abs(np.asarray(Image.open(back / name), int) - decoded).max() <= 1  # on other numbers of threads


def test_what_is_done_is_skipped(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["encode", str(pictures), "-o", str(out)]
    assert main(command) == 0
    times = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    (out / "odd" / "1.lichen").unlink()
    os.utime(out / "0.lichen", (0, 0))
    capsys.readouterr()
    assert main(command) == 0
    lines = rows(capsys.readouterr().out)
    assert len(lines) == 5  # few enough for a line each
    assert lines[-2][:2] == ["2", "files"] and lines[-1][:3] == ["10", "files", "skipped:"]
    changed = {n for n in files(out) if (out / n).stat().st_mtime_ns != times[n]}
    assert changed == {"0.lichen", "odd/1.lichen"}
    assert main([*command, "--force"]) == 0
    assert rows(capsys.readouterr().out)[-1][:2] == ["12", "files"]


def test_what_is_done_needs_no_torch(pictures: Path, tmp_path: Path) -> None:
    command = ["encode", str(pictures), "-o", str(tmp_path / "out")]
    assert main(command) == 0
    code = f"import sys, lichen.cli as c\nprint(c.main({command!r}), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-2:] == ["12 files skipped: done before (--force does them again)", "0 False"]


def test_decoding_beside_the_originals_keeps_them(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    originals = {name: (pictures / name).read_bytes() for name in files(pictures) if name.endswith(".png")}
    assert main(["encode", str(pictures)]) == 0
    (pictures / "0.png").unlink()
    assert main(["decode", str(pictures)]) == 1
    said = capsys.readouterr()
    assert said.err.count("is older, perhaps what it was made of") == 11
    for name, data in originals.items():
        assert ((pictures / name).read_bytes() == data) == (name != "0.png")
    assert main(["decode", str(pictures), "--force"]) == 0
    assert all((pictures / name).read_bytes() != data for name, data in originals.items())


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")
def test_names_that_are_no_text(pictures: Path, tmp_path: Path) -> None:
    (pictures / "0.png").rename(os.fsdecode(os.fsencode(pictures) + b"/caf\xe9.png"))
    command = [sys.executable, "-m", "lichen", "encode", str(pictures / "*.png"), "-o", str(tmp_path / "out")]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, env=strict, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "caf\\udce9.png" in done.stdout
    assert len(files(tmp_path / "out")) == 6


def test_sigterm_at_a_single_picture(photo: Photo, tmp_path: Path) -> None:
    """It ends at once, with tiles under way on several threads, and writes nothing."""
    Image.fromarray(np.tile(photo, (5, 5, 1))).save(tmp_path / "large.png")  # several tiles
    command = ["encode", str(tmp_path / "large.png"), "-e", "9", "--threads", "2"]
    code = "import lichen.tiles as t, time; work = t.side_by_side\n"
    code += "t.side_by_side = lambda f, items: (print('tiles', flush=True), work(lambda i: time.sleep(60), items))\n"
    code += f"import lichen.cli; raise SystemExit(lichen.cli.main({command!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "tiles\n"
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, complained = process.communicate(timeout=120)
    assert time.monotonic() - began < 30
    assert (process.returncode, complained) == (130, "lichen: interrupted\n")
    assert files(tmp_path) == ["large.png"]


def test_errors_do_not_stop_the_others(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "broken.png").write_bytes((pictures / "0.png").read_bytes()[:200])
    (pictures / "gone.png").symlink_to("nowhere.png")
    (pictures / "odd" / "round").symlink_to(pictures, target_is_directory=True)
    assert main(["encode", str(pictures), "-o", str(tmp_path / "out"), "--jobs", "2"]) == 1
    said = capsys.readouterr()
    assert rows(said.out)[1:] == [rows(said.out)[1], ["2", "files", "failed"]]
    assert rows(said.out)[1][0] == "12"
    lines = sorted(said.err.splitlines())
    assert len(lines) == 2
    assert lines[0].startswith(f"lichen: {pictures / 'broken.png'}: ")
    assert lines[1] == f"lichen: {pictures / 'gone.png'}: No such file or directory"
    assert files(tmp_path / "out") == [n for n in encoded(pictures) if n not in ("broken.lichen", "gone.lichen")]


def test_a_line_for_each_of_few_files(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = [str(pictures / "0.png"), str(pictures / "2.png")]
    assert main(["encode", *some, "-o", str(tmp_path / "out")]) == 0
    lines = rows(capsys.readouterr().out)
    assert len(lines) == 4 and lines[3][:2] == ["2", "files"]
    sizes = [(Path(s).stat().st_size, (tmp_path / "out" / f"{Path(s).stem}.lichen").stat().st_size) for s in some]
    assert sorted(line[1:3] for line in lines[1:3]) == sorted([f"{a:,}", f"{b:,}"] for a, b in sizes)
    assert all(line[0].endswith(".png") for line in lines[1:3])
    assert main(["encode", some[0], "-f"]) == 0
    assert capsys.readouterr().out == ""  # a single one needs no words
    assert main(["encode", some[0], "-f", "--verbose"]) == 0
    assert len(rows(capsys.readouterr().out)) == 2
    assert main(["encode", str(pictures), "-v", "-o", str(tmp_path / "all")]) == 0
    assert len(rows(capsys.readouterr().out)) == 1 + 12 + 1


def test_a_pattern_that_the_shell_left(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", str(pictures / "**" / "1*.png"), "-o", str(tmp_path / "out")]) == 0
    assert files(tmp_path / "out") == ["10.lichen", "odd/1.lichen", "odd/11.lichen"]
    assert main(["encode", str(pictures / "*.gif"), "-o", str(tmp_path / "out")]) == 1
    assert "nothing matches" in capsys.readouterr().err


@pytest.mark.parametrize("store", ["memory", "s3"])
def test_a_store(
    pictures: Path, tmp_path: Path, store: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    url = request.getfixturevalue(store)
    assert main(["encode", str(pictures), "-q", "30", "-o", f"{url}/coded", "--jobs", "2"]) == 0
    found = places.find(f"{url}/coded", {".lichen"}, print)[1]
    assert [f.name for f in found] == encoded(pictures)
    assert places.read(found[0].place) == lichen.encode(pictures / "0.png", 30)
    capsys.readouterr()
    assert main(["encode", str(pictures), "-o", f"{url}/coded"]) == 0
    assert "12 files skipped" in capsys.readouterr().out
    assert main(["decode", f"{url}/coded/odd/*.lichen", "-o", f"{url}/decoded"]) == 0
    assert main(["decode", f"{url}/coded/0.lichen", "-o", str(tmp_path / "0.png")]) == 0
    names = [f.name for f in places.find(f"{url}/decoded", {".png"}, print)[1]]
    assert names == sorted(f"{i}.png" for i in range(1, 12, 2))
    assert Image.open(tmp_path / "0.png").size == (96, 64)
    assert main(["decode", f"{url}/coded/missing.lichen", "-o", str(tmp_path / "m.png")]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_weights_and_notes(
    pictures: Path, tmp_path: Path, tiny_light: lichen.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    """With weights of one's own; what a format cannot keep is told."""
    path, out = tmp_path / "tiny.safetensors", tmp_path / "out"
    weights.save(tiny_light, path)
    transparent = Image.open(pictures / "0.png")
    transparent.save(pictures / "0.png", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0")
    assert main(["encode", str(pictures / "0.png"), "--weights", str(path), "-o", str(out / "0.lichen")]) == 0
    assert lichen.encode(pictures / "0.png", model=weights.read(path)) == (out / "0.lichen").read_bytes()
    capsys.readouterr()
    assert main(["decode", str(out / "0.lichen"), "--weights", str(path), "-o", str(out / "0.ppm")]) == 0
    assert capsys.readouterr().err == f"lichen: {out / '0.ppm'}: this format has no place for EXIF\n"


def test_threads_are_divided_among_jobs(monkeypatch: pytest.MonkeyPatch, pictures: Path, tmp_path: Path) -> None:
    seen = []
    run = batch.run

    def watched(jobs, work, workers, asked):  # type: ignore[no-untyped-def]
        seen.append((type(workers).__name__, workers.workers, workers.submit(torch.get_num_threads).result()))
        return run(jobs[:1], work, workers, asked)

    monkeypatch.setattr(batch, "run", watched)
    some = [str(pictures / f"{i}.png") for i in (0, 2, 4)]
    for options in (
        ["--threads", "4", "--jobs", "2"],
        ["--threads", "16"],
        ["--jobs", "2"],
        ["--threads", "1", "-j2"],
        [],
    ):
        main(["encode", *some, "-o", str(tmp_path / "out"), "-f", *options])
        torch.set_num_threads(1)
    main(["encode", str(pictures), "-o", str(tmp_path / "out"), "-f", "--threads", "16"])
    torch.set_num_threads(1)
    main(["encode", some[0], "-f", "--threads", "4", "--jobs", "2"])
    assert seen == [
        ("Threads", 2, 2),
        ("Threads", 3, 5),
        ("Threads", 2, 1),
        ("Threads", 1, 1),
        ("Threads", 1, 1),
        ("Threads", 8, 2),
        ("Here", 1, 4),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_ctrl_c_loses_nothing(photo: Photo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is under way is finished; the same command goes on with the rest."""
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    for i in range(16):
        Image.fromarray(np.roll(photo, i, 0)).save(folder / f"{i}.png")
    command = ["encode", str(folder), "-o", str(out), "--threads", "2"]
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs ignore it
    code += f"import lichen.cli; raise SystemExit(lichen.cli.main({command!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(out.glob("*.lichen"))) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=120)
    assert process.returncode == 130
    done = files(out)
    assert 2 <= len(done) < 16 and all(name.endswith(".lichen") for name in done)
    assert f"{len(done)} files" in said
    assert complained.splitlines() == [
        "lichen: finishing what is under way; Ctrl-C again drops it",
        f"lichen: interrupted: {16 - len(done)} are left, the same command goes on with them",
    ]
    for name in done:
        assert lichen.decode(out / name).size == (512, 512)
    assert main(command) == 0
    assert f"{len(done)} files skipped" in capsys.readouterr().out
    assert len(files(out)) == 16


def test_ctrl_c_at_a_single_picture(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr("lichen.codec.encode", interrupted)
    assert main(["encode", str(pictures / "0.png")]) == 130
    assert capsys.readouterr().err == "lichen: interrupted\n"
    assert not (pictures / "0.lichen").exists()


@pytest.mark.parametrize(("arguments", "status"), [(["--version"], 0), (["encode", "a", "-", "-o", "-"], 1), ([], 2)])
def test_exit_status_of_the_module(arguments: list[str], status: int) -> None:
    process = subprocess.run([sys.executable, "-m", "lichen", *arguments], capture_output=True, text=True)
    assert process.returncode == status
    assert status == 0 or "lichen" in process.stderr
