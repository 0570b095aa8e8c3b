"""The .lichen file: exact bytes, checks, fuzz."""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import struct
import subprocess
import tracemalloc
import zlib
from pathlib import Path

import pytest

from lichen.container import (
    OPTIONAL,
    SIGNATURE,
    Container,
    Header,
    header_only,
    outline,
    parts,
    read_bytes,
    read_part,
)
from lichen.errors import DamagedError, LichenError, LimitError, NotLichenError, VersionError

WEIGHTS = bytes.fromhex("0123456789abcdef")
PLAIN = Container(Header(1, WEIGHTS, 75 * 256, 768, 512), [b"coded latents"])
FULL = Container(
    Header("experiment", WEIGHTS, 0, 1030, 601, tile=8, grey=True),
    [bytes([i]) * (100 * i) for i in range(6)],
    {"ALPH": b"\xff", "ICCP": b"profile", "EXIF": b"MM\0*", "XMP ": b"<x/>" * 99},
)

LAYERED = Container(
    Header(11, WEIGHTS, 100 * 256, 100, 50, tile=1),
    [bytes(range(40)), b"tile of layers"],
    {"ICCP": b"profile", "EXIF": b"MM"},
    [[7, 0], [7, 4], [30, 5], [40, 14]],
)

# Bytes that every later version must read and write alike. The text after each line is the field.
GOLDEN = bytes.fromhex(
    "894c49430d0a1a0a"  # signature
    "48454144"  # HEAD
    "13"  # 19 bytes follow
    "01"  # version
    "01"  # model
    "0123456789abcdef"  # weights
    "4b00"  # quality 75
    "8006"  # width 768
    "8004"  # height 512
    "00"  # one tile
    "00"  # RGB
    "01"  # one chunk follows
    "e52def90"  # CRC-32
    "54494c45"  # TILE
    "0d"  # 13 bytes follow
    "636f646564206c6174656e7473"  # "coded latents"
    "8a705912"  # CRC-32
)


def chunk(kind: bytes, payload: bytes) -> bytes:
    """An independent writer of chunks, for files that `to_bytes` would refuse to write."""
    length, n = bytearray(), len(payload)
    while n >= 128:
        length.append(n % 128 + 128)
        n //= 128
    body = kind + bytes(length) + bytes([n]) + payload
    return body + struct.pack(">I", zlib.crc32(body))


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    return [(p.type.encode(), data[p.offset : p.offset + p.length]) for p in parts(data)]


