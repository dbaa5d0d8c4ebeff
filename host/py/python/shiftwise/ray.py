"""Work over the workers of a Ray cluster, to the bytes of one machine: ``shiftwise.ray.evaluate(model, x, y)``.

A cluster that is connected (``ray.init(address=...)``) is used as it is; else Ray starts one on this machine. Workers have this
package installed, and no disk in common. Without Ray, ``shiftwise.shards.local`` does the same on one machine.
"""

from __future__ import annotations

from typing import Any, Callable, List, Sequence

from . import shards
from .errors import InvalidOption


def _ray() -> Any:
    try:
        import ray
    except ImportError as e:
        raise InvalidOption("Ray is not installed: `pip install ray`, or shiftwise.shards.local for one machine") from e
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    return ray


def _map(function: Callable[[shards.Task], bytes], tasks: Sequence[shards.Task]) -> List[bytes]:
    ray = _ray()
    # The files go to each machine once, however many workers it has.
    files = ray.put(tasks[0][0])

    def one(own: Any, arguments: List[str], shard: str) -> bytes:
        return function((own, arguments, shard))

    remote = ray.remote(one)
    return list(ray.get([remote.remote(files, arguments, shard) for _, arguments, shard in tasks]))


def _workers() -> int:
    return int(_ray().cluster_resources().get("CPU", 1))


#: The cluster.
cluster = shards.Cluster(_map, _workers)
evaluate, quantize, verify, tune, run = cluster.evaluate, cluster.quantize, cluster.verify, cluster.tune, cluster.run
