from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from tiny import make_tiny
from torch import Tensor

import lichen
from lichen import codec, tiles
from lichen.coding.coder import Decoder, Encoder
from lichen.container import Container
from lichen.errors import DamagedError
from lichen.models.base import Model

Photo = npt.NDArray[np.uint8]


def latents_of(data: bytes, model: Model) -> Tensor:
    """y_hat of a file of one tile."""
    file = codec.read(data)
    shape = (-(-file.header.height // 16), -(-file.header.width // 16))
    return model.code([Decoder(file.tiles[0])], None, codec.quality_tensor(file.header.quality), shape)


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (65, 3), (16, 16), (64, 64), (100, 131)])
def test_any_size_survives(tiny: Model, photo: Photo, size: tuple[int, int]) -> None:
    h, w = size
    decoded = lichen.decode(lichen.encode(photo[:h, :w], model=tiny), model=tiny)
    assert decoded.size == (w, h)
    assert decoded.mode == "RGB"


def test_forward_in_eval_mode_is_what_the_decoder_sees(tiny: Model, photo: Photo) -> None:
    pixels = photo[:128, :192]
    data = lichen.encode(pixels, 60, model=tiny)
    with torch.inference_mode():
        x_hat, bits = tiny(tiles.to_tensor(pixels, tiny), codec.quality_tensor(codec.read(data).header.quality))
    assert torch.equal(codec.reconstruct(codec.read(data), model=tiny), x_hat[0])
    payload = len(codec.read(data).tiles[0])
    assert abs(float(sum(bits.values())) / 8 - payload) <= 0.005 * payload + 16


def test_a_batch_is_its_pictures(tiny: Model, photo: Photo) -> None:
    x = torch.cat([tiles.to_tensor(photo[i : i + 64, :64], tiny) for i in (0, 64, 128)])
    quality = torch.tensor([20.0, 20.0, 20.0])
    with torch.inference_mode():
        together, bits = tiny(x, quality)
        for b in range(3):
            alone, own = tiny(x[b : b + 1], quality[b : b + 1])
            assert torch.allclose(alone[0], together[b], atol=1e-4)
            assert all(torch.allclose(own[k][0], bits[k][b], rtol=1e-3) for k in bits)


@contextlib.contextmanager
def arithmetic(threads: int, mkldnn: bool) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    with torch.backends.mkldnn.flags(enabled=mkldnn):
        yield
    torch.set_num_threads(before)


