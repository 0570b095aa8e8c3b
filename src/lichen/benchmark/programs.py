"""Codecs that are programs: run with files between, or with standard input and output.

A template makes any program a codec: CommandCodec.parse("name:enc {in} {out} {q}:dec {in} {out}"). {in} of the encoder
and {out} of the decoder are PNG files of 8-bit RGB, unless a suffix is given: {in.ppm}; {q} is the setting, {w} and {h}
the size.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lichen.errors import LichenError
from lichen.picture import Pixels

QUALITIES = (10.0, 20.0, 35.0, 50.0, 65.0, 80.0, 90.0, 95.0)
"""Default settings of a template."""

TIMEOUT = 3600.0  # seconds


class CodecError(LichenError):
    """A codec that is not known or cannot run here."""


class Peak:
    """The largest resident set, in bytes, of any program run since it was last set to 0; 0 where none can tell."""

    bytes = 0


def run(command: Sequence[str | Path], data: bytes | None = None) -> bytes:
    """Run a program on `data` and return what it writes to standard output. CodecError where it fails.

    A session of its own keeps Ctrl-C on a terminal from it: what is under way is finished.
    """
    words = [str(c) for c in command]
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as sink, tempfile.TemporaryFile() as log:
        if data is not None:
            source.write(data)
            source.seek(0)
        try:
            process = subprocess.Popen(words, stdin=source, stdout=sink, stderr=log, start_new_session=True)
        except OSError as e:
            raise CodecError(f"{words[0]} does not run: {e.strerror or e}") from e
        status = _wait(process)
        if status:
            log.seek(0)
            said = log.read()[-2000:].decode(errors="replace").strip().splitlines() or ["nothing"]
            raise CodecError(f"{Path(words[0]).name} failed with status {status} and said: {' / '.join(said[-3:])}")
        sink.seek(0)
        return sink.read()


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Its exit status; its peak of memory is noted where the system tells it (Unix)."""
    if not hasattr(os, "wait4"):
        return process.wait(TIMEOUT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    Peak.bytes = max(Peak.bytes, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
    return process.returncode


def find(name: str, what: str) -> str:
    """The path of a program on PATH; CodecError, saying what it is, where it is not."""
    path = shutil.which(name)
    if path is None:
        raise CodecError(f"{name} is not on PATH: install {what}, or give its path")
    return path


@functools.lru_cache(maxsize=64)
def fingerprint(path: str) -> str:
    """The first 4 bytes, in hex, of the SHA-256 of a program's file: another build is another version."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]


_FIELD = re.compile(r"\{(in|out|q|w|h)(\.\w+)?\}")


@dataclass(frozen=True)
class CommandCodec:
    """A codec of two command lines."""

    name: str
    encoder: str
    decoder: str
    settings: Sequence[float] = QUALITIES

    @classmethod
    def parse(cls, text: str) -> CommandCodec:
        """From "NAME:ENCODE:DECODE" or "NAME:ENCODE:DECODE:SETTING,SETTING,...". CodecError for other text."""
        parts = text.split(":")
        try:
            settings = tuple(float(s) for s in parts[3].split(",")) if len(parts) == 4 else QUALITIES
        except ValueError:
            raise CodecError(f"{parts[3]!r} are no settings: give numbers with commas between") from None
        if len(parts) not in (3, 4) or not all(p.strip() for p in parts):
            raise CodecError(f"{text!r} is no codec: give NAME:ENCODE {{in}} {{out}} {{q}}:DECODE {{in}} {{out}}")
        for part in parts[1:3]:
            try:
                shlex.split(part)
            except ValueError as e:
                raise CodecError(f"{part!r} is no command line: {e}") from None
            fields = {m[0] for m in _FIELD.findall(part)}
            if not {"in", "out"} <= fields:
                raise CodecError(f"{part!r} names no {{in}} and {{out}}: the program has to read and write files")
        if not re.fullmatch(r"[\w.+-]+", parts[0]):
            raise CodecError(f"{parts[0]!r} is no name: use letters, digits and -")
        return cls(parts[0], parts[1], parts[2], settings)

    @functools.cached_property
    def version(self) -> str:
        """The templates, and the fingerprints of the programs. CodecError where one is not on PATH."""
        programs = {shlex.split(t)[0] for t in (self.encoder, self.decoder)}
        found = [f"{Path(p).name} {fingerprint(find(p, 'it'))}" for p in sorted(programs)]
        return f"{', '.join(found)}; {self.encoder.strip()}; {self.decoder.strip()}"

    def encode(self, picture: Pixels, setting: float) -> bytes:
        """The file that the encoder writes."""
        source = io.BytesIO()
        suffix = _suffix(self.encoder, "in", ".png")
        Image.fromarray(picture).save(source, "PPM" if suffix == ".ppm" else "PNG")
        height, width = picture.shape[:2]
        values = {"q": f"{setting:g}", "w": str(width), "h": str(height)}
        return _through(self.encoder, source.getvalue(), suffix, _suffix(self.encoder, "out", ".bin"), values)

    def decode(self, data: bytes) -> Pixels:
        """The pixels that the decoder writes."""
        suffix = _suffix(self.decoder, "out", ".png")
        suffix_in = _suffix(self.decoder, "in", _suffix(self.encoder, "out", ".bin"))
        out = _through(self.decoder, data, suffix_in, suffix, {})
        with Image.open(io.BytesIO(out)) as image:
            return np.asarray(image.convert("RGB"))


def _suffix(template: str, field: str, default: str) -> str:
    """The suffix that a template gives a field, or the default."""
    return next((s for f, s in _FIELD.findall(template) if f == field and s), default)


def _through(template: str, data: bytes, suffix_in: str, suffix_out: str, values: dict[str, str]) -> bytes:
    """Write a file, run the program, read the file that it wrote."""
    with tempfile.TemporaryDirectory(prefix="lichen-") as folder:
        source, target = Path(folder) / f"in{suffix_in}", Path(folder) / f"out{suffix_out}"
        source.write_bytes(data)
        values = {**values, "in": str(source), "out": str(target)}
        words = [_FIELD.sub(lambda m: values.get(m[1], m[0]), word) for word in shlex.split(template)]
        run(words)
        try:
            return target.read_bytes()
        except FileNotFoundError:
            raise CodecError(f"{words[0]} ended well but wrote no {target.name}: see its command line") from None
