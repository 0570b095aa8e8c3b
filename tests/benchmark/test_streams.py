"""Estimated bits against the bytes of files."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from lichen.benchmark import streams


def test_files_are_what_the_prior_promised(tiny_light, photo, tmp_path):
    picture = np.ascontiguousarray(photo[:128, :192])
    check = streams.check(picture, 60, tiny_light)
    assert check.passed and len(check.payloads) == 1
    assert check.estimates[0] > 50
    Image.fromarray(picture).save(tmp_path / "p.png")
    checks = streams.check_all([tmp_path / "p.png"], [30, 60], tiny_light)
    assert [c.quality for c in checks] == [30, 60]
    assert checks[1].payloads == check.payloads
    assert "1 of 1" in streams.table(checks)


def test_every_tile_has_its_own_estimate(tiny_light, photo):
    check = streams.check(np.ascontiguousarray(photo[:128, :192]), 60, tiny_light, tile=1)
    assert len(check.payloads) == len(check.estimates) == 6
    assert check.passed


def test_what_is_off_is_seen():
    good = streams.Check(50, (1000.0, 2000.0), (1010, 1995), 40, True)
    assert good.passed and good.beyond == 0
    assert not dataclasses.replace(good, identical=False).passed
    off = dataclasses.replace(good, payloads=(1010, 2040))
    assert off.beyond == 1 and not off.passed