def assembled(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return SIGNATURE + b"".join(chunk(kind, payload) for kind, payload in chunks)


def head(
    version: int = 1, width: bytes = b"\x01", height: bytes = b"\x01", tile: bytes = b"\0", colour: int = 0, n: int = 1
) -> bytes:
    return bytes([version, 1]) + WEIGHTS + b"\0\0" + width + height + tile + bytes([colour, n])


def test_golden_bytes() -> None:
    assert PLAIN.to_bytes() == GOLDEN
    assert Container.from_bytes(GOLDEN) == PLAIN


def test_golden_bytes_of_a_file_with_everything() -> None:
    data = FULL.to_bytes()
    assert len(data) == 2050
    assert hashlib.sha256(data).hexdigest() == "9d5d72afaa925f90ad8fb2da9bc0414a0cacd94a42f34453d2c7de0cc1f39fe9"
    assert Container.from_bytes(data) == FULL


def test_golden_bytes_of_a_file_with_layers() -> None:
    layer = Container(Header(11, WEIGHTS, 100 * 256, 16, 16), [b"bits"], {}, [[3], [4]])
    data = SIGNATURE + chunk(b"HEAD", b"\x01\x0b" + WEIGHTS + b"\x64\0\x10\x10\0\0\x02")
    data += chunk(b"LAYR", b"bit") + chunk(b"LAYR", b"s")
    assert layer.to_bytes() == data
    two = SIGNATURE + chunk(b"HEAD", b"\x01\x0b" + WEIGHTS + b"\x64\0\x64\x32\x01\0\x06")
    two += chunk(b"ICCP", b"profile") + chunk(b"EXIF", b"MM")
    for a, b in ((range(7), b""), (range(0), b"tile"), (range(7, 30), b" "), (range(30, 40), b"of layers")):
        two += chunk(b"LAYR", bytes([len(a)]) + bytes(a) + b)
    assert LAYERED.to_bytes() == two
    assert Container.from_bytes(two) == LAYERED


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_round_trip_from_any_buffer(kind: type) -> None:
    for file in (PLAIN, FULL, LAYERED):
        assert Container.from_bytes(kind(file.to_bytes())) == file


@pytest.mark.parametrize("side", [1, 127, 128, 16383, 16384, 2**21 - 1, 2**21, 2**24])
def test_sizes_round_trip(side: int) -> None:
    header = Header(255, WEIGHTS, 0xFFFF, side, 1, tile=1)
    assert header_only(Container(header, [b""] * header.grid[1]).to_bytes()) == header


@pytest.mark.parametrize("n", [0, 1, 127, 128, 16383, 16384, 2**21 - 1])
def test_overhead_of_one_tile(n: int) -> None:
    file = Container(Header(255, WEIGHTS, 0xFFFF, 16383, 1024), [bytes(n)])
    assert len(file.to_bytes()) - n <= 47


def test_overhead_grows_by_one_byte_from_2_mebibytes_on() -> None:
    assert len(Container(Header(255, WEIGHTS, 0xFFFF, 16383, 1024), [bytes(2**21)]).to_bytes()) - 2**21 == 48


def test_grid() -> None:
    assert FULL.header.grid == (2, 3)
    assert Header(1, WEIGHTS, 0, 512, 513, tile=8).grid == (2, 1)
    assert PLAIN.header.grid == (1, 1)


def test_parts() -> None:
    data = FULL.to_bytes()
    found = parts(data)
    assert [p.type for p in found] == ["HEAD", *["TILE"] * 6, *OPTIONAL]
    assert [data[p.offset : p.offset + p.length] for p in found[1:7]] == FULL.tiles
    assert [data[p.offset : p.offset + p.length] for p in found[7:]] == list(FULL.chunks.values())


def test_header_only_needs_the_beginning_alone() -> None:
    assert header_only(FULL.to_bytes()[:512]) == FULL.header
    longest = Header("m" * 255, WEIGHTS, 1, 2**24, 1, tile=2**10)
    assert header_only(Container(longest, [b"x" * 6] * 256).to_bytes()[:512]) == longest


@pytest.mark.parametrize("file", [PLAIN, FULL, LAYERED])
def test_outline_sees_what_the_reader_sees(file: Container) -> None:
    data = file.to_bytes()
    header, found = outline(io.BytesIO(data))
    assert header == file.header
    assert found == parts(data)[1:]
    for part in found:
        assert read_part(io.BytesIO(data), part) == data[part.offset : part.offset + part.length]
        bad = data[: part.offset] + b"\xaa" + data[part.offset + 1 :]
        with pytest.raises(DamagedError, match="checksum"):
            read_part(io.BytesIO(bad), part)
    for n in range(parts(data)[0].offset + parts(data)[0].length + 4, len(data)):
        cut = outline(io.BytesIO(data[:n]))
        assert cut == (header, [p for p in found if p.offset + p.length + 4 <= n])
    for n in range(8, parts(data)[0].length):
        with pytest.raises(DamagedError):
            outline(io.BytesIO(data[:n]))


@pytest.mark.parametrize("file", [PLAIN, FULL, LAYERED], ids=["plain", "full", "layered"])
@pytest.mark.parametrize("change", [0x01, 0x80, 0x20, 0xFF, 0x55])
def test_any_flipped_byte_is_detected(file: Container, change: int) -> None:
    data = file.to_bytes()
    for i in range(len(data)):
        with pytest.raises(LichenError):
            Container.from_bytes(data[:i] + bytes([data[i] ^ change]) + data[i + 1 :])


def test_any_other_value_of_any_byte_is_detected() -> None:
    for i, value in enumerate(GOLDEN):
        for other in range(256):
            if other != value:
                with pytest.raises(LichenError):
                    Container.from_bytes(GOLDEN[:i] + bytes([other]) + GOLDEN[i + 1 :])


def test_any_truncation_is_detected() -> None:
    data = FULL.to_bytes()
    for n in range(len(data)):
        with pytest.raises(DamagedError):
            Container.from_bytes(data[:n])
        with pytest.raises(DamagedError):
            parts(data[:n])


def whole_layers(data: bytes) -> list[int]:
    """Where each layer's chunk ends."""
    return [p.offset + p.length + 4 for p in parts(data) if p.type == "LAYR"]


def test_what_is_left_of_a_file_with_layers() -> None:
    data = LAYERED.to_bytes()
    ends = whole_layers(data)
    assert len(ends) == 4
    for n in range(len(data)):
        there = sum(end <= n for end in ends)
        for read in (Container.from_bytes, parts):
            with pytest.raises(DamagedError) as caught:
                read(data[:n])
            assert ("--partial" in str(caught.value)) == (there > 0)
            assert (f"{there} whole layer{'s' * (there > 1)}:" in str(caught.value)) == (there > 0)
        if not there:
            with pytest.raises(DamagedError):
                Container.from_bytes(data[:n], partial=True)
            continue
        file = Container.from_bytes(data[:n], partial=True)
        assert file.missing == 4 - there
        assert file.layers == LAYERED.layers[:there]
        assert file.tiles == [t[:end] for t, end in zip(LAYERED.tiles, file.layers[-1], strict=True)]
        assert (file.header, file.chunks) == (LAYERED.header, LAYERED.chunks)
        assert [p.type for p in parts(data[:n], partial=True)] == ["HEAD", "ICCP", "EXIF", *["LAYR"] * there]
        with pytest.raises(ValueError, match="missing"):
            file.to_bytes()
    assert Container.from_bytes(data, partial=True) == LAYERED


def test_partial_is_for_files_with_layers_that_end_early() -> None:
    data = FULL.to_bytes()
    for n in range(len(data)):
        with pytest.raises(DamagedError) as caught:
            Container.from_bytes(data[:n], partial=True)
        assert "--partial" not in str(caught.value)
    data = LAYERED.to_bytes()
    for i in range(len(data)):
        for change in (0x01, 0x80, 0x55):
            try:
                file = Container.from_bytes(data[:i] + bytes([data[i] ^ change]) + data[i + 1 :], partial=True)
            except LichenError:
                continue
            # a length that points beyond the end; what comes before it is whole
            assert file.missing > 0
            assert file.layers == LAYERED.layers[: len(file.layers)]
            assert file.tiles == [t[:end] for t, end in zip(LAYERED.tiles, file.layers[-1], strict=True)]
    with pytest.raises(DamagedError, match="follow the end"):
        Container.from_bytes(data + b"\0", partial=True)


def test_trailing_bytes_are_detected() -> None:
    for tail in (b"\0", b"garbage", chunk(b"EXIF", b""), GOLDEN):
        with pytest.raises(DamagedError, match="follow the end"):
            Container.from_bytes(GOLDEN + tail)


def test_random_corruption_raises_lichen_errors_alone() -> None:
    rng = random.Random(0)
    originals = [PLAIN.to_bytes(), FULL.to_bytes(), LAYERED.to_bytes()]
    for trial in range(10_000):
        data = bytearray(originals[trial % 3])
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(4):
                case 0:
                    data[at : at + 1] = rng.randbytes(1)
                case 1:
                    del data[at : at + rng.randint(1, 40)]
                case 2:
                    data[at:at] = rng.randbytes(rng.randint(1, 40))
                case _:
                    source = rng.randrange(len(data) + 1)
                    data[at : at + 20] = data[source : source + 20]
        if bytes(data) in originals:
            continue
        for read in (Container.from_bytes, parts):
            with pytest.raises(LichenError):
                read(bytes(data))


def test_corruption_with_mended_checksums_raises_lichen_errors_alone() -> None:
    rng = random.Random(1)
    originals = [PLAIN.to_bytes(), FULL.to_bytes(), LAYERED.to_bytes()]
    kinds = [b"HEAD", b"TILE", b"LAYR", b"ALPH", b"EXIF", b"XMP ", b"abcd", b"ABCD", b"\0\0\0\0", b"T\xc4LE", b" ILE"]
    read = 0
    for trial in range(10_000):
        chunks = chunks_of(originals[trial % 3])
        for _ in range(rng.randint(1, 3)):
            i = rng.randrange(len(chunks)) if rng.random() < 0.5 else 0
            kind, payload = chunks[i]
            match rng.randrange(6):
                case 0:
                    chunks[i] = rng.choice(kinds), payload
                case 1:
                    chunks.insert(rng.randrange(len(chunks) + 1), (rng.choice(kinds), payload))
                case 2 if len(chunks) > 1:
                    del chunks[i]
                case 3:
                    j = rng.randrange(len(chunks))
                    chunks[i], chunks[j] = chunks[j], chunks[i]
                case _:
                    changed = bytearray(payload)
                    at = rng.randrange(len(changed) + 1)
                    changed[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
                    chunks[i] = kind, bytes(changed)
        data = assembled(chunks)
        try:
            file = Container.from_bytes(data)
        except LichenError:
            continue
        read += 1
        rows, columns = file.header.grid
        assert len(file.tiles) == rows * columns
        assert Container.from_bytes(file.to_bytes()) == file
    assert 500 < read < 9500  # the fuzz goes past the checksums, and meets the checks behind them


def test_memory_follows_the_input_not_its_claims() -> None:
    huge = b"\x80\x80\x80\x08"  # 2^24
    claims = [
        SIGNATURE + chunk(b"HEAD", head(width=huge, height=huge, tile=b"\x01")[:-1] + b"\xff\xff\xff\xff\x7f"),
        SIGNATURE + chunk(b"HEAD", head(width=huge, height=huge, tile=b"\x01")) + chunk(b"TILE", b""),
        SIGNATURE + chunk(b"HEAD", head()) + b"TILE\xff\xff\xff\xff\x7f",
        SIGNATURE + chunk(b"HEAD", head(width=huge, height=huge, tile=b"\x01")) + chunk(b"LAYR", b"\x01\0\0"),
    ]
    tracemalloc.start()
    for data in claims:
        for read in (Container.from_bytes, parts):
            with pytest.raises(DamagedError) if read is not parts else _nothing_or_damaged():
                read(data)
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()


class _nothing_or_damaged:
    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, *_: object) -> bool:
        return kind is None or issubclass(kind, DamagedError)


TILE, LAYER = chunk(b"TILE", b"t"), chunk(b"LAYR", b"l")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", DamagedError),
        (b"\x89LI", DamagedError),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), NotLichenError),
        (b"\xff\xd8\xff\xe0JFIF", NotLichenError),
        (GOLDEN.replace(b"\r\n", b"\n"), DamagedError),
        (GOLDEN.replace(b"\n", b"\r\n"), DamagedError),
        (bytes(b & 0x7F for b in GOLDEN), DamagedError),
        (SIGNATURE + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(version=0)) + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(version=2)) + TILE, VersionError),
        (SIGNATURE + chunk(b"HEAD", b"\x02 of quite another layout") + b"and unknown things", VersionError),
        (SIGNATURE + chunk(b"HEAD", head(colour=2)) + TILE, VersionError),
        (SIGNATURE + chunk(b"HEAD", head(width=b"\0")) + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(width=b"\x81\x80\x80\x08")) + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(width=b"\x81\0")) + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(width=b"\x80\x80\x80\x80\x80\x01")) + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(tile=b"\x81\x80\x10")) + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head() + b"\0") + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head()[:-1]) + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(n=2)) + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(n=2)) + TILE + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(n=0)), DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(n=1)) + chunk(b"EXIF", b""), DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(n=2)) + chunk(b"EXIF", b"") + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(n=3)) + TILE + chunk(b"EXIF", b"") * 2, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(n=2)) + TILE + chunk(b"HEAD", head()), DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(n=2)) + TILE + chunk(b"HDR ", b"?"), VersionError),
        (SIGNATURE + chunk(b"HEAD", head(n=2)) + TILE + LAYER, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(n=2)) + LAYER + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(n=2)) + LAYER + chunk(b"EXIF", b""), DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(n=3)) + chunk(b"EXIF", b"") * 2 + LAYER, DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(width=b"\x41", tile=b"\x01")) + chunk(b"LAYR", b""), DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(width=b"\x41", tile=b"\x01")) + chunk(b"LAYR", b"\x02l"), DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(width=b"\x41", tile=b"\x01")) + chunk(b"LAYR", b"\x81\0l"), DamagedError),
        (SIGNATURE + chunk(b"HEAD", head(n=2)) + TILE + chunk(b"1234", b"?"), DamagedError),
        (SIGNATURE + chunk(b"HEAD", b"\x01\0\x01\xff" + head()[2:]) + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", b"\x01\0\x00" + head()[2:]) + TILE, DamagedError),
        (SIGNATURE + chunk(b"HEAD", b"\x01\0\x05\x1b[31m" + head()[2:]) + TILE, DamagedError),
    ],
)
def test_errors(data: bytes, error: type[LichenError]) -> None:
    with pytest.raises(LichenError) as caught:
        Container.from_bytes(data)
    assert caught.type is error
    assert len(str(caught.value)) > 20


