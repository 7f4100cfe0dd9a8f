import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.modes import assert_agrees
from tfrlhf import ops

# Logical devices can be made only before TensorFlow starts: a process apart.
TWO_REPLICAS = """
import tensorflow as tf
from tfrlhf import ops

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def step():
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return ops.global_sum(tf.cast([replica + 1, 10], tf.float32))

def steps():
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    one = tf.cast([replica + 1, 10], tf.float32)
    return ops.global_sums([one, one[0]])

with strategy.scope():
    try:
        ops.global_sums([tf.constant(1.0)])
    except ValueError as error:
        assert "`global_sums` was called in cross-replica" in str(error), error
    else:
        raise AssertionError("accepted in cross-replica context")

for run in (strategy.run, tf.function(strategy.run)):
    pair, number = map(strategy.experimental_local_results, run(steps))
    assert [s.numpy().tolist() for s in pair] == [[3.0, 20.0]] * 2, pair
    assert [s.numpy().tolist() for s in number] == [3.0] * 2, number
    sums = strategy.experimental_local_results(run(step))
    assert [s.numpy().tolist() for s in sums] == [[3.0, 20.0]] * 2, sums
"""


def test_identity_without_a_strategy(evaluate):
    x = np.array([1.5, 2.0], np.float32)
    assert_agrees(evaluate, ops.global_sum, np.asarray, x)
    assert ops.global_sum(tf.constant(3)).numpy() == 3
    (same,) = ops.global_sums([tf.constant(3)])
    assert same.numpy() == 3


def test_identity_on_one_replica():
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    summed = strategy.run(ops.global_sum, (tf.constant([1.5]),))
    assert summed.numpy().tolist() == [1.5]


def test_cross_replica_context_is_refused():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        with pytest.raises(ValueError, match="cross-replica context"):
            ops.global_sum(tf.constant(1.0))


def test_sums_over_two_replicas():
    subprocess.run([sys.executable, "-c", TWO_REPLICAS], check=True)
