"""A Ray cluster of two nodes, both on this machine: pictures encoded, codecs measured, and a node killed on the way."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import lichen
from lichen import batch, places
from lichen.batch import Outcome
from lichen.benchmark import codecs, runner
from lichen.benchmark.store import Store
from lichen.cli import main
from lichen.cli.encode import Encoding
from lichen.cluster import Cluster, ClusterError
from lichen.errors import PictureError

Photo = npt.NDArray[np.uint8]

MEMORY = 100 * 2**20  # bytes, of a node's store of objects


@pytest.fixture(scope="module")
def nodes(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Of one core each. They know the store that speaks S3, if there is one; this process is connected to them."""
    with contextlib.suppress(pytest.skip.Exception):
        request.getfixturevalue("s3_server")
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster as Nodes

    found = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": MEMORY})
    found.add_node(num_cpus=1, object_store_memory=MEMORY)
    ray.init(found.address, log_to_driver=False, logging_level=logging.ERROR)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture
def pictures(tmp_path: Path, photo: Photo) -> Path:
    """Twelve, in two folders."""
    for i in range(12):
        path = tmp_path / "pictures" / ("odd" if i % 2 else ".") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(photo[i * 16 : i * 16 + 256, :320])).save(path)
    return tmp_path / "pictures"


def files(folder: Path) -> list[str]:
    """All of them, hidden ones too."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def check(pictures: Path, out: Path) -> None:
    """Every picture's file is there, whole, as one process would have written it; and nothing else is."""
    sources = [name for name in files(pictures) if name.endswith(".png")]
    assert files(out) == sorted(name.replace(".png", ".lichen") for name in sources)
    for name in sources:
        assert (out / name.replace(".png", ".lichen")).read_bytes() == lichen.encode(pictures / name, 30)