def test_unknown_ancillary_chunks_are_skipped() -> None:
    data = SIGNATURE + chunk(b"HEAD", head(n=4)) + chunk(b"tidx", b"1") + TILE + chunk(b"note", b"2") * 2
    file = Container.from_bytes(data)
    assert (file.tiles, file.chunks) == ([b"t"], {})
    assert [p.type for p in parts(data)] == ["HEAD", "tidx", "TILE", "note", "note"]


@pytest.mark.parametrize(
    "change",
    [
        {"model": 0},
        {"model": 256},
        {"model": ""},
        {"model": "x" * 256},
        {"model": "\ud800"},
        {"model": "a\nb"},
        {"weights": b"short"},
        {"quality": -1},
        {"quality": 65536},
        {"width": 0},
        {"tile": 2**18 + 1},
        {"version": 2},
    ],
)
def test_headers_that_cannot_be_written(change: dict[str, object]) -> None:
    values: dict[str, object] = {"model": 1, "weights": WEIGHTS, "quality": 0, "width": 1, "height": 1}
    with pytest.raises(ValueError):
        Header(**(values | change))  # type: ignore[arg-type]


def test_pictures_beyond_the_format() -> None:
    with pytest.raises(LimitError, match="16777216"):
        Header(1, WEIGHTS, 0, 2**24 + 1, 1)


