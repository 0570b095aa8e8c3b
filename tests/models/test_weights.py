import copy
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch
from tiny import make_tiny

import lichen
from lichen.codec import identity_of
from lichen.errors import WeightsError
from lichen.models import REGISTRY, weights
from lichen.models.base import Model
from lichen.models.weights import (
    by_identity,
    identity,
    load,
    metadata_of,
    read,
    save,
    shared_default,
    shipped,
    shipped_state,
)

Photo = npt.NDArray[np.uint8]


def test_what_is_saved_is_read(tiny: Model, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save(tiny, path, half=True)
    again = read(path)
    assert again.name == tiny.name
    assert again.cfg == tiny.cfg
    assert not again.training
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in shipped_state(tiny).items())
    assert identity(again) == identity(tiny) == bytes.fromhex(metadata_of(path)["identity"])


def test_half_precision_says_what_it_saved(photo: Photo, tmp_path: Path) -> None:
    model = make_tiny("light", photo)
    with torch.no_grad():
        next(model.parameters()).add_(1e-5)  # no half can hold this
    before = identity(model)
    save(model, tmp_path / "w.safetensors", half=True)
    assert identity(model) != before  # the model in memory is now the one in the file
    assert identity(read(tmp_path / "w.safetensors")) == identity(model)


def test_files_name_the_weights_of_the_day(tiny_light: Model, photo: Photo) -> None:
    """A model whose weights change writes files of its new weights."""
    model, picture = copy.deepcopy(tiny_light), photo[:64, :64]
    assert identity_of(model) == identity(model) == identity_of(tiny_light)
    lichen.encode(picture, model=model)
    state = {k: v + 0.01 if k.startswith("g_a") else v for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    assert lichen.decode(lichen.encode(picture, model=model), model=model).size == (64, 64)
    assert identity_of(model) == identity(model) != identity_of(tiny_light)
    for change in (
        lambda: next(model.parameters()).detach().mul_(1.01),
        lambda: model.half().float(),
        *[lambda: [setattr(p, "data", p.detach() * 1.01) for p in model.parameters()]] * 3,
        lambda: model.load_state_dict(copy.deepcopy(state), assign=True),
    ):
        before = identity_of(model)
        change()
        assert identity_of(model) == identity(model) != before
        assert lichen.decode(lichen.encode(picture, model=model), model=model).size == (64, 64)
    with pytest.raises(WeightsError, match="training mode: call its eval"):
        lichen.encode(picture, model=model.train())
    with pytest.raises(WeightsError, match="training mode: call its eval"):
        lichen.decode(lichen.encode(picture, model=tiny_light), model=model)


def test_a_loaded_model_is_ones_own() -> None:
    mine = load()
    with torch.no_grad():
        next(mine.parameters()).mul_(2)
    assert identity(load()) != identity(mine)
    assert identity(by_identity(identity(load()))) == identity(load())


def test_reading_leaves_the_process_as_it_was_and_does_not_follow_it(tmp_path: Path, tiny_light: Model) -> None:
    save(tiny_light, tmp_path / "w.safetensors")
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), torch.inference_mode():
            found = read(tmp_path / "w.safetensors")
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.dtype == torch.float32 and p.device.type == "cpu" and not p.is_inference() for p in found.parameters())
    assert identity(found) == identity(tiny_light)


def test_identity_changes_with_any_weight(tiny_light: Model) -> None:
    before = identity(tiny_light)
    with torch.no_grad():
        tiny_light.prior.z_prior.mean[0] += 1
        changed = identity(tiny_light)
        tiny_light.prior.z_prior.mean[0] -= 1
    assert changed != before
    assert identity(tiny_light) == before


def test_files_that_are_no_weights(tmp_path: Path, tiny_light: Model) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(WeightsError, match="no weights at"):
        read(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="no file of weights"):
        read(path)
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))
    with pytest.raises(WeightsError, match="does not say which model"):
        read(path)
    metadata = {"model": "light", "config": "{}", "identity": "00"}
    path.write_bytes(safetensors.torch.save(dict(tiny_light.state_dict()), metadata))
    with pytest.raises(WeightsError, match="does not fit light"):
        read(path)
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}, {**metadata, "config": '{"width": 7}'}))
    with pytest.raises(WeightsError, match="does not fit light"):
        read(path)


def test_weights_that_ship() -> None:
    model = lichen.load()
    assert model.name == "light"
    assert lichen.load() is not model  # one's own
    assert shared_default() is shared_default()  # kept
    assert identity(lichen.load("light", preset="default")) == identity(model)
    with pytest.raises(WeightsError, match="no weights of light, preset small, come with this version"):
        lichen.load("light", preset="small")
    assert by_identity(identity(model)) is shared_default()
    for name, path in shipped().items():
        assert metadata_of(path)["model"] in REGISTRY
        assert read(path).name == metadata_of(path)["model"]
        assert name == identity(read(path)).hex() == metadata_of(path)["identity"]
    assert sum(p.stat().st_size for p in shipped().values()) < 40e6


def test_weights_for_another_objective(tiny_light: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned, other = copy.deepcopy(tiny_light), tmp_path / "other.safetensors"
    save(tuned, other)
    tuned.objective = "ms-ssim"
    with torch.no_grad():
        tuned.g_a.out.bias.add_(1.0)
    path = tmp_path / weights.file_name("light", tuned.objective)
    save(tuned, path)
    assert path.name == "light-ms-ssim.safetensors"
    assert read(path).objective == metadata_of(path)["objective"] == "ms-ssim"
    assert load(weights=path, objective="ms-ssim").objective == "ms-ssim"
    with pytest.raises(WeightsError, match="trained for mse, not for ms-ssim"):
        load(weights=other, objective="ms-ssim")
    with pytest.raises(WeightsError, match="no weights of minnen2018-scale for ms-ssim come with this version"):
        load("minnen2018-scale", objective="ms-ssim")
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    assert identity(load(objective="ms-ssim")) == identity(tuned)


def test_threads_that_come_together_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weights._read_once.cache_clear()
    reads = []

    def slow(path: Path) -> Model:
        reads.append(path)
        time.sleep(0.05)
        return read(path)

    monkeypatch.setattr(weights, "read", slow)
    name = bytes.fromhex(next(iter(shipped())))
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(by_identity, [name] * 4))
    assert len(reads) == 1 and len({id(m) for m in models}) == 1


def test_unknown_weights_are_asked_for() -> None:
    with pytest.raises(WeightsError, match="--weights"):
        by_identity(bytes(8))


def test_load_refuses_what_does_not_fit(tiny_light: Model, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save(tiny_light, path)
    assert load(weights=path).name == load("light", weights=path).name == "light"
    with pytest.raises(WeightsError, match="not of minnen2018-joint"):
        load("minnen2018-joint", weights=path)
    with pytest.raises(WeightsError, match="does not fit light"):
        load("light", state_dict={"a": torch.zeros(1)})
    with pytest.raises(WeightsError, match="no model is called"):
        load("heavy")
