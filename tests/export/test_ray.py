"""The Ray engine on a local cluster of two emulated nodes; run with ``make test-ray``."""

import threading

import pytest

from synthgen.export.run import generate, plan_export
from synthgen.sets.verification import verify

pytestmark = pytest.mark.ray


@pytest.fixture
def cluster():
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_lost_node_changes_nothing(cluster, tiny_checkpoint, tmp_path):
    """One of two nodes is killed when the first shard is done; its actor's work is done elsewhere."""
    plan = plan_export(tiny_checkpoint, count=20_480, file_format="npz", shards=16)
    whole = generate(tiny_checkpoint, plan, tmp_path / "whole", allow_unprotected=True)
    killed: list[threading.Thread] = []

    def kill_a_node(done: int, of: int) -> None:
        if not killed:
            second = next(node for node in cluster.list_all_nodes() if node != cluster.head_node)
            killed.append(
                threading.Thread(target=cluster.remove_node, args=(second,), kwargs={"allow_graceful": False})
            )
            killed[0].start()

    manifest = generate(
        tiny_checkpoint,
        plan,
        tmp_path / "set",
        engine="ray",
        address=cluster.address,
        workers=2,
        allow_unprotected=True,
        on_shard=kill_a_node,
    )
    killed[0].join()
    assert manifest == whole
    assert verify(tmp_path / "set").sound
