from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import train_small

from lichen.cli import main
from lichen.models import REGISTRY
from lichen.models.weights import metadata_of, read
from lichen.training.config import TrainConfig


@pytest.fixture
def ran(tiny_config: Callable[..., TrainConfig], cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the script ran, in this process and with tiny presets."""
    del tiny_config  # registers presets
    commands: list[list[str]] = []

    def run(line: list[str], env: Any, stdout: Any, stderr: Any) -> Any:
        assert stdout.name == stderr.name
        assert env["OMP_NUM_THREADS"] == "1"
        commands.append(line)
        options = line[line.index("lichen") + 1 :]
        return SimpleNamespace(returncode=main([*options, "--cache", str(cache), "--precision", "32-true"]))

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr(train_small, "SETTINGS", {"steps": 3, "batch": 4, "crop": 64, "lr": 1e-3})
    return commands


def finish(name: str, folder: Path, tmp_path: Path) -> bool:
    return train_small.finish(name, "tiny", [str(folder)], tmp_path / "work", tmp_path / "into")


def test_trains_once_resumes_and_refuses_others(
    ran: list[list[str]], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "minnen2018-mean-scale"
    assert finish(name, folder, tmp_path)
    (line,) = ran
    assert line[line.index("--batch") + 1] == "4"
    assert "--resume" not in line
    target = tmp_path / "into" / f"{name}-tiny.safetensors"
    assert metadata_of(target)["model"] == name
    for p in read(target).parameters():
        assert bool((p == p.half().float()).all())

    assert finish(name, folder, tmp_path)  # there already
    target.unlink()
    assert finish(name, folder, tmp_path)  # trained already
    assert target.exists()
    assert len(ran) == 1

    train_small.SETTINGS["steps"] = 4
    assert not finish(name, folder, tmp_path)  # another training than the one that is there
    assert ran[-1][-1] == "--resume"


def test_fine_tuning_begins_with_the_weights_that_are_there(
    ran: list[list[str]], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_small, "MS_SSIM", {**train_small.MS_SSIM, "steps": 2})
    name = "minnen2018-mean-scale"
    assert finish(name, folder, tmp_path)
    assert train_small.finish(name, "tiny", [str(folder)], tmp_path / "work", tmp_path / "into", True)
    begun = tmp_path / "into" / f"{name}-tiny.safetensors"
    assert ran[-1][ran[-1].index("--weights") + 1] == str(begun)
    assert read(begun).objective == "mse"
    tuned = read(tmp_path / "into" / f"{name}-tiny-ms-ssim.safetensors")
    assert tuned.objective == "ms-ssim"
    for p in tuned.parameters():
        assert bool((p == p.half().float()).all())


def test_the_command_of_a_training() -> None:
    line = train_small.command("light", "small", {"steps": 3, "batch": 3, "crop": 64}, ["a", "b"], Path("nowhere"))
    options = "--model light --preset small --data a b --out nowhere --steps 3 --batch 3 --crop 64"
    assert line[line.index("train") + 1 :] == options.split()


def test_names_of_files() -> None:
    assert train_small.file_name("minnen2018-joint", "small") == "minnen2018-joint.safetensors"
    assert train_small.file_name("minnen2018-joint", "low") == "minnen2018-joint-low.safetensors"
    assert train_small.file_name("light", "small") == "light-small.safetensors"  # light's own name is the default's
    assert train_small.chosen("hu2020:small-plain") == ("hu2020", "small-plain")
    assert train_small.chosen("light") == ("light", "small")
    with pytest.raises(SystemExit, match="has no preset nothing"):
        train_small.chosen("light:nothing")


def test_all_models_have_a_small_preset(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    done: list[tuple[Any, ...]] = []
    monkeypatch.setattr(train_small, "finish", lambda *given: done.append(given) or given[0] != "light")
    monkeypatch.setattr("sys.argv", ["train_small", "--data", "d", "--work", "w", "--into", "i"])
    assert train_small.main() == 1
    assert {name for name, *_ in done} == {name for name in REGISTRY if "small" in REGISTRY[name].presets}
    assert capsys.readouterr().out == "not done: light\n"
