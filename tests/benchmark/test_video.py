"""Colours of the video codecs, their frames, and FFmpeg where there is one."""

from __future__ import annotations

import stat
import sys

import numpy as np
import pytest

from lichen.benchmark import codecs, metrics, video
from lichen.benchmark.programs import CodecError


def test_444_and_10_bits_lose_next_to_nothing(photo):
    back = video.from_planes(video.to_planes(photo, "444"), "444")
    assert np.abs(back.astype(int) - photo).max() <= 1
    assert metrics.psnr(photo, back) > 55


def test_420_keeps_luma_and_smooth_colour(photo):
    back = video.from_planes(video.to_planes(photo, "420"), "420")
    assert metrics.psnr_ycbcr(photo, back)[0] > 45
    assert metrics.psnr(photo, back) > 35
    flat = np.full((8, 8, 3), (200, 30, 90), np.uint8)
    assert np.array_equal(video.from_planes(video.to_planes(flat, "420"), "420"), flat)


def test_planes_are_bt601_of_full_range():
    white, red = (video.to_planes(np.full((2, 2, 3), c, np.uint8), "444") for c in ((255, 255, 255), (255, 0, 0)))
    assert [int(p[0, 0]) for p in white] == [1023, 512, 512]
    assert [int(p[0, 0]) for p in red] == [306, 339, 1023]


@pytest.mark.parametrize("name", ["x265-444", "x265-420", "vvc-420"])
def test_ffmpeg(name, photo):
    try:
        codec = codecs.create(name)
    except CodecError as e:
        pytest.skip(str(e))
    picture = np.ascontiguousarray(photo[100:229, 60:217])  # odd sizes
    points = []
    for setting in (codec.settings[0], codec.settings[-1]):
        data = codec.encode(picture, setting)
        decoded = codec.decode(data)
        assert decoded.shape == picture.shape
        points.append((metrics.bpp(data, picture), metrics.psnr(picture, decoded)))
    assert points[0][0] > 2 * points[1][0]
    assert points[0][1] > points[1][1] + 3
    assert codec.encode(picture, setting) == data


@pytest.mark.skipif(sys.platform == "win32", reason="the programs of this test are scripts of Unix")
def test_vtm_through_programs_that_only_copy(tmp_path, monkeypatch, photo):
    """Stands in for VTM: checks sizes, planes and options, not VVC."""
    copy = "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in {0}) i=$2;; {1}) o=$2;; esac; shift; done; cp $i $o\n"
    for name, options in (("EncoderApp", ("-i", "-b")), ("DecoderApp", ("-b", "-o"))):
        path = tmp_path / name
        path.write_text(copy.format(*options))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("VTM_CFG", raising=False)
    with pytest.raises(CodecError, match="VTM_CFG"):
        codecs.create("vtm-444")
    (tmp_path / "intra.cfg").touch()
    monkeypatch.setenv("VTM_CFG", str(tmp_path / "intra.cfg"))
    picture = np.ascontiguousarray(photo[:33, :47])
    for name in ("vtm-444", "vtm-420"):
        codec = codecs.create(name)
        assert metrics.psnr(picture, codec.decode(codec.encode(picture, 32))) > 30