@pytest.mark.parametrize(
    ("width", "height", "tile"), [(4097, 4096, 0), (2**16 + 1, 1, 0), (1, 2**24, 2**10 + 1), (2**24, 2**24, 65)]
)
def test_tiles_beyond_the_format(width: int, height: int, tile: int) -> None:
    with pytest.raises(LimitError, match="smaller tiles"):
        Header(1, WEIGHTS, 0, width, height, tile)
    Header(1, WEIGHTS, 0, width, height, tile=tile - 1 if tile else 64)
    claim = head(2, b"\x80\x80\x80\x08", b"\x80\x80\x80\x08", b"\x41")  # 2^24 x 2^24 in tiles of 65 units
    with pytest.raises(DamagedError, match="impossible"):
        Container.from_bytes(SIGNATURE + chunk(b"HEAD", b"\x01" + claim[1:]) + TILE)


def test_containers_that_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="2 tiles"):
        Container(PLAIN.header, [b"", b""]).to_bytes()
    with pytest.raises(ValueError, match="ICC!"):
        Container(PLAIN.header, [b""], {"ICC!": b""}).to_bytes()
    for layers in ([[1]], [[1], [3]], [[2], [1], [2]], [[1, 1], [2, 2]]):
        with pytest.raises(ValueError, match="layer"):
            Container(PLAIN.header, [b"ab"], {}, layers).to_bytes()


