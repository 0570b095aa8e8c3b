"""What has to be done for files, folders and URLs, and doing it with workers of several kinds."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lichen import batch, places
from lichen.batch import Job, Outcome, Plan, UsageError
from lichen.errors import PictureError


def plan(*inputs: str | Path, output: str | Path | None = None, force: bool = False, renew: bool = True) -> Plan:
    return batch.plan([str(i) for i in inputs], output and str(output), ".lichen", {".png", ".jpg"}, force, renew)


def pairs(todo: Plan) -> list[tuple[str, str]]:
    return [(job.source, job.target) for job in todo.jobs]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.png", "b.jpg", "sub/a.png", "notes.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "photos"


# ---- what has to be done ---------------------------------------------------------------------------------------------


def test_a_folder_keeps_its_folders(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    todo = plan(photos, output=out)
    names = ["a.png", "b.jpg", "sub/a.png"]
    assert pairs(todo) == [(str(photos / n), str((out / n).with_suffix(".lichen"))) for n in names]
    assert [job.bytes for job in todo.jobs] == [5, 5, 9]
    assert todo.many and not todo.refused and not todo.done
    assert pairs(plan(photos / "**" / "a.png", output=out)) == [
        (str(photos / "a.png"), str(out / "a.lichen")),
        (str(photos / "sub" / "a.png"), str(out / "sub" / "a.lichen")),
    ]
    assert [t for _, t in pairs(plan(photos))] == [str((photos / n).with_suffix(".lichen")) for n in names]


def test_a_folder_of_a_url(photos: Path, memory: str) -> None:
    todo = plan(photos.as_uri(), output=memory)
    assert pairs(todo) == [
        ((photos / "a.png").as_uri(), "memory://pictures/a.lichen"),
        ((photos / "b.jpg").as_uri(), "memory://pictures/b.lichen"),
        ((photos / "sub" / "a.png").as_uri(), "memory://pictures/sub/a.lichen"),
    ]


def test_one_file_goes_to_a_file_or_into_a_folder(photos: Path, tmp_path: Path) -> None:
    source = photos / "a.png"
    (tmp_path / "there").mkdir()
    for output, target in [("new", "new"), ("there", "there/a.lichen"), ("new/", "new/a.lichen"), (None, None)]:
        expected = tmp_path / target if target else source.with_suffix(".lichen")
        assert pairs(plan(source, output=output and f"{tmp_path}/{output}")) == [(str(source), str(expected))]


def test_done_is_what_is_there_and_not_older(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    for name, age in [("a", -10), ("b", 0), ("sub/a", 10)]:
        target = out / f"{name}.lichen"
        target.touch()
        source = next(photos.glob(f"{name}.*"))
        os.utime(target, (0, source.stat().st_mtime + age))
    todo = plan(photos, output=out)
    assert (todo.done, [Path(s).name for s, _ in pairs(todo)], todo.refused) == (2, ["a.png"], [])
    assert len(plan(photos, output=out, force=True).jobs) == 3
    kept = plan(photos, output=out, renew=False)
    assert (kept.done, kept.jobs, [Path(s).name for s, _ in kept.refused]) == (2, [], ["a.png"])
    assert "a.lichen is older, perhaps what it was made of" in kept.refused[0][1]
    assert len(plan(photos, output=out, renew=False, force=True).jobs) == 3
    alone = plan(photos / "b.jpg", output=out)
    assert not alone.jobs and not alone.done
    assert "--force" in alone.refused[0][1]
    assert len(plan(photos / "b.jpg", output=out, force=True).jobs) == 1


def test_a_folder_where_a_file_shall_be(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "a.lichen").mkdir(parents=True)
    for force in (False, True):
        todo = plan(photos / "*.png", output=tmp_path / "out", force=force)
        assert [(Path(s).name, "is a folder" in sentence) for s, sentence in todo.refused] == [("a.png", True)]
        assert not todo.done


def test_clocks_of_whole_seconds(photos: Path) -> None:
    """Stores and some disks cut fractions off: what was written in the source's second is done."""
    source, target = photos / "a.png", photos / "a.lichen"
    target.touch()
    os.utime(source, (0, 1000.7))
    for written, done in [(1000, 1), (999, 0), (1000.6, 0), (1000.8, 1)]:
        os.utime(target, (0, written))
        assert plan(photos / "a*.png").done == done


def test_done_in_a_store(photos: Path, memory: str) -> None:
    places.write(f"{memory}/a.lichen", b"1")
    places.write(f"{memory}/sub/a.lichen", b"1")
    assert [t for _, t in pairs(plan(photos, output=memory))] == [f"{memory}/b.lichen"]
    os.utime(photos / "a.png", (2e10, 2e10))
    assert [t for _, t in pairs(plan(photos, output=memory))] == [f"{memory}/a.lichen", f"{memory}/b.lichen"]


