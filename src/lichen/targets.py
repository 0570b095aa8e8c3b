"""Which quality gives a file of so many bytes, or a picture of so many dB: a search over all qualities by real files.

Bytes and dB rise with quality, nearly straight lines in its units if bytes are taken in the logarithm. So the search
interpolates between the nearest probes on either side, and halves what is left where that did not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lichen.errors import TargetError

CLOSE_BYTES = 0.01  # a file that fills so much of its budget but this share ends the search
CLOSE_PSNR, TOLERANCE_PSNR = 0.02, 0.05  # dB: what ends the search; what is still a hit when nothing is left to try

Kind = Literal["bytes", "bpp", "psnr"]


@dataclass(frozen=True)
class Target:
    """A size not to be exceeded, in bytes or bits per pixel, or a PSNR in dB."""

    kind: Kind
    value: float

    @staticmethod
    def of(quality: float | None, bytes: float | None, bpp: float | None, psnr: float | None) -> Target | None:
        """The target that is given, None where there is none. TargetError for two, or one that makes no sense."""
        wanted: dict[Kind, float | None] = {"bytes": bytes, "bpp": bpp, "psnr": psnr}
        given = [Target(kind, value) for kind, value in wanted.items() if value is not None]
        if len(given) + (quality is not None) > 1:
            raise TargetError("quality, target_bytes, target_bpp and target_psnr exclude each other: give one")
        for target in given:
            if not 0 < target.value < math.inf:  # NaN too
                raise TargetError(f"target_{target.kind} {target.value} is no positive number")
        return given[0] if given else None

    def search(
        self,
        encode: Callable[[int], bytes],
        psnr_of: Callable[[bytes], float],
        pixels: int,
        units: tuple[int, int],
    ) -> bytes:
        """The file that `encode` makes of the right one of `units`, lowest to highest quality.

        psnr_of(file) -> dB. TargetError where the smallest file is too large, or the best too bad, which it names.
        """
        files: dict[int, bytes] = {}

        def file(unit: int) -> bytes:
            if unit not in files:
                files[unit] = encode(unit)
            return files[unit]

        if self.kind == "psnr":
            return self._of_psnr(file, psnr_of, units)
        budget = math.floor(self.value if self.kind == "bytes" else self.value * pixels / 8)
        found = rising(
            lambda unit: math.log(len(file(unit))),
            math.log(max(budget, 1)),
            units,
            lambda v: -CLOSE_BYTES < v - math.log(max(budget, 1)) <= 0,
        )
        if found is None:
            smallest = min(map(len, files.values()))
            asked = f"{budget} bytes" if self.kind == "bytes" else f"{self.value:g} bits per pixel ({budget} bytes)"
            raise TargetError(
                f"this picture does not fit into {asked}: the smallest file has {smallest} bytes, "
                f"{8 * smallest / pixels:.4f} bits per pixel"
            )
        return file(found)

    def _of_psnr(
        self, file: Callable[[int], bytes], psnr_of: Callable[[bytes], float], units: tuple[int, int]
    ) -> bytes:
        known: dict[int, float] = {}

        def psnr(unit: int) -> float:
            if unit not in known:
                known[unit] = psnr_of(file(unit))
            return known[unit]

        found = rising(psnr, self.value, units, lambda v: abs(v - self.value) <= CLOSE_PSNR)
        nearest = min(known, key=lambda unit: abs(known[unit] - self.value))
        if found == units[1] and known[nearest] < self.value - TOLERANCE_PSNR:
            raise TargetError(f"this picture does not reach {self.value:g} dB: quality 100 has {psnr(found):.2f} dB")
        return file(nearest)


def rising(
    measure: Callable[[int], float], goal: float, units: tuple[int, int], close: Callable[[float], bool]
) -> int | None:
    """An integer of the range `units` (both ends included) whose measure is close to the goal.

    Where none is, the one below which all and above which none stay at the goal or under it, as far as `measure` rises;
    None where that would lie before the range.
    """
    below, above = units[0] - 1, units[1] + 1
    values: dict[int, float] = {}
    unit, width = (units[0] + units[1]) // 2, above - below
    while above - below > 1:
        value = values[unit] = measure(unit)
        if close(value):
            return unit
        if value <= goal:
            below = unit
        else:
            above = unit
        halved = 2 * (above - below) <= width
        width = above - below
        if below in values and above in values and halved:
            share = (goal - values[below]) / (values[above] - values[below])
            unit = below + round(share * (above - below))
        else:
            unit = (below + above) // 2
        unit = min(max(unit, below + 1), above - 1)
    return below if below >= units[0] else None
