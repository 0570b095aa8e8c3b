"""Photographs, tiny models of every kind, and the switch that writes golden files anew."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tiny_training
import torch
from PIL import Image
from tiny import make_tiny

from lichen.models import REGISTRY
from lichen.models.base import Model
from lichen.training.config import TrainConfig

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


# ---- Stores and clusters ---------------------------------------------------------------------------------------------


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder of fsspec's store in memory."""
    fs = pytest.importorskip("fsspec").filesystem("memory")
    yield "memory://pictures"
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[None]:
    """A store of this process that speaks S3. Processes that start from now on find it too."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        patch.setenv("AWS_ACCESS_KEY_ID", "none")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "none")
        yield
    server.stop()


@pytest.fixture
def s3(s3_server: None) -> str:
    """A new bucket."""
    import fsspec

    url = f"s3://pictures-{secrets.token_hex(4)}"
    fsspec.filesystem("s3").mkdir(url)
    return url


# ---- Training --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def folder(photo: npt.NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of 192x192, cut from the photograph."""
    folder = tmp_path_factory.mktemp("pictures")
    for k in range(4):
        i, j = divmod(k, 2)
        Image.fromarray(photo[256 * i :, 256 * j :][:192, :192]).save(folder / f"{k}.png")
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where training keeps decoded pictures."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny_config(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., TrainConfig]:
    """(out, steps, **fields) -> the configuration of a training, by default of the default model's preset `tiny`."""
    for model, preset in tiny_training.TINY.items():
        monkeypatch.setitem(REGISTRY[model].presets, "tiny", preset)  # type: ignore[arg-type]

    def make(out: str, steps: int, **fields: Any) -> TrainConfig:
        return tiny_training.config(str(tmp_path / out), str(folder), str(cache), steps, **fields)

    return make
