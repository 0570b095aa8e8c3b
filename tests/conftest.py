"""Photographs, tiny models of every kind, and the switch that writes golden files anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny import make_tiny

from lichen.models import REGISTRY
from lichen.models.base import Model

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate-golden", action="store_true", help="write tests/golden anew")


@pytest.fixture(scope="session")
def photo() -> npt.NDArray[np.uint8]:
    """(512, 512, 3): a photograph of NASA's, public domain, from scikit-image's own files."""
    data = pytest.importorskip("skimage.data")
    return np.asarray(data.astronaut())


@pytest.fixture(scope="session", params=sorted(REGISTRY))
def tiny(request: pytest.FixtureRequest, photo: npt.NDArray[np.uint8]) -> Model:
    """A tiny model of every registered kind, in eval mode."""
    return make_tiny(request.param, photo)


@pytest.fixture(scope="session")
def tiny_light(photo: npt.NDArray[np.uint8]) -> Model:
    return make_tiny("light", photo)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