@pytest.mark.parametrize("force", [False, True])
def test_inputs_are_never_written_over(photos: Path, force: bool) -> None:
    """Not by their own name, nor by another name of the same file."""
    (photos / "c.lichen").hardlink_to(photos / "notes.txt")
    (photos / "b.lichen").symlink_to(photos / "b.jpg")
    (photos / "a.lichen").touch()
    os.utime(photos / "a.lichen", (0, 0))
    os.utime(photos / "b.jpg", (2e10, 2e10))
    todo = plan(photos, photos / "notes.txt", photos / "c.txt", force=force)
    assert [source for source, sentence in todo.refused if "is an input" in sentence] == [
        str(photos / "b.jpg"),
        str(photos / "c.txt"),
    ]
    assert str(photos / "a.png") in [s for s, _ in pairs(todo)]
    assert not plan(photos / "a.png", output=photos / "a.png", force=force).jobs


def test_inputs_of_a_store_are_never_written_over(memory: str) -> None:
    places.write(f"{memory}/a.png", b"1")
    todo = plan("memory:///pictures/a.png", output="memory://pictures/a.png", force=True)
    assert not todo.jobs and "is an input" in todo.refused[0][1]


def test_one_target_however_it_is_spelled(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "a.jpg").touch()
    (photos / "linked").symlink_to(photos)
    monkeypatch.chdir(photos)
    for other in (photos / "a.jpg", "sub/../a.jpg", "linked/a.jpg", (photos / "a.jpg").as_uri()):
        with pytest.raises(UsageError, match="both become"):
            plan("a.png", other)


def test_an_empty_name_is_not_this_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    for arguments in (("",), ("a.png", "")):
        with pytest.raises(UsageError, match="an empty name"):
            plan(*arguments)
    with pytest.raises(UsageError, match="an empty name"):
        plan("a.png", output="")


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="a device of Unix")
def test_devices_are_not_overwritten(photos: Path) -> None:
    assert pairs(plan(photos / "a.png", output="/dev/null")) == [(str(photos / "a.png"), "/dev/null")]


def test_outputs_that_collide(photos: Path, tmp_path: Path) -> None:
    """Among single files nothing is done; in a folder the other files are."""
    (photos / "a.jpg").touch()
    with pytest.raises(UsageError, match="both become"):
        plan(photos / "a.png", photos / "a.jpg")
    todo = plan(photos, output=tmp_path / "out")
    assert [Path(s).name for s, _ in pairs(todo)] == ["a.jpg", "b.jpg", "a.png"]
    assert [(source, "both become" in sentence) for source, sentence in todo.refused] == [(str(photos / "a.png"), True)]
    twice = plan(photos, photos / "*.png")  # the same again is no collision
    assert len(twice.jobs) == 3


