import csv
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tiny
import tiny_training
import torch
from rich.console import Console
from torch import Tensor, nn

import lichen
from lichen.errors import LichenError
from lichen.layers.batch_norm import BatchNorm
from lichen.models import REGISTRY, create, hu2020, minnen2018
from lichen.models.base import Preset
from lichen.models.weights import identity, read
from lichen.training import loop
from lichen.training.config import ConfigError, TrainConfig, saved_config
from lichen.training.data import DataError
from lichen.training.loop import train

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
Configure = Callable[..., TrainConfig]
AT_RANDOM = "minnen2018-mean-scale"  # its weights start at random: much to learn


def quiet(**options: Any) -> Console:
    return Console(file=io.StringIO(), **options)


def rows(config: TrainConfig, split: str = "training") -> list[dict[str, str]]:
    with (Path(config.out) / "log.csv").open(newline="") as f:
        return [row for row in csv.DictReader(f) if row["split"] == split]


def weights(config: TrainConfig) -> bytes:
    """The averaged weights' identity."""
    return identity(read(Path(config.out) / "weights.safetensors"))


def checkpoint(config: TrainConfig) -> dict[str, Any]:
    return torch.load(Path(config.out) / "checkpoint.pt", weights_only=True)


# ---- What a training does --------------------------------------------------------------------------------------------


def test_the_loss_falls_and_the_weights_code(tiny_config: Configure, photo: npt.NDArray[np.uint8]) -> None:
    config, console = tiny_config("run", 150, log_every=50, model=AT_RANDOM), quiet()
    path = train(config, console=console)
    assert path == Path(config.out) / "weights.safetensors"
    first, last = rows(config, "held-out")
    assert (first["step"], last["step"]) == ("0", "150")
    assert float(last["loss"]) < 0.5 * float(first["loss"])
    assert [row["step"] for row in rows(config)] == ["50", "100", "150"]
    for row in rows(config):
        assert 0 <= float(row["waited"]) < 0.5
        assert float(row["mpx_per_second"]) > 0
    assert saved_config(config.out) == config
    model = read(path)
    decoded = lichen.decode(lichen.encode(photo[:64, :96], model=model), model=model)
    assert decoded.size == (96, 64)

    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(c.isprintable() for line in text.splitlines() for c in line)
    progress = [line for line in text.splitlines() if line.startswith("step ")]
    assert len(progress) == 3
    for word in ("loss", "bpp", "dB", "Mpx/s", "waiting", "left"):
        assert word in progress[0]


def test_tensorboard_has_numbers_and_pictures(tiny_config: Configure) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = tiny_config("run", 4, log_every=2)
    train(config, console=quiet())
    events = accumulator.EventAccumulator(str(Path(config.out) / "tensorboard"))
    events.Reload()
    assert {"training/loss", "training/waited", "held-out/psnr"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("training/bpp")] == [2, 4]
    image = events.Images("held-out/0")[-1]
    assert (image.width, image.height) == (2 * 192, 192)


