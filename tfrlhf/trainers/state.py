"""What a run must remember to go on exactly: all of it in variables."""

import tensorflow as tf


class TrainingState(tf.Module):
    """Where a policy optimisation stands.

    Attributes:
        iteration: int64, iterations made so far.
        epoch: int64, the pass over the prompts.
        position: int64, the batch within the pass.
        seed: int64; samples, prompt order and minibatches follow from it and
            the iteration.
        kl_weight: float32, the weight of the KL penalty.
    """

    def __init__(self) -> None:
        super().__init__(name="state")
        self.iteration = self._integer("iteration")
        self.epoch = self._integer("epoch")
        self.position = self._integer("position")
        self.seed = self._integer("seed")
        self.kl_weight = tf.Variable(0.0, trainable=False, name="kl_weight")

    def draw(self) -> tuple[int, int]:
        """Returns (seed, iteration), from which an iteration's draws follow."""
        return int(self.seed.numpy()), int(self.iteration.numpy())

    @staticmethod
    def _integer(name: str) -> tf.Variable:
        return tf.Variable(0, dtype=tf.int64, trainable=False, name=name)
