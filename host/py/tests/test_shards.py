"""Work that workers share gives the bytes of one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shiftwise
from shiftwise import shards


def compared(cluster: Any, lenet: str, digits: Any) -> None:
    x, y = digits[1][:100].astype(np.float32), digits[2][:100]
    alone = shiftwise.quantize(lenet, digits[0], batch_size=10, include_cle=False)
    model = cluster.quantize(lenet, digits[0], batch_size=10, include_cle=False, workers=2)
    assert model.to_h5() == alone.to_h5()
    shared, single = (cluster.evaluate(model, x, y, workers=n) for n in (2, 1))
    assert shared == single and single["model"]["top1"] > 0.9
    assert cluster.verify(model, x, target="B512", samples=4, workers=2)["holds"]


def test_processes_of_one_machine_share_work(lenet: str, digits: Any) -> None:
    compared(shards.local, lenet, digits)


def test_workers_of_a_ray_cluster_share_work(lenet: str, digits: Any) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    import shiftwise.ray as own

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        compared(own, lenet, digits)
    finally:
        ray.shutdown()


def test_an_error_of_a_worker_is_the_callers(lenet: str, digits: Any) -> None:
    with pytest.raises(shiftwise.Error) as caught:
        shards.local.quantize(lenet, digits[0], batch_size=10, workers=2, surprise=1)
    assert caught.value.code == "Shiftwise_Invalid_Option"
    with pytest.raises(shiftwise.Error, match="workers"):
        shards.local.evaluate(lenet, digits[1], digits[2], workers=0)
    with pytest.raises(shiftwise.Error, match="labels"):
        shards.local.evaluate(lenet, digits[1], digits[2][:3], workers=2)