def test_a_bar_on_a_terminal(tiny_config: Configure) -> None:
    console = quiet(force_terminal=True, width=120)
    train(tiny_config("run", 3), console=console)
    assert "Mpx/s" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[" in console.file.getvalue()  # type: ignore[attr-defined]


def test_by_minutes(tiny_config: Configure) -> None:
    config = dataclasses.replace(tiny_config("run", 1), steps=None, minutes=0.02)
    train(config, console=quiet())
    (row,) = rows(config)
    assert 1.0 < float(row["seconds"]) < 10.0
    assert int(row["step"]) == checkpoint(config)["step"] >= 1


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_model_trains_all_of_itself(name: str, tiny_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY[name].presets, "tiny", Preset(tiny.CONFIGS[name], ""))  # type: ignore[arg-type]
    config = dataclasses.replace(tiny_config("run", 5), model=name)  # enough to come through a paper's stages
    train(config, console=quiet())
    before, after = create(name, "tiny").state_dict(), checkpoint(config)["model"]
    assert before.keys() == after.keys()
    states = checkpoint(config)["optimizer"]["state"]
    trained = [p for p in create(name, "tiny").parameters() if p.requires_grad]
    assert len(states) == len(trained)  # each has had a gradient


# ---- Stopping and going on -------------------------------------------------------------------------------------------


def test_stop_and_resume_is_bit_identical(tiny_config: Configure) -> None:
    through = tiny_config("through", 12, log_every=4, rescale=1.5)
    train(through, console=quiet())
    paused = tiny_config("paused", 12, log_every=4, rescale=1.5, pause_after=1e-6)
    assert train(paused, console=quiet()) is not None
    assert checkpoint(paused)["step"] == 1
    for _ in range(3):
        train(saved_config(paused.out, {"pause_after": 1e-6}), resume=True, console=quiet())
    assert checkpoint(paused)["step"] == 4
    train(saved_config(paused.out), resume=True, console=quiet())  # a pause belongs to its run alone
    assert checkpoint(paused)["step"] == 12
    assert weights(paused) == weights(through)
    one, other = checkpoint(through), checkpoint(paused)
    for k, state in one["optimizer"]["state"].items():
        assert all(torch.equal(v, other["optimizer"]["state"][k][name]) for name, v in state.items())
    assert one["running"] == other["running"]
    for split in ("training", "held-out"):
        learned = [
            [{k: row[k] for k in ("step", "loss", "bpp", "psnr")} for row in rows(c, split)] for c in (through, paused)
        ]
        assert learned[0] == [row for row in learned[1] if row["step"] in ("0", "4", "8", "12")]


def test_other_pictures_and_another_checkpoint(tiny_config: Configure, folder: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(folder, pictures)
    config = dataclasses.replace(tiny_config("run", 5, pause_after=1e-6), data=[str(pictures)])
    train(config, console=quiet())
    remarks = []
    for _ in range(3):
        console = quiet()
        train(saved_config(config.out, {"pause_after": 1e-6}), resume=True, console=console)
        remarks.append("the pictures are not those it began with" in console.file.getvalue())  # type: ignore[attr-defined]
        if len(remarks) == 1:
            shutil.copy(pictures / "0.png", pictures / "one-more.png")
    assert remarks == [False, True, False]
    torch.save({**checkpoint(config), "model": {}}, Path(config.out) / "checkpoint.pt")
    with pytest.raises(LichenError, match="is not of this training"):
        train(saved_config(config.out), resume=True, console=quiet())


def test_a_finished_training_stays_as_it_is(tiny_config: Configure) -> None:
    config = tiny_config("run", 3)
    train(config, console=quiet())
    kept, log = weights(config), (Path(config.out) / "log.csv").read_text()
    train(saved_config(config.out), resume=True, console=quiet())
    assert weights(config) == kept
    assert (Path(config.out) / "log.csv").read_text() == log


def start(config: TrainConfig, *launcher: str, **fields: Any) -> subprocess.Popen[bytes]:
    """The same training in a process of its own, or in several."""
    command = [sys.executable, *launcher, tiny_training.__file__, config.out, *config.data, config.cache]
    given = [str(config.steps), *(f"{k}={json.dumps(v)}" for k, v in fields.items())]
    return subprocess.Popen([*command, *given], env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)


def wait_for_step(process: subprocess.Popen[bytes], config: TrainConfig, step: int) -> None:
    path, began = Path(config.out) / "log.csv", time.monotonic()
    while not path.exists() or not any(int(row["step"]) >= step for row in rows(config)):
        assert process.poll() is None and time.monotonic() - began < 120
        time.sleep(0.02)


def test_killed_and_resumed(tiny_config: Configure) -> None:
    config = tiny_config("run", 4000)
    with start(config, checkpoint_seconds=0.3, log_every=1) as process:
        wait_for_step(process, config, 15)
        began = time.monotonic()
        while checkpoint(config)["step"] == 0:  # that of the start
            assert process.poll() is None and time.monotonic() - began < 60
            time.sleep(0.05)
        process.kill()
    kept, logged = checkpoint(config), rows(config)
    assert 0 < kept["step"] < 4000
    # the log is ahead of the checkpoint by no more than the seconds between two of these, and some for slow machines
    assert float(logged[-1]["seconds"]) - kept["seconds"] < 0.3 + 5.0

    resumed = saved_config(config.out)
    assert resumed.steps == 4000
    (Path(config.out) / ".lichen-0123456789abcdef.part").write_text("what a kill in the middle of writing leaves")
    until = kept["step"] + 5
    shorter = dataclasses.replace(resumed, steps=until, schedule="constant", warmup=0)
    train(shorter, resume=True, console=quiet())
    assert checkpoint(config)["step"] == until
    steps = [int(row["step"]) for row in rows(config)]
    assert steps == list(range(1, until + 1))  # what the killed run logged beyond its checkpoint is gone
    assert not list(Path(config.out).glob("*.part")) + list(Path(config.out).glob(".*.part"))


def test_interrupted_it_writes_a_checkpoint(tiny_config: Configure) -> None:
    config = tiny_config("run", 4000)
    with start(config, log_every=1) as process:
        wait_for_step(process, config, 3)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    assert process.returncode != 0
    step = checkpoint(config)["step"]
    assert step >= 3
    assert f"stopped at step {step}: go on with --out {config.out} --resume" in error.decode()


def test_signals_are_left_alone_outside_the_main_thread(tiny_config: Configure) -> None:
    config, found = tiny_config("run", 2), []
    thread = threading.Thread(target=lambda: found.append(train(config, console=quiet())))
    thread.start()
    thread.join(60)
    assert found == [Path(config.out) / "weights.safetensors"]


# ---- Several processes -----------------------------------------------------------------------------------------------


def test_two_processes_learn_what_one_does(tiny_config: Configure) -> None:
    fields = {"model": AT_RANDOM, "log_every": 10, "lr": 1e-3}
    alone, shared = tiny_config("alone", 60, **fields, batch=8), tiny_config("shared", 60, **fields, batch=4)
    with start(shared, *TORCHRUN, **fields, batch=4) as process:
        _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error.decode()
    assert b"Grad strides do not match" not in error
    assert error.count(b"held-out at step 60") == 1  # one of them speaks
    train(alone, console=quiet())
    assert [row["step"] for row in rows(shared)] == [row["step"] for row in rows(alone)]
    assert float(rows(alone)[-1]["loss"]) < 0.7 * float(rows(alone)[0]["loss"])
    for split, noise in (("training", 0.15), ("held-out", 0.05)):
        for one, two in zip(rows(alone, split), rows(shared, split), strict=True):
            assert float(two["loss"]) == pytest.approx(float(one["loss"]), rel=noise)

    console = quiet()
    train(saved_config(shared.out), resume=True, console=console)
    assert "in 2 processes of 4 crops a step and goes on in 1" in console.file.getvalue()  # type: ignore[attr-defined]


def test_two_processes_train_in_stages(tiny_config: Configure) -> None:
    """Weights that have no part in some steps."""
    config = tiny_config("run", 5, model="hu2020")
    with start(config, *TORCHRUN, model="hu2020") as process:
        _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error.decode()
    assert checkpoint(config)["step"] == 5


# ---- Objectives and starts -------------------------------------------------------------------------------------------


def test_fine_tuning_for_ms_ssim(tiny_config: Configure) -> None:
    first = tiny_config("mse", 60)
    train(first, console=quiet())
    tuned = tiny_config(
        "ms-ssim", 60, objective="ms-ssim", crop=192, batch=2, start=str(Path(first.out) / "weights.safetensors")
    )
    train(tuned, console=quiet())
    before, after = rows(tuned, "held-out")
    assert float(before["bpp"]) == pytest.approx(float(rows(first, "held-out")[-1]["bpp"]), rel=1e-3)
    assert float(after["loss"]) < 0.97 * float(before["loss"])
    assert 3 < float(before["ms_ssim"]) < 30  # dB
    assert rows(first, "held-out")[-1]["ms_ssim"] == ""
    back = tiny_config("back", 1, start=str(Path(tuned.out) / "weights.safetensors"))
    train(back, console=quiet())
    assert float(rows(back, "held-out")[0]["bpp"]) == pytest.approx(float(after["bpp"]), rel=1e-3)


class Own(minnen2018.Minnen2018):
    """A model with an objective of its own, which grows with time, and with what else a paper may bring."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.norm, self.ours = nn.BatchNorm2d(3), BatchNorm(3)
        self.done: list[float] = []
        self.dtypes: set[torch.dtype] = set()
        self.states: list[tuple[bool, bool]] = []

    def own_loss(self, x: Tensor, quality: Any, lmbda: Tensor, done: float) -> tuple[Tensor, Tensor, Tensor]:
        self.done.append(done)
        x_hat, bits = self(x, quality)
        x_hat = x_hat + 0 * (self.norm(x) + self.ours(x))
        self.states.append((self.norm.training, self.ours.training))
        self.dtypes.add(self.g_a[0](x).dtype)
        bpp = sum(bits.values()) / x[0, 0].numel()
        return ((x_hat - x).abs().mean() * 100 + bpp.mean()) * (1 + done), bpp, x_hat


def test_a_loss_of_its_own(tiny_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Own] = []

    def build(cfg: Any) -> Own:
        made.append(Own(cfg))
        return made[-1]

    monkeypatch.setitem(REGISTRY, AT_RANDOM, dataclasses.replace(REGISTRY[AT_RANDOM], build=build))
    config = tiny_config("own", 40, model=AT_RANDOM, precision="bf16-mixed", log_every=5)
    train(config, console=quiet())
    logged = rows(config)
    assert float(logged[-1]["loss"]) / 2 < 0.7 * float(logged[1]["loss"])  # twice as heavy at the end
    trained = next(m for m in made if len(m.done) == 40)
    assert trained.done == [k / 40 for k in range(40)]
    assert trained.dtypes == {torch.bfloat16}
    assert set(trained.states) == {(True, True)}
    assert any(set(m.states) == {(False, False)} for m in made)  # validation, as in use
    state = read(Path(config.out) / "weights.safetensors").state_dict()
    assert int(state["norm.num_batches_tracked"]) == 40  # counted by training alone, not by validation


def test_weights_to_begin_with_have_gone_through_the_stages(
    tiny_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[float] = []
    staged = hu2020.Hu2020.staged
    monkeypatch.setattr(hu2020.Hu2020, "staged", lambda *given: (stages.append(given[3]), staged(*given))[1])
    config = tiny_config("staged", 3, model="hu2020")
    train(config, console=quiet())
    assert stages[0] == 0.0
    assert stages[-1] == 1.0
    stages.clear()
    begun = tiny_config("begun", 2, model="hu2020", start=str(Path(config.out) / "weights.safetensors"))
    train(begun, console=quiet())
    assert set(stages) == {1.0}
    tuned = tiny_config("tuned", 2, model="hu2020", start=begun.start, objective="ms-ssim", crop=192)
    train(tuned, console=quiet())
    assert read(Path(tuned.out) / "weights.safetensors").objective == "ms-ssim"
    assert read(Path(begun.out) / "weights.safetensors").objective == "mse"


# ---- Errors ----------------------------------------------------------------------------------------------------------


def test_a_folder_with_a_training_is_not_overwritten(tiny_config: Configure) -> None:
    config = tiny_config("run", 2)
    train(config, console=quiet())
    kept = weights(config)
    with pytest.raises(ConfigError, match="holds a training already: go on with it"):
        train(config, console=quiet())
    assert weights(config) == kept


def test_checkpoints_that_are_missing_or_broken(tiny_config: Configure) -> None:
    config = tiny_config("run", 2)
    train(config, console=quiet())
    path = Path(config.out) / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(LichenError, match="cannot be read"):
        train(config, resume=True, console=quiet())
    path.unlink()
    with pytest.raises(LichenError, match="there is no checkpoint"):
        train(config, resume=True, console=quiet())


def test_a_folder_that_cannot_be_made(tiny_config: Configure, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        train(tiny_config("file/run", 2), console=quiet())


def test_crops_that_a_model_cannot_take(tiny_config: Configure) -> None:
    with pytest.raises(DataError, match="light takes no crops of 100: --crop has to be a multiple of 64"):
        train(tiny_config("run", 2, crop=100), console=quiet())
    with pytest.raises(DataError, match="smaller than a crop of 320x320"):
        train(tiny_config("other", 2, crop=320), console=quiet())


def test_gradients_that_stay_infinite(tiny_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.TrainingLoss, "forward", lambda self, x, *_: broken(self, x))
    monkeypatch.setattr(loop, "validate", lambda *_: ({"loss": 0.0, "bpp": 0.0, "psnr": 0.0}, (torch.zeros(0),) * 2))

    def broken(self: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loss = sum(p.sum() for p in self.parameters()) * float("inf")
        return loss, torch.ones(len(x)), x

    with pytest.raises(LichenError, match=r"21 steps in a row gave no finite gradient: lower the rate \(--lr\)"):
        train(tiny_config("run", 50), console=quiet())


def test_config_file_is_plain_json(tiny_config: Configure) -> None:
    config = tiny_config("run", 2)
    train(config, console=quiet())
    saved = json.loads((Path(config.out) / "config.json").read_text(), parse_constant=lambda c: pytest.fail(c))
    assert saved["steps"] == 2
    assert saved["preset"] == "tiny"
