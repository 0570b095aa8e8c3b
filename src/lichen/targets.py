"""Which quality gives a file of so many bytes, or a picture of so many dB: a search over all qualities by real files.

Bytes and dB rise with quality, nearly straight lines in its units if bytes are taken in the logarithm. So the search
interpolates between the nearest probes on either side, and halves what is left where that did not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from lichen.errors import TargetError

CLOSE_BYTES = 0.01  # a file that fills so much of its budget but this share ends the search
CLOSE_PSNR, TOLERANCE_PSNR = 0.02, 0.05  # dB: what ends the search; what is still a hit when nothing is left to try
REFINED = 4  # slow files, at most, where one of them would do

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
        refine: Callable[[int], bytes] | None = None,
    ) -> bytes:
        """The file that `encode` makes of the right one of `units`, lowest to highest quality.

        psnr_of(file) -> dB. refine: makes the files that are to hit, where they take much longer than those of `encode`
        and lie beside them by about the same everywhere. TargetError where the smallest file is too large, or the best
        too bad, which it names.
        """
        budget = math.floor(self.value if self.kind == "bytes" else self.value * pixels / 8)
        if self.kind == "psnr":
            goal, measure = self.value, psnr_of
        else:
            goal, measure = math.log(max(budget, 1)), lambda data: math.log(len(data))
        quick = _Files(encode, measure)
        final = _Files(refine, measure) if refine else quick
        beside = 0.0  # how far a refined file lies from a quick one
        while True:
            aim = goal - beside
            found = rising(quick, aim, units, partial(self._close, aim))
            unit = units[0] if found is None else found
            if refine is None or unit in final.values:
                break
            enough = len(final.values) + 1 >= REFINED and (self.kind == "psnr" or final(unit) <= goal)
            if enough or self._close(goal, final(unit)):
                break
            beside = final(unit) - quick(unit)
        if self.kind == "psnr":
            nearest = min(final.values, key=lambda unit: abs(final.values[unit] - goal))
            if max(final.values) == units[1] and max(final.values.values()) < goal - TOLERANCE_PSNR:
                top = final.values[units[1]]  # a lower quality may have a little more
                raise TargetError(f"this picture does not reach {goal:g} dB: quality 100 has {top:.2f} dB")
            return final.files[nearest]
        fitting = [unit for unit, data in final.files.items() if len(data) <= budget]
        if not fitting:
            smallest = min(map(len, final.files.values()))
            asked = f"{budget} bytes" if self.kind == "bytes" else f"{self.value:g} bits per pixel ({budget} bytes)"
            raise TargetError(
                f"this picture does not fit into {asked}: the smallest file has {smallest} bytes, "
                f"{8 * smallest / pixels:.4f} bits per pixel"
            )
        return final.files[max(fitting)]

    def _close(self, goal: float, value: float) -> bool:
        miss = value - goal
        return abs(miss) <= CLOSE_PSNR if self.kind == "psnr" else -CLOSE_BYTES < miss <= 0


class _Files:
    """Files and their measure by units of quality, each made once."""

    def __init__(self, make: Callable[[int], bytes], measure: Callable[[bytes], float]) -> None:
        self.make, self.measure = make, measure
        self.files: dict[int, bytes] = {}
        self.values: dict[int, float] = {}

    def __call__(self, unit: int) -> float:
        if unit not in self.values:
            self.files[unit] = self.make(unit)
            self.values[unit] = self.measure(self.files[unit])
        return self.values[unit]


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