# ---- files -----------------------------------------------------------------------------------------------------------


def test_read_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.lichen"
    path.write_bytes(GOLDEN)
    assert read_bytes(path) == GOLDEN
    with pytest.raises(NotLichenError, match="No such file"):
        read_bytes(tmp_path / "missing.lichen")
    with pytest.raises(NotLichenError, match="directory"):
        read_bytes(tmp_path)
    with pytest.raises(NotLichenError):
        read_bytes("a\0b")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_read_bytes_stops_at_a_foreign_signature() -> None:
    with pytest.raises(NotLichenError):
        read_bytes("/dev/zero")  # which never ends


@pytest.mark.skipif(shutil.which("file") is None, reason="needs file(1)")
def test_magic_of_the_documentation(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "docs" / "format.md").read_text(encoding="utf-8")
    lines = text.split("```magic\n")[1].split("```")[0]
    (tmp_path / "magic").write_text(lines)
    (tmp_path / "a").write_bytes(GOLDEN)
    shown = subprocess.run(
        ["file", "-b", "-m", "magic", "a"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == "Lichen compressed image, version 1"
    mime = ["file", "-b", "--mime-type", "-m", "magic", "a"]
    assert subprocess.run(mime, cwd=tmp_path, capture_output=True, text=True).stdout.strip() == "image/x-lichen"
