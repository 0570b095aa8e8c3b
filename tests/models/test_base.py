"""What all models share."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import numpy.typing as npt
import pytest

import lichen
from lichen.models.base import Model


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_write_the_same_file(tiny: Model, photo: npt.NDArray[np.uint8], again) -> None:  # type: ignore[no-untyped-def]
    """Also after a first use, which leaves a frozen prior: they make their own."""
    picture = np.ascontiguousarray(photo[:64, :64])
    data = lichen.encode(picture, model=tiny)
    copied = again(tiny)
    assert copied.frozen_prior() is not tiny.frozen_prior()
    assert lichen.encode(picture, model=copied) == data