def test_a_folder(nodes: Any, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through this process, there and back; what is broken is told of, and what is done stays."""
    (pictures / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    command = ["encode", str(pictures), "-q", "30", "-o", str(out), "--cluster", nodes.address]
    assert main(command) == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        f"lichen: {pictures / 'broken.png'}: the data is no picture that Pillow can read: convert it to PNG first"
    ]
    assert "12 files " in said.out and "1 file failed" in said.out
    (pictures / "broken.png").unlink()
    check(pictures, out)
    assert main(command) == 0
    assert "12 files skipped" in capsys.readouterr().out
    assert main(["decode", str(out), "-o", str(tmp_path / "back"), "--cluster", nodes.address]) == 0
    assert files(tmp_path / "back") == files(pictures)


def run(pictures: Path, out: Path, work: Any) -> list[Outcome]:
    todo = batch.plan([pictures.as_uri()], out.as_uri(), ".lichen", {".png"}, False)
    return list(batch.run(todo.jobs, work, Cluster("local"), threading.Event()))  # connected already


@dataclass(frozen=True)
class Watched:
    """Encodes, and notes on which node it began with what. On the node that is to die it never comes to an end; the
    others wait until it has begun there."""

    work: Encoding
    notes: Path
    dying: str

    def __call__(self, source: str | bytes, target: str) -> tuple[bytes, Sequence[str]]:
        import ray

        node = ray.get_runtime_context().get_node_id()
        (self.notes / f"{node} {Path(target).stem}").touch()
        if node == self.dying:
            time.sleep(3600)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(self.notes.glob(f"{self.dying} *")):
            time.sleep(0.02)
        return self.work(source, target)


def test_a_node_dies_on_the_way(nodes: Any, pictures: Path, tmp_path: Path) -> None:
    """What it had begun is done by another one: all pictures come out, and none is half-written."""
    dying = nodes.add_node(num_cpus=1, object_store_memory=MEMORY)
    (tmp_path / "notes").mkdir()
    over = threading.Event()

    def begun() -> list[list[str]]:
        return [p.name.split() for p in (tmp_path / "notes").iterdir()]

    def kill() -> None:
        while not over.wait(0.02) and not any(node == dying.node_id for node, _ in begun()):
            pass
        nodes.remove_node(dying, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    work = Watched(Encoding(lichen.load(), {"quality": 30}), tmp_path / "notes", dying.node_id)
    outcomes = run(pictures, tmp_path / "out", work)
    over.set()
    killer.join()
    assert [o.error for o in outcomes] == [None] * 12
    check(pictures, tmp_path / "out")
    lost = {name for node, name in begun() if node == dying.node_id}
    assert lost and lost <= {name for node, name in begun() if node != dying.node_id}


@dataclass(frozen=True)
class Dying:
    """Encodes, and at each picture's first time has its worker die before the file's bytes are on the disk."""

    work: Encoding
    notes: Path

    def __call__(self, source: str | bytes, target: str) -> tuple[bytes, Sequence[str]]:
        note = self.notes / Path(target).stem
        if not note.exists():
            note.touch()
            os.fsync = lambda _: os._exit(1)
        return self.work(source, target)


def test_workers_die_while_they_write(nodes: Any, pictures: Path, tmp_path: Path) -> None:
    """Nothing half-written is left, not even under a temporary name; what others left stays."""
    for name in files(pictures)[2:]:
        (pictures / name).unlink()
    (tmp_path / "notes").mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lichen-another.part").touch()
    outcomes = run(pictures, out, Dying(Encoding(lichen.load(), {"quality": 30}), tmp_path / "notes"))
    assert [o.error for o in outcomes] == [None] * 2
    assert len(list((tmp_path / "notes").iterdir())) == 2
    (out / ".lichen-another.part").unlink()
    check(pictures, out)


def test_a_store(nodes: Any, pictures: Path, s3: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Workers read from it and write to it."""
    for name in files(pictures)[:3]:
        places.write(f"{s3}/in/{name}", (pictures / name).read_bytes())
    command = ["encode", f"{s3}/in", "-q", "30", "-o", f"{s3}/out", "--cluster", nodes.address]
    assert main(command) == 0
    found = places.find(f"{s3}/out", {".lichen"}, print)[1]
    assert [f.name for f in found] == [name.replace(".png", ".lichen") for name in files(pictures)[:3]]
    assert places.read(found[0].place) == lichen.encode(pictures / files(pictures)[0], 30)
    capsys.readouterr()
    assert main(command) == 0
    assert "3 files skipped" in capsys.readouterr().out


def test_a_memory_is_one_process_own(nodes: Any, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", str(pictures), "-o", "memory://out", "--cluster", nodes.address]) == 1
    assert "all its nodes see" in capsys.readouterr().err


def test_errors_come_back_as_they_were_raised(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lichen.cluster.RETRIES", 1)
    cluster = Cluster(nodes.address)
    try:
        assert cluster.workers >= 2  # a node that died in another test may still be counted
        assert cluster.submit(len, cluster.put([1, 2])).result() == 2
        shared = cluster.share([1, 2, 3])
        assert [cluster.submit(len, shared).result() for _ in range(2)] == [3, 3]
        error = cluster.submit(lichen.encode, b"no picture").exception()
        assert type(error) is PictureError and "Traceback" not in str(error)
        with pytest.raises(ClusterError, match="gave it up"):
            cluster.submit(os._exit, 1).result()
    finally:
        cluster.finish()


def test_measurements_are_those_of_one_process(nodes: Any, tmp_path: Path, photo: Photo) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(np.ascontiguousarray(photo[i * 64 : i * 64 + 64, :96])).save(path)
    found = [codecs.create("webp"), codecs.create("jpeg-420")]
    store = Store(tmp_path / "cluster.jsonl")
    rows = runner.measure(found, paths, store, repeats=0, cluster=nodes.address)
    assert rows == runner.measure(found, paths, Store(tmp_path / "here.jsonl"), repeats=0)
    assert len(rows) == 3 * 16
    lines = store.path.read_text()
    runner.measure(found, paths, store, repeats=0, cluster=nodes.address)
    assert store.path.read_text() == lines


def test_an_address(nodes: Any, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last test here: this process leaves the cluster."""
    import ray

    ray.shutdown()
    command = ["encode", str(pictures / "0.png"), "-o", str(tmp_path / "0.lichen"), "--cluster"]
    assert main([*command, "nowhere"]) == 1
    assert "no Ray cluster at nowhere" in capsys.readouterr().err
    assert main([*command, nodes.address]) == 0
    assert (tmp_path / "0.lichen").read_bytes() == lichen.encode(pictures / "0.png")
    assert not ray.is_initialized()


def test_without_ray_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"lichen\[cluster\]"):
        Cluster("local")
