import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lichen.cli import main, parser
from lichen.models.weights import identity, read
from lichen.training.config import TrainConfig, option, saved_config


@pytest.fixture
def given(folder: Path, cache: Path, tmp_path: Path, tiny_config: Callable[..., TrainConfig]) -> list[str]:
    """The options of a training of 3 steps."""
    del tiny_config  # registers the preset
    where = ["--data", str(folder), "--out", str(tmp_path / "run"), "--cache", str(cache)]
    return [
        "train",
        *where,
        "--preset",
        "tiny",
        "--steps",
        "3",
        "--batch",
        "2",
        "--crop",
        "64",
        "--precision",
        "32-true",
    ]


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one sentence with which a command is refused."""
    capsys.readouterr()
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("lichen: ")
    assert error.count("\n") == 1
    return error


def test_train_resume_and_begin_with_weights(given: list[str], tmp_path: Path, capsys: Any) -> None:
    assert main([*given, "--lr", "0.003", "--seed", "4"]) == 0
    written = tmp_path / "run" / "weights.safetensors"
    out, error = capsys.readouterr()
    assert out == f"weights: {written}\n"
    assert "held-out at step 3" in error
    config = saved_config(tmp_path / "run")
    assert (config.lr, config.seed, config.batch, config.steps, config.minutes) == (0.003, 4, 2, 3, None)
    kept = identity(read(written))

    assert main(["train", "--resume", "--out", str(tmp_path / "run")]) == 0
    assert identity(read(written)) == kept
    assert main([*given, "--resume", "--lr", "0.003"]) == 0  # the same said again
    assert "--lr 0.5 contradicts" in refused(capsys, [*given, "--resume", "--lr", "0.5"])
    assert "holds a training already" in refused(capsys, given)

    other = [*given, "--out", str(tmp_path / "other"), "--weights", str(written)]
    other[other.index("--steps") + 1] = "1"
    assert main(other) == 0
    assert saved_config(tmp_path / "other").start == str(written)


def test_a_paused_training_goes_on(given: list[str], tmp_path: Path, capsys: Any) -> None:
    assert main([*given, "--pause-after", "1e-6"]) == 0
    assert "stopped at step 1: go on with" in capsys.readouterr().err
    assert main(["train", "--out", str(tmp_path / "run"), "--resume", "--pause-after", "9"]) == 0
    assert "held-out at step 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "/nowhere"], "/nowhere is no folder"),
        (["--crop", "512"], "smaller than a crop of 512"),
        (["--crop", "100"], "multiple of 64"),
        (["--objective", "ms-ssim"], "--crop 192"),
        (["--model", "nothing"], "no model is called nothing"),
        (["--preset", "nothing"], "light has no preset nothing"),
        (["--recipe", "paper"], "comes from no paper"),
        (["--weights", "/nowhere"], "there are no weights at /nowhere"),
        (["--batch", "0"], "above 0"),
        (["--resume"], "train without --resume first"),
    ],
)
def test_refusals(given: list[str], options: list[str], message: str, capsys: Any, tmp_path: Path) -> None:
    assert message in refused(capsys, [*given, *options])
    assert not (tmp_path / "run" / "config.json").exists()


def test_what_is_missing(tmp_path: Path, capsys: Any) -> None:
    assert "--data is missing" in refused(capsys, ["train", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as e:
        main(["train", "--data", "x"])
    assert e.value.code == 2
    with pytest.raises(SystemExit) as e:
        main(["train", "--data", "x", "--out", "y", "--minutes", "1", "--steps", "2"])
    assert e.value.code == 2


def train_parser() -> argparse.ArgumentParser:
    action = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    found: argparse.ArgumentParser = action.choices["train"]
    return found


def test_options_are_the_configurations_fields() -> None:
    actions = {a.dest: a for a in train_parser()._actions if a.dest not in ("help", "resume")}
    assert actions.keys() <= TrainConfig.__dataclass_fields__.keys()
    assert all(a.option_strings == [option(name)] for name, a in actions.items())
    values = {"data": ["d"], "compile": True}
    for name, a in actions.items():
        values.setdefault(name, a.choices[-1] if a.choices else a.type("64") if a.type else "text")  # type: ignore
    del values["minutes"]
    TrainConfig(**{**values, "objective": "mse"})  # type: ignore[arg-type]


def test_torchrun_leaves_the_options_alone() -> None:
    run = pytest.importorskip("torch.distributed.run")
    options = [a.option_strings[0] for a in train_parser()._actions]
    given = ["--nproc-per-node", "2", "-m", "lichen", "train", *(o for name in options for o in (name, "1"))]
    arguments = run.get_args_parser().parse_args(given)
    assert arguments.training_script == "lichen"
    assert arguments.training_script_args == given[4:]


def test_the_configuration_is_readable(given: list[str], tmp_path: Path) -> None:
    assert main(given) == 0
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved.keys() == TrainConfig.__dataclass_fields__.keys()
