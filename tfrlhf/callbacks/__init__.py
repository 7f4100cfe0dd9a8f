"""Keras callbacks that watch a run, or take part in it."""

from tfrlhf.callbacks.moving_reference import MovingReference
from tfrlhf.callbacks.progress import Progress
from tfrlhf.callbacks.tensorboard import TensorBoard

__all__ = ["MovingReference", "Progress", "TensorBoard"]
