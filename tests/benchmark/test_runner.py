"""What was measured is kept and not measured again, whatever stops a run."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lichen.benchmark import codecs, runner
from lichen.benchmark.codecs import CodecError
from lichen.benchmark.runner import measure
from lichen.benchmark.store import Store


class Counting:
    """PNG with fewer levels, and a count of how often it encodes."""

    name, version, settings = "counting", "1", (1.0, 3.0, 5.0)

    def __init__(self, fail=0.0):
        self.encoded, self.fail = [], fail

    def encode(self, picture, setting):
        self.encoded.append(setting)
        if setting == self.fail:
            raise CodecError("this setting is broken")
        file = io.BytesIO()
        Image.fromarray(picture >> int(setting) << int(setting)).save(file, "PNG")
        return file.getvalue()

    def decode(self, data):
        return np.asarray(Image.open(io.BytesIO(data)))


@pytest.fixture
def pictures(tmp_path, photo):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(photo[i * 64 : i * 64 + 64, :96]).save(path)
    return paths


def test_rows_and_what_a_second_run_does(pictures, tmp_path):
    codec = Counting()
    rows = measure([codec], pictures, Store(tmp_path / "s.jsonl"))
    assert len(rows) == 9 and len(codec.encoded) == 9
    assert [r.image for r in rows[:4]] == ["0.png", "0.png", "0.png", "1.png"]
    assert rows[0].bpp == 8 * rows[0].bytes / (64 * 96)
    assert rows[0].psnr > rows[1].psnr > rows[2].psnr
    assert rows[0].psnr_y is not None and rows[0].psnr_yuv is not None
    again = Counting()
    assert measure([again], pictures, Store(tmp_path / "s.jsonl")) == rows
    assert again.encoded == []


def test_another_version_other_pixels_and_again(pictures, tmp_path):
    store = Store(tmp_path / "s.jsonl")
    measure([Counting()], pictures[:1], store)
    other = Counting()
    other.version = "2"
    measure([other], pictures[:1], store)
    assert len(other.encoded) == 3
    renamed = tmp_path / "renamed.png"
    renamed.write_bytes(pictures[0].read_bytes())
    same = Counting()
    measure([same], [renamed], store)
    assert same.encoded == []
    measure([same], [renamed], store, again=["counting"])
    assert len(same.encoded) == 3


def test_times_are_medians_of_warm_runs_on_some_pictures(pictures, tmp_path):
    codec, store = Counting(), Store(tmp_path / "s.jsonl")
    rows = measure([codec], pictures, store, timed=1, repeats=3)
    assert [r.repeats for r in rows] == [3, 3, 3, 0, 0, 0, 0, 0, 0]
    assert len(codec.encoded) == 3 * 4 + 6
    assert rows[0].encode_s > 0 and rows[-1].encode_s is None
    more = Counting()
    measure([more], pictures, store, timed=3, repeats=3)
    assert len(more.encoded) == 6 * 4


def test_a_slow_codec_on_fewer_pictures(pictures, tmp_path):
    rows = measure([Counting()], pictures, Store(tmp_path / "s.jsonl"), limits={"counting": 2}, repeats=0)
    assert sorted({r.image for r in rows}) == ["0.png", "1.png"]
    assert runner.spread(24, 8) == [0, 3, 6, 9, 12, 15, 18, 21]


def test_failures_are_raised_or_reported(pictures, tmp_path):
    with pytest.raises(CodecError, match="broken"):
        measure([Counting(fail=3.0)], pictures, Store(tmp_path / "a.jsonl"))
    said = []
    rows = measure([Counting(fail=3.0)], pictures, Store(tmp_path / "b.jsonl"), on_error=said.append)
    assert len(rows) == 6 and len(said) == 3
    assert said[0] == "counting 3 on 0.png: this setting is broken"


def test_a_line_cut_short_loses_that_line_alone(pictures, tmp_path):
    path = tmp_path / "s.jsonl"
    measure([Counting()], pictures[:1], Store(path))
    path.write_bytes(path.read_bytes()[:-20])
    codec = Counting()
    rows = measure([codec], pictures[:1], Store(path))
    assert codec.encoded == [5.0] and len(rows) == 3
    assert len(Store(path).rows) == 3


def test_several_processes_find_the_same(pictures, tmp_path):
    codec = codecs.create("webp")
    alone = measure([codec], pictures[:2], Store(tmp_path / "a.jsonl"), repeats=0)
    together = measure([codec], pictures[:2], Store(tmp_path / "b.jsonl"), repeats=0, processes=2)
    assert alone == together


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's /proc")
def test_peak_memory_is_that_of_the_codec(pictures, tmp_path):
    rows = measure([codecs.create("webp")], pictures, Store(tmp_path / "s.jsonl"), timed=1, memory=True)
    weighed = [r for r in rows if r.encode_mb is not None]
    assert len(weighed) == 1
    assert 0 < weighed[0].encode_mb < 200 and 0 <= weighed[0].decode_mb < 200


SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
sys.path[:0] = [{tests!r}, {source!r}]
from lichen.benchmark import datasets, runner
from lichen.benchmark.store import Store
from test_runner import Counting

class Slow(Counting):
    def encode(self, picture, setting):
        time.sleep(0.1)
        return super().encode(picture, setting)

if __name__ == "__main__":
    codec = Slow()
    print("begin", flush=True)
    try:
        runner.measure([codec], datasets.folder({data!r}), Store({store!r}), repeats=0, processes={processes})
    finally:
        print(len(codec.encoded), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize(("how", "processes"), [("KILL", 1), ("INT", 1), ("KILL", 2), ("INT", 2)])
def test_killed_and_started_again(how, processes, tmp_path, photo):
    """Nothing measured is measured twice, nothing is lost."""
    data, store = tmp_path / "pictures", tmp_path / "s.jsonl"
    data.mkdir()
    for i in range(8):
        Image.fromarray(photo[i * 8 : i * 8 + 32, :32]).save(data / f"{i}.png")
    source = Path(runner.__file__).parents[2]
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT.format(
            tests=str(Path(__file__).parent), source=str(source), data=str(data), store=str(store), processes=processes
        )
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (store.exists() and len(store.read_text().splitlines()) >= 4):
        time.sleep(0.02)
    process.send_signal(getattr(signal, f"SIG{how}"))
    process.communicate(timeout=60)
    assert process.returncode != 0
    before = len(Store(store).rows)
    assert 4 <= before < 24
    second = Counting()
    rows = measure([second], sorted(data.iterdir()), Store(store), repeats=0)
    assert len(rows) == 24 and len(second.encoded) == 24 - before
    lines = store.read_text().splitlines()
    assert len(lines) - Store(store).skipped == 24
