"""A Ray cluster as workers. Every node needs Lichen; tasks whose worker or node dies go to another one."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from lichen.errors import LichenError

RETRIES = 5  # of a task whose worker died


class ClusterError(LichenError):
    """A cluster that cannot be reached, or workers that died again and again."""


class Cluster:
    """Workers: one a core of the cluster. `address` as Ray takes it ("auto", "HOST:PORT", "ray://..."), or "local" for
    one of its own here. ClusterError where there is none."""

    remote = True  # files of this machine may not be theirs

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError as e:
            raise ClusterError("a cluster needs Ray: pip install 'lichen[cluster]'") from e
        self._ray = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
            except (ConnectionError, ValueError, RuntimeError) as e:
                raise ClusterError(f"there is no Ray cluster at {address}: start one with `ray start --head`") from e
        self._call = ray.remote(num_cpus=1, max_retries=RETRIES)(_call)
        self._waiting: set[Any] = set()

    @property
    def workers(self) -> int:
        """The cores there are now; nodes may come and go."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def put(self, value: Any) -> Any:
        """Send a value once: as an argument of `submit` the result stands for it, and each task reads it anew."""
        return self._ray.put(value)

    def share(self, value: Any) -> Any:
        """As `put`, but a worker keeps what it read for later tasks: for models."""
        return _Shared(self._ray.put(value))

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call a function of an installed module by and by. The result raises what the function raised, ClusterError
        where its worker died more than `RETRIES` times."""
        reference = self._call.remote(function, *arguments)
        self._waiting.add(reference)
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # it cannot be taken back
        reference.future().add_done_callback(lambda done: self._finished(reference, done, future))
        return future

    def _finished(self, reference: Any, done: Future[Any], future: Future[Any]) -> None:
        self._waiting.discard(reference)
        error = done.exception()
        if isinstance(error, self._ray.exceptions.RayTaskError):
            error = error.cause  # what the function raised
        if error is None:
            future.set_result(done.result())
        elif isinstance(error, self._ray.exceptions.RayError):
            reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
            future.set_exception(ClusterError(f"the cluster gave it up ({reason}): try again"))
        else:
            future.set_exception(error)

    def finish(self, wait: bool = True) -> None:
        """Wait for what is under way, or do not, and leave."""
        waiting, self._waiting = list(self._waiting), set()
        if wait and waiting:
            self._ray.wait(waiting, num_returns=len(waiting))
        if self._ours:
            self._ray.shutdown()


class _Shared:
    """A value that a worker reads once."""

    def __init__(self, reference: Any) -> None:
        self.reference = reference


@functools.lru_cache(maxsize=32)
def _fetched(reference: Any) -> Any:
    import ray

    return ray.get(reference)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """A task, in a worker."""
    return function(*(_fetched(a.reference) if isinstance(a, _Shared) else a for a in arguments))