@pytest.mark.parametrize(
    ("inputs", "output", "word"),
    [
        (["-", "a.png"], None, "standard input has no name"),
        (["-", "a.png"], "out", "standard input has no name"),
        (["-"], "new/", "standard input has no name"),
        (["a.png", "b.png"], "-", "through one stream"),
        (["a.png", "b.png"], "photos/notes.txt", "need a folder"),
        (["photos"], "photos/notes.txt", "need a folder"),
    ],
)
def test_unclear_outputs(
    photos: Path, inputs: list[str], output: str | None, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    with pytest.raises(UsageError, match=word):
        plan(*inputs, output=output)


def test_streams() -> None:
    assert pairs(plan("-")) == [("-", "-")]
    assert pairs(plan("-", output="a.lichen")) == [("-", "a.lichen")]
    assert pairs(plan("a.png", output="-")) == [("a.png", "-")]


def test_nothing_found(photos: Path) -> None:
    todo = plan(photos / "*.gif", photos / "sub")
    assert [source for source, _ in todo.refused] == [str(photos / "*.gif")]
    (photos / "empty").mkdir()
    assert plan(photos / "empty") == Plan(many=True)


def test_keys_that_lead_out_of_the_folder_are_refused(tmp_path: Path, memory: str) -> None:
    places.write(f"{memory}/a.png", b"1")
    places.write(f"{memory}/../../evil.png", b"1")
    todo = plan(memory, output=tmp_path)
    assert [Path(t).name for _, t in pairs(todo)] == ["a.lichen"]
    assert "leads out" in todo.refused[0][1]


# ---- doing it --------------------------------------------------------------------------------------------------------


def reverse(source: str | bytes, target: str) -> tuple[bytes, Sequence[str]]:
    """Work that is quick to check; contents that begin with "no" are refused."""
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    if data.startswith(b"no"):
        raise PictureError("it says no")
    return data[::-1], ["a note"] if target.endswith("b.lichen") else ()


class Remote(batch.Threads):
    """Threads that do as if they could not see this machine's files."""

    remote = True

    def submit(self, function: Any, *arguments: Any) -> Any:
        _, job, data, _ = arguments
        assert places.is_url(job.source) == (data is None)
        return super().submit(function, *arguments)


WORKERS = [batch.Here, lambda: batch.Threads(3), lambda: Remote(2)]


def run(jobs: Sequence[Job], workers: Any, asked: threading.Event | None = None) -> dict[str, Outcome]:
    outcomes = list(batch.run(jobs, reverse, workers, asked or threading.Event()))
    workers.finish()
    return {o.job.source: o for o in outcomes}


@pytest.mark.parametrize("workers", WORKERS)
def test_all_jobs_have_an_outcome(photos: Path, tmp_path: Path, memory: str, workers: Any) -> None:
    for i in range(20):
        (photos / f"{i}.png").write_text(f"picture {i}")
    (photos / "none.png").write_text("no picture")
    todo = plan(photos, output=tmp_path / "out")
    outcomes = run(todo.jobs, workers())
    assert len(outcomes) == len(todo.jobs) == 24
    assert [(s, o.error) for s, o in outcomes.items() if o.error] == [(str(photos / "none.png"), "it says no")]
    for job in todo.jobs:
        if outcomes[job.source].error is None:
            assert Path(job.target).read_bytes() == Path(job.source).read_bytes()[::-1]
            assert outcomes[job.source].after == Path(job.target).stat().st_size
            assert outcomes[job.source].data is None
    assert [s for s, o in outcomes.items() if o.notes] == [str(photos / "b.jpg")]
    written = sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert written == sorted(Path(j.target).name for j in todo.jobs if "none" not in j.target)

    todo = plan(photos, output=memory)
    assert sum(o.error is None for o in run(todo.jobs, workers()).values()) == 23
    assert plan(photos, output=memory).done == 23
    back = plan(memory + "/*", output=tmp_path / "back")
    assert not back.jobs  # no .png among them
    back = batch.plan([memory], str(tmp_path / "back"), ".png", {".lichen"}, False)
    run(back.jobs, workers())
    assert (tmp_path / "back" / "sub" / "a.png").read_bytes() == b"sub/a.png"


@pytest.mark.parametrize("workers", WORKERS)
def test_files_that_cannot_be_read_or_written(photos: Path, tmp_path: Path, workers: Any) -> None:
    """A sentence with the file's name, and the others go on."""
    (tmp_path / "file").touch()
    jobs = [
        Job(str(photos / "missing.png"), str(tmp_path / "out" / "m.lichen")),
        Job((photos / "missing.png").as_uri(), str(tmp_path / "out" / "m.lichen")),
        Job(str(photos / "a.png"), str(tmp_path / "file" / "a.lichen")),
        Job(str(photos / "b.jpg"), str(tmp_path / "out" / "b.lichen")),
    ]
    outcomes = run(jobs, workers())
    assert "No such file" in (outcomes[jobs[0].source].error or "") and "missing.png" in outcomes[jobs[0].source].error
    assert "cannot be read" in (outcomes[jobs[1].source].error or "")
    assert str(tmp_path / "file") in (outcomes[jobs[2].source].error or "")
    assert outcomes[jobs[3].source].error is None
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b.lichen"]


@pytest.mark.parametrize("workers", WORKERS)
def test_no_more_jobs_begin_once_asked_to_stop(photos: Path, tmp_path: Path, workers: Any) -> None:
    for i in range(40):
        (photos / f"{i}.png").write_text(f"picture {i}")
    todo = plan(photos, output=tmp_path / "out")
    asked, them, outcomes = threading.Event(), workers(), []
    for outcome in batch.run(todo.jobs, reverse, them, asked):
        outcomes.append(outcome)
        asked.set()
    them.finish()
    assert 1 <= len(outcomes) <= 2 * them.workers
    assert len([p for p in (tmp_path / "out").rglob("*") if p.is_file()]) == len(outcomes)
    assert plan(photos, output=tmp_path / "out").done == len(outcomes)


def test_streams_are_read_and_written_here(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"abc")))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=written))
    assert run([Job("-", "-")], batch.Here())["-"].error is None
    assert written.getvalue() == b"cba"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory")])
def test_too_little_memory_is_a_sentence(photos: Path, tmp_path: Path, error: Exception) -> None:
    def work(source: str | bytes, target: str) -> tuple[bytes, Sequence[str]]:
        raise error

    (outcome,) = batch.run([Job(str(photos / "a.png"), "-")], work, batch.Here(), threading.Event())
    assert "--jobs 1" in (outcome.error or "")


def test_mistakes_of_the_program_are_not_hidden(photos: Path) -> None:
    def work(source: str | bytes, target: str) -> tuple[bytes, Sequence[str]]:
        raise RuntimeError("a mistake")

    for workers in (batch.Here(), batch.Threads(2)):
        with pytest.raises(RuntimeError, match="a mistake"):
            list(batch.run([Job(str(photos / "a.png"), "-")], work, workers, threading.Event()))
        workers.finish()
