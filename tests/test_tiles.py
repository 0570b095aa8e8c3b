from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from lichen import tiles
from lichen.coding.coder import Meter
from lichen.models.base import Model
from lichen.tiles import Box

Photo = npt.NDArray[np.uint8]


def quality_of(model: Model) -> Tensor | None:
    return torch.tensor([80.0]) if model.variable_rate else None


def test_latents_of_a_piece_are_those_of_the_picture(tiny: Model, photo: Photo) -> None:
    pixels, q = photo[:330, :450], quality_of(tiny)
    all_of_it = tiles.latents_of(330, 450, tiny)
    parts = [
        Box(0, 0, 2, 3),
        Box(all_of_it.bottom // 2, all_of_it.right // 2, all_of_it.bottom // 2 + 2, all_of_it.right // 2 + 1),
        Box(all_of_it.bottom - 2, 5, all_of_it.bottom, all_of_it.right),
    ]
    with torch.inference_mode():
        y = tiny.analyse(tiles.to_tensor(pixels, tiny), q)
        for part in parts:
            piece = tiles.analyse(pixels, part, tiny, q)
            assert torch.allclose(piece, y[:, part.rows, part.columns], atol=1e-3 * float(y.abs().max()))


@pytest.mark.parametrize("area", [Box(0, 0, 330, 450), Box(70, 130, 201, 333), Box(329, 449, 330, 450)])
def test_pixels_of_pieces_are_those_of_the_picture(tiny: Model, photo: Photo, area: Box) -> None:
    size, q = (330, 450), quality_of(tiny)
    latents = tiles.latents_of(*size, tiny)
    boxes = tiles.tile_boxes(latents, 1, tiny)
    decoded: list[int] = []

    def decode(run: list[int]) -> Tensor:
        decoded.extend(run)
        return torch.cat([y_hat[:, boxes[i].rows, boxes[i].columns] for i in run])

    with torch.inference_mode():
        width = tiny.code([Meter()], tiny.analyse(tiles.to_tensor(photo[:64, :64], tiny), q), q).shape[-1]
        y_hat = 3 * torch.randn(1, *latents.shape, width, generator=torch.Generator().manual_seed(0))
        x_hat = tiny.synthesise_to(y_hat, q, size)[0]
        came = torch.full(area.shape, False)
        for part, piece in tiles.synthesise(decode, boxes, area, size, tiny, q):
            assert torch.allclose(piece, x_hat[:, part.rows, part.columns], atol=1e-3 * float(x_hat.abs().max()))
            rows, columns = part.within(area)
            assert not bool(came[rows, columns].any())
            came[rows, columns] = True
    assert bool(came.all())
    assert decoded == tiles.needed(boxes, area, tiny)


def test_runs_are_neighbours_of_one_shape(tiny_light: Model) -> None:
    boxes = tiles.tile_boxes(Box(0, 0, 130, 344), 16, tiny_light)  # 3 rows of 6: the last one is narrower, and lower
    assert list(tiles.runs(boxes, range(18), tiny_light)) == [
        [0, 1], [2, 3], [4], [5], [6, 7], [8, 9], [10], [11], [12, 13], [14, 15], [16], [17],
    ]  # fmt: skip
    assert list(tiles.runs(boxes, [1, 3, 4, 9], tiny_light)) == [[1], [3, 4], [9]]
    assert list(tiles.runs([], [], tiny_light)) == []


def test_side_by_side_keeps_order_errors_and_threads() -> None:
    torch.set_num_threads(2)
    try:
        assert tiles.side_by_side(lambda i: (2 * i, torch.is_inference_mode_enabled()), range(9)) == [
            (2 * i, True) for i in range(9)
        ]
        with pytest.raises(ZeroDivisionError):
            tiles.side_by_side(lambda i: 1 // i, [1, 0, 2])
        assert torch.get_num_threads() == 2
        shares, fresh = [], []

        def work(i: int) -> None:
            if i == 0:
                other = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
                other.start()
                other.join()
            shares.append(torch.get_num_threads())

        tiles.side_by_side(work, range(4))
        assert (shares, fresh) == ([1] * 4, [2])  # threads that begin meanwhile have all of them
    finally:
        torch.set_num_threads(1)