def test_latents_are_exact_whatever_the_arithmetic(tiny: Model, photo: Photo) -> None:
    """Encoded under one thread; decoded under two, with and without oneDNN, alone and in batches, in any order."""
    q = torch.tensor([70.0])
    pieces = [photo[i : i + 112, j : j + 144] for i, j in ((0, 0), (200, 100), (300, 300))]
    with arithmetic(1, True), torch.inference_mode():
        written, streams = [], []
        for pixels in pieces:
            encoder = Encoder()
            written.append(tiny.code([encoder], tiny.analyse(tiles.to_tensor(pixels, tiny), q), q))
            streams.append(encoder.finish())
    shape = (112 // tiny.stride, 144 // tiny.stride)
    for threads, mkldnn in ((1, False), (2, True), (2, False)):
        with arithmetic(threads, mkldnn):
            for order in ([0, 1, 2], [2, 0, 1], [1], [2, 1]):
                decoders = [Decoder(streams[i]) for i in order]
                read = tiny.code(decoders, None, q, shape)
                for k, i in enumerate(order):
                    decoders[k].finish()
                    assert torch.equal(read[k], written[i][0])
    torch.set_num_threads(1)


def test_encoding_in_a_batch_writes_the_same_bytes(tiny: Model, photo: Photo) -> None:
    q = torch.tensor([70.0])
    with torch.inference_mode():
        y = [tiny.analyse(tiles.to_tensor(photo[i : i + 64, :96], tiny), q) for i in (0, 300)]
        together = [Encoder(), Encoder()]
        tiny.code(together, torch.cat(y), q)
        for encoder, own in zip(together, y, strict=True):
            alone = Encoder()
            tiny.code([alone], own, q)
            assert alone.finish() == encoder.finish()


def test_tiles_decode_to_the_latents_they_were_cut_from(tiny_light: Model, photo: Photo) -> None:
    pixels = photo[:150, :330]
    data = lichen.encode(pixels, 80, model=tiny_light, tile=1)
    assert len(codec.read(data).tiles) == 3 * 6
    one = np.asarray(lichen.decode(lichen.encode(pixels, 80, model=tiny_light, tile=0), model=tiny_light), float)
    many = np.asarray(lichen.decode(data, model=tiny_light), float)
    mse = [((v - pixels) ** 2).mean() for v in (one, many)]
    assert abs(10 * np.log10(mse[0] / mse[1])) < 0.1  # the transforms run across the tiles' borders: no seams


def test_grey_stays_grey(tiny_light: Model, photo: Photo) -> None:
    grey = np.asarray(Image.fromarray(photo[:64, :64]).convert("L"))
    decoded = lichen.decode(lichen.encode(grey, model=tiny_light), model=tiny_light)
    assert decoded.mode == "L"


def test_alpha_is_lossless_and_metadata_returns(tiny_light: Model, photo: Photo) -> None:
    alpha = photo[:64, :80, 0]
    image = Image.fromarray(np.dstack([photo[:64, :80], alpha]))
    image.info["icc_profile"] = b"not a profile that anyone reads" * 9
    exif = Image.Exif()
    exif[0x010E] = "an astronaut"
    image.info["exif"] = exif.tobytes()
    decoded = lichen.decode(lichen.encode(image, model=tiny_light), model=tiny_light)
    assert decoded.mode == "RGBA"
    assert np.array_equal(np.asarray(decoded)[..., 3], alpha)
    assert decoded.getexif()[0x010E] == "an astronaut"


@pytest.mark.parametrize("quality", [0, 101, float("nan"), -5, "high"])
def test_impossible_qualities(tiny_light: Model, photo: Photo, quality: Any) -> None:
    with pytest.raises(lichen.LichenError, match="between 1 and 100"):
        lichen.encode(photo, quality, model=tiny_light)


def test_more_quality_is_more_bytes_and_less_error(photo: Photo) -> None:
    sizes, errors = [], []
    for quality in (1, 12.5, 30, 60, 85, 100):
        data = lichen.encode(photo[:256, :256], quality)
        sizes.append(len(data))
        errors.append(float(((np.asarray(lichen.decode(data), float) - photo[:256, :256]) ** 2).mean()))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_wrong_weights_are_named(tiny_light: Model, photo: Photo) -> None:
    data = lichen.encode(photo[:64, :64], model=tiny_light)
    with pytest.raises(lichen.LichenError, match="--weights"):
        lichen.decode(data)
    with pytest.raises(lichen.LichenError, match="give the weights"):
        lichen.decode(data, model=lichen.load())


def test_too_many_pixels_are_refused(tiny_light: Model, photo: Photo) -> None:
    data = lichen.encode(photo[:64, :64], model=tiny_light)
    with pytest.raises(lichen.LichenError):
        lichen.decode(data, model=tiny_light, max_pixels=64 * 63)
    with pytest.raises(lichen.LichenError):
        lichen.encode(photo[:64, :64], model=tiny_light, max_pixels=64 * 63)


@pytest.mark.parametrize(
    "change", [{"quality": 0}, {"quality": 255}, {"quality": 25601}, {"model": 2}, {"model": "other"}]
)
def test_headers_that_do_not_fit_their_weights(tiny_light: Model, photo: Photo, change: dict[str, int | str]) -> None:
    file = codec.read(lichen.encode(photo[:16, :16], model=tiny_light))
    data = Container(replace(file.header, **change), file.tiles).to_bytes()  # type: ignore[arg-type]
    with pytest.raises(DamagedError, match="get another copy"):
        lichen.decode(data, model=tiny_light)


def test_a_model_of_one_quality_takes_no_other(photo: Photo) -> None:
    model = make_tiny("minnen2018-scale", photo)
    file = codec.read(lichen.encode(photo[:16, :16], model=model))
    with pytest.raises(DamagedError, match="quality 50"):
        lichen.decode(Container(replace(file.header, quality=50 * 256), file.tiles).to_bytes(), model=model)


def test_a_short_stream_is_refused_long_before_the_end_that_its_size_claims(
    tiny: Model, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = codec.read(lichen.encode(photo[:64, :64], 40, model=tiny))
    stream = file.tiles[0][:100]
    layers = [[min(end, len(stream)) for end in layer] for layer in file.layers]
    layers[-1:] = [[len(stream)]] if layers else []
    header = replace(file.header, width=4096, height=4096)
    read = 0

    class Counting(Decoder):
        def code(self, *arguments: Any) -> Any:
            return self.counted(super().code(*arguments))

        def code_each(self, *arguments: Any) -> Any:
            return self.counted(super().code_each(*arguments))

        def counted(self, values: Any) -> Any:
            nonlocal read
            read += len(values)
            return values

    monkeypatch.setattr(codec, "Decoder", Counting)
    with pytest.raises(DamagedError, match=r"too early|no sense"):
        lichen.decode(Container(header, [stream], {}, layers).to_bytes(), model=tiny)
    assert read < 5000  # of a million latents


def test_a_box_is_a_part_of_the_whole(tiny: Model, photo: Photo) -> None:
    pixels = photo[:200, :330]
    data = lichen.encode(np.dstack([pixels, pixels[..., 1]]), 60, model=tiny, tile=1)
    whole = np.asarray(lichen.decode(data, model=tiny), int)
    for left, top, right, bottom in ((0, 0, 330, 200), (100, 70, 101, 71), (60, 0, 200, 130), (329, 199, 330, 200)):
        part = lichen.decode(data, model=tiny, box=(left, top, right, bottom))
        assert part.mode == "RGBA"
        difference = np.asarray(part, int) - whole[top:bottom, left:right]
        assert np.abs(difference).max() <= 1  # sums of floats in another order
        assert not difference[..., 3].any()


def test_a_box_decodes_only_the_tiles_it_needs(tiny_light: Model, photo: Photo) -> None:
    pixels = photo[:320, :320]
    file = codec.read(lichen.encode(pixels, 60, model=tiny_light, tile=1))
    assert len(file.tiles) == 25
    for i in range(25):
        if i not in (0, 1, 5, 6):
            file.tiles[i] = bytes(range(200))  # not the end where a decoder looks for it
    broken = file.to_bytes()
    assert lichen.decode(broken, model=tiny_light, box=(0, 0, 64, 64)).size == (64, 64)
    with pytest.raises(lichen.LichenError):
        lichen.decode(broken, model=tiny_light, box=(0, 0, 128, 64))
    with pytest.raises(lichen.LichenError, match="limit"):
        lichen.decode(broken, model=tiny_light, box=(0, 0, 64, 64), max_pixels=128 * 128 - 1)
    assert lichen.decode(broken, model=tiny_light, box=(0, 0, 64, 64), max_pixels=128 * 128)


def test_files_and_boxes_of_any_kind(tiny_light: Model, photo: Photo, tmp_path: Path) -> None:
    data = lichen.encode(photo[:64, :64], model=tiny_light)
    (tmp_path / "a.lichen").write_bytes(data)
    whole = np.asarray(lichen.decode(data, model=tiny_light))
    for same in (
        bytearray(data),
        memoryview(data),
        io.BytesIO(data),
        tmp_path / "a.lichen",
        str(tmp_path / "a.lichen"),
    ):
        assert np.array_equal(lichen.decode(same, model=tiny_light), whole)
    box: Any = tuple(np.array([3, 5, 30, 40]))
    assert lichen.decode(data, model=tiny_light, box=box).size == (27, 35)
    for wrong in ((0.5, 0, 3, 3), (1, 2, 3), 7):
        with pytest.raises(lichen.LichenError, match="is no box"):
            lichen.decode(data, model=tiny_light, box=wrong)  # type: ignore[arg-type]
    for tile in (-1, 2**20):
        with pytest.raises(lichen.LichenError, match="cannot be: give 0"):
            lichen.encode(photo[:64, :64], model=tiny_light, tile=tile)


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (-1, 0, 5, 5), (0, 0, 65, 5), (5, 5, 4, 9), (0, 60, 5, 65)])
def test_boxes_outside_of_the_picture(tiny_light: Model, photo: Photo, box: tuple[int, int, int, int]) -> None:
    data = lichen.encode(photo[:64, :64], model=tiny_light)
    with pytest.raises(lichen.LichenError, match="does not lie in the picture of 64x64"):
        lichen.decode(data, model=tiny_light, box=box)


def test_a_file_of_tiles_is_the_same_by_two_threads(tiny_light: Model, photo: Photo) -> None:
    pixels = np.tile(photo, (1, 9, 1))[:200]  # 4 rows of three runs of tiles
    one = lichen.encode(pixels, 60, model=tiny_light, tile=1)
    with arithmetic(2, True):
        two = lichen.encode(pixels, 60, model=tiny_light, tile=1)
        by_two = np.asarray(lichen.decode(two, model=tiny_light), int)
    torch.set_num_threads(1)
    assert abs(len(one) - len(two)) <= 8  # floats of the analysis may differ in their last bit
    assert np.abs(np.asarray(lichen.decode(two, model=tiny_light), int) - by_two).max() <= 1


def test_tiles_that_no_reader_takes_are_not_written(tiny_light: Model, photo: Photo) -> None:
    strip = np.tile(photo[:1], (1, 129, 1))
    assert strip.shape[1] > 2**16
    assert codec.read(lichen.encode(strip, 30, model=tiny_light)).header.tile == 16
    with pytest.raises(lichen.LichenError, match="smaller tiles"):
        lichen.encode(strip, 30, model=tiny_light, tile=0)
