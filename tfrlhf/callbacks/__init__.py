"""Keras callbacks that watch a run."""

from tfrlhf.callbacks.progress import Progress
from tfrlhf.callbacks.tensorboard import TensorBoard

__all__ = ["Progress", "TensorBoard"]
