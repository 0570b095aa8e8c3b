"""The same measurements on a Ray cluster of two nodes, both on this machine."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from lichen.benchmark import codecs, runner
from lichen.benchmark.cluster import Cluster, ClusterError


@pytest.fixture
def pictures(tmp_path, photo):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(np.ascontiguousarray(photo[i * 64 : i * 64 + 64, :96])).save(path)
    return paths


def test_two_nodes_find_the_same(pictures, tmp_path):
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster as Nodes

    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        nodes.add_node(num_cpus=1)
        found = [codecs.create("webp"), codecs.create("jpeg-420")]
        store = runner.Store(tmp_path / "cluster.jsonl")
        rows = runner.measure(found, pictures, store, repeats=0, cluster=nodes.address)
        assert rows == runner.measure(found, pictures, runner.Store(tmp_path / "here.jsonl"), repeats=0)
        assert len(rows) == 3 * 16
        lines = store.path.read_text()
        runner.measure(found, pictures, store, repeats=0, cluster=nodes.address)
        assert store.path.read_text() == lines
    finally:
        ray.shutdown()
        nodes.shutdown()


def test_without_ray_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"lichen\[cluster\]"):
        Cluster([], "local", print)
