"""Every codec that can run here: real bytes, pixels back, more rate for more quality; and what cannot run says why."""

from __future__ import annotations

import pickle
import stat
import sys

import numpy as np
import pytest
import torch

from lichen.benchmark import codecs, metrics
from lichen.benchmark.codecs import CodecError, LichenCodec

SLOW = ("vvc-420", "x265-444", "x265-420")


@pytest.mark.parametrize("name", [n for n in codecs.CODECS if n not in (*SLOW, "lichen")])
def test_round_trip(name, photo):
    try:
        codec = codecs.create(name)
    except CodecError as e:
        pytest.skip(str(e))
    picture = np.ascontiguousarray(photo[100:301, 60:311])  # odd sizes
    settings = sorted(codec.settings)
    results = []
    for setting in (settings[0], settings[-1]):
        data = codec.encode(picture, setting)
        decoded = codec.decode(data)
        assert decoded.shape == picture.shape and decoded.dtype == np.uint8
        results.append((metrics.bpp(data, picture), metrics.psnr(picture, decoded)))
    results.sort()
    assert results[0][0] < 0.75 * results[1][0]
    assert 15 < results[0][1] < results[1][1] < 60


@pytest.mark.parametrize("name", [n for n in codecs.CODECS if n != "lichen"])
def test_settings_and_versions(name):
    try:
        codec = codecs.create(name)
    except CodecError as e:
        pytest.skip(str(e))
    assert codec.name == name and len(codec.settings) >= 4
    assert codec.version and "\n" not in codec.version
    assert pickle.loads(pickle.dumps(codec)).version == codec.version  # goes to other processes


def test_lichen_of_variable_rate(tiny_light, photo):
    codec = LichenCodec(tiny_light, name="tiny")
    picture = np.ascontiguousarray(photo[:100, :120])
    assert codec.decode(codec.encode(picture, 50.0)).shape == picture.shape
    assert tiny_light.name in codec.version


def test_threads_are_set_at_every_use(tiny_light, photo):
    codec, before = LichenCodec(tiny_light), torch.get_num_threads()
    _ = codec.version
    codec.threads = before + 1
    try:
        codec.decode(codec.encode(np.ascontiguousarray(photo[:64, :64]), 50.0))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert codec.trained_for == "MSE"


def test_lichen_of_one_quality_a_file(tmp_path, photo):
    """Files of one quality each are one codec whose settings are their numbers."""
    from tiny import make_tiny

    from lichen.models import weights

    paths = []
    for i in range(2):
        model = make_tiny("minnen2018-scale", photo)
        model.g_s[-1].bias.data += i / 8
        paths.append(tmp_path / f"{i}.safetensors")
        weights.save(model, paths[-1])
    codec = LichenCodec(weights=paths, name="two")
    assert codec.settings == (1.0, 2.0)
    picture = np.ascontiguousarray(photo[:64, :64])
    one, two = (codec.decode(codec.encode(picture, s)) for s in codec.settings)
    assert not np.array_equal(one, two)
    assert len(set(codec.version.split()[-2:])) == 2


def test_names_and_groups():
    found, missing = codecs.create_all(["jpeg", "webp", "jpeg-420"])
    assert [c.name for c in found] == ["jpeg-420", "jpeg-444", "webp"]
    assert not missing
    with pytest.raises(CodecError, match="no codec is called gif"):
        codecs.create_all(["gif"])
    with pytest.raises(CodecError, match="no codec is called gif"):
        codecs.create("gif")


def test_what_cannot_run_is_a_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "")
    found, missing = codecs.create_all(["bpg", "vtm", "webp"])
    assert [c.name for c in found] == ["webp"]
    assert "bpgdec is not on PATH" in missing[0] and "EncoderApp is not on PATH" in missing[1]


def test_hevc_says_its_tuning():
    pytest.importorskip("pillow_heif")
    assert "tune=psnr" in codecs.create("hevc-444").version


def test_jpeg_is_what_its_name_says(photo):
    """4:2:0 loses colour that 4:4:4 keeps."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    small, full = (
        metrics.psnr(noise, c.decode(c.encode(noise, 95.0))) for c in map(codecs.create, ("jpeg-420", "jpeg-444"))
    )
    assert small < full - 5


class Png:
    """The example of the module's docstring: a codec of one's own needs no base class."""

    name, version, settings = "png", "1", (6.0,)

    def encode(self, picture, setting):
        import io

        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG", compress_level=int(setting))
        return file.getvalue()

    def decode(self, data):
        import io

        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_class_of_ones_own(photo):
    codec: codecs.Codec = Png()
    assert metrics.psnr(photo, codec.decode(codec.encode(photo, 6.0))) == np.inf


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """An encoder and a decoder on PATH that copy PNG to JPEG and back."""
    for name, options in (("my-enc", "'JPEG', quality=int(sys.argv[3])"), ("my-dec", "'PNG'")):
        path = tmp_path / name
        path.write_text(
            f"#!{sys.executable}\nimport sys\nfrom PIL import Image\n"
            f"Image.open(sys.argv[1]).save(sys.argv[2], {options})\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@pytest.mark.skipif(sys.platform == "win32", reason="the programs of this test are scripts of Unix")
def test_command_templates(programs, photo):
    codec = codecs.CommandCodec.parse("mine:my-enc {in} {out.jpg} {q}:my-dec {in} {out}:20,80")
    assert codec.name == "mine" and codec.settings == (20.0, 80.0)
    assert "my-enc" in codec.version
    low, high = (metrics.psnr(photo, codec.decode(codec.encode(photo, q))) for q in codec.settings)
    assert 25 < low < high - 3


@pytest.mark.skipif(sys.platform == "win32", reason="the programs of this test are scripts of Unix")
def test_programs_that_fail_say_why(programs, photo):
    with pytest.raises(CodecError, match=r"status 1 .*ValueError|status 1 .*invalid"):
        codecs.CommandCodec.parse("mine:my-enc {in} {out.jpg} high:my-dec {in} {out}").encode(photo, 1)
    with pytest.raises(CodecError, match="wrote no out"):
        codecs.CommandCodec.parse("mine:true {in} {out}:my-dec {in} {out}").encode(photo, 1)
    with pytest.raises(CodecError, match="not on PATH"):
        _ = codecs.CommandCodec.parse("mine:no-such-program {in} {out}:my-dec {in} {out}").version


@pytest.mark.parametrize(
    "text",
    [
        "mine",
        "mine:enc {in} {out}",
        "mine:enc {in}:dec {in} {out}",
        "a b:e {in} {out}:d {in} {out}",
        "m:e {in} {out}:d {in} {out}:x",
    ],
)
def test_templates_that_are_none(text):
    with pytest.raises(CodecError):
        codecs.CommandCodec.parse(text)
