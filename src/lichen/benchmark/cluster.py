"""A Ray cluster as the workers of a benchmark: each picture goes to it once, results come back as they are measured.

Every node needs Lichen and the codecs' programs; a row says on which kind of machine it was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from lichen.benchmark import datasets
from lichen.benchmark.codecs import Codec
from lichen.errors import LichenError


class ClusterError(LichenError):
    """A cluster that cannot be reached."""


class Cluster:
    """Workers: one a core of the cluster. `address` as Ray takes it ("auto", "HOST:PORT", "ray://..."), or "local".

    measure: (codec, setting, path, of, ms_ssim, picture=...) -> a row, on the workers.
    """

    def __init__(self, codecs: Sequence[Codec], address: str, measure: Callable[..., Any]) -> None:
        try:
            import ray
        except ImportError as e:
            raise ClusterError("a cluster needs Ray: pip install 'lichen[cluster]'") from e
        self._ray = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                ray.init(None if address == "local" else address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, ValueError, RuntimeError) as e:
                raise ClusterError(f"there is no Ray cluster at {address}: start one with `ray start --head`") from e
        self._codecs = {c.name: ray.put(c) for c in codecs}
        self._pictures: dict[str, Any] = {}
        self._measure = ray.remote(num_cpus=1, max_retries=3)(measure)
        self._waiting: list[Any] = []

    @property
    def workers(self) -> int:
        """The cores there are now; nodes may come and go."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, codec: str, setting: float, path: str, of: str, ms_ssim: bool) -> Future[Any]:
        """Measure by and by."""
        if of not in self._pictures:
            self._pictures = {of: self._ray.put(datasets.pixels(path))}  # pictures come one after the other
        reference = self._measure.remote(self._codecs[codec], setting, path, of, ms_ssim, picture=self._pictures[of])
        self._waiting = [r for r in self._waiting if not self._done(r)] + [reference]
        future: Future[Any] = reference.future()
        return future

    def _done(self, reference: Any) -> bool:
        return bool(self._ray.wait([reference], timeout=0)[0])

    def finish(self) -> None:
        """Wait for what is under way, and leave."""
        if self._waiting:
            self._ray.wait(self._waiting, num_returns=len(self._waiting))
        if self._ours:
            self._ray.shutdown()
