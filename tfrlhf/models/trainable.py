"""A Keras model that learns with global counts, the base of every trainer.

One rule for all losses: the sum of weight times loss over the batch divided by
the sum of the weights, both over all micro-batches and replicas. Gradients are
summed over replicas, then clipped, then applied. So a step does not depend on
how the batch was cut.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import keras
import tensorflow as tf

from tfrlhf import data
from tfrlhf import ops
from tfrlhf.models import start_check
from tfrlhf.models.compilation import Compilers
from tfrlhf.models.compilation import JitCompile
from tfrlhf.models.compiled_model import CompiledModel
from tfrlhf.models.lookups import gradients as lookup_gradients
from tfrlhf.models.lookups import noted_lookups
from tfrlhf.models.micro_batches import of_any_length
from tfrlhf.models.micro_batches import rows_of_part
from tfrlhf.models.micro_batches import sorted_by_length
from tfrlhf.models.micro_batches import sum_over_parts
from tfrlhf.models.micro_batches import trimmed
from tfrlhf.models.optimizers import apply_scaled
from tfrlhf.models.optimizers import check_optimizer
from tfrlhf.models.optimizers import check_precision
from tfrlhf.models.optimizers import fuse_adam
from tfrlhf.models.optimizers import own_memory
from tfrlhf.types import Tensor

# Losses of at most so many weights are computed at the same time: small layers
# leave processors idle, and their passes need little memory.
AT_A_TIME = 2**24


class BatchLosses(NamedTuple):
    """What a model computes for one (micro-)batch.

    Attributes:
        losses: float32, any shape.
        weights: float32, the same shape; 0 where an entry does not count.
        metrics: name to (sum, count) scalars.
    """

    losses: Tensor
    weights: Tensor
    metrics: dict[str, tuple[Tensor, Tensor]]


class TrainableModel(CompiledModel):
    """Train and test step, metrics and `fit` input shared by the trainers.

    A subclass says what a batch weighs (`batch_weights`), what it loses
    (`batch_losses`), which metrics it logs (`metric_names`), which variables
    it trains (`learner_variables`), how records become a carrier
    (`as_carrier`) and what must not matter to its losses (`counted_part`).
    """

    train_function: Any
    loss_name = "loss"
    metric_names: tuple[str, ...] = ("loss",)

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        *,
        micro_batches: int = 1,
        clip_norm: float | None = 1.0,
        jit_compile: JitCompile = "auto",
        run_eagerly: bool = False,
    ) -> None:
        """Prepares for training.

        Args:
            optimizer: a Keras optimizer or its name, without clipping, weight
                averaging or gradient accumulation of its own.
            loss: the model's loss; None takes the default of the class.
            micro_batches: parts a batch is cut into to save memory; the step
                stays the same. With more than one, what can be computed one
                after the other is.
            clip_norm: largest global norm of the gradient; None for no limit.
            jit_compile: whether XLA compiles forward and backward pass; "auto"
                decides by the device, "measure" by trying both on the first
                batch, of which `compilers` tells and which is remembered on
                this machine.
            run_eagerly: runs the steps without `tf.function`, to debug.

        Raises:
            ValueError: an optimizer setting that is wrong under a strategy.
        """
        optimizer = self.checked_optimizer(optimizer)
        if micro_batches < 1:
            raise ValueError(
                "`micro_batches` must be at least 1. Received: "
                f"micro_batches={micro_batches}"
            )
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(
                "`clip_norm` must be positive or None. Received: "
                f"clip_norm={clip_norm}"
            )
        # Keras' own loss and jit paths do not fit a replica-independent step.
        super().compile(
            optimizer=optimizer,
            jit_compile=False,
            run_eagerly=run_eagerly,
            auto_scale_loss=False,
        )
        self.objective = self.default_loss() if loss is None else loss
        self.micro_batches = micro_batches
        self.clip_norm = clip_norm
        self.compilers = Compilers(False if run_eagerly else jit_compile)
        with self.distribute_strategy.scope():
            self._means = {n: keras.metrics.Mean(n) for n in self.metric_names}
            for each, variables in self.optimizer_groups():
                check_precision(each, variables)
                own_memory(variables)
                each.build(variables)
                fuse_adam(each)
        self.make_update_functions()
        # Replicas meet in it, which they cannot in a graph inside another.
        self._apply_function: Any = (
            self._applied
            if self._in_one_graph()
            else tf.function(self._applied, autograph=False)
        )
        self._apply_traces: dict[tuple[str, ...], Any] = {}

    def make_update_functions(self) -> None:
        """Compiles the passes of a step as `compilers` says."""
        self._gradient_function = self._compiled(self._gradients)
        self._loss_function = self._compiled(self._test_sums)

    @property
    def xla(self) -> bool:
        """Whether XLA compiles the passes of a step."""
        return self.compilers["update"]

    def default_loss(self) -> Any:
        """Returns the loss for `compile(loss=None)`."""
        raise NotImplementedError

    def learner_variables(self) -> list[Any]:
        """Returns the variables that a step trains, without duplicates."""
        return list(self.trainable_variables)

    def optimizer_groups(self) -> list[tuple[Any, list[Any]]]:
        """Returns optimizers with the variables that each of them trains.

        In the order of `learner_variables`.
        """
        return [(self.optimizer, self.learner_variables())]

    def batch_weights(self, batch: Any) -> Tensor:
        """Returns the float32 weights of a batch, before any forward pass."""
        raise NotImplementedError

    def batch_losses(self, batch: Any, training: bool) -> BatchLosses:
        """Computes losses and metrics of a batch."""
        raise NotImplementedError

    def loss_terms(self) -> list[tuple[Any, list[Any]]]:
        """Returns the losses that add up, with the variables each depends on.

        Gradients are taken of one after the other where there are many
        weights or several micro-batches, so that no two of them need their
        memory at once. In the order of `learner_variables`.
        """
        return [(self.batch_losses, self.learner_variables())]

    def as_carrier(self, x: Any) -> Any:
        """Turns records into a carrier; returns a carrier as it is."""
        raise NotImplementedError

    def counted_part(self, batch: Any) -> tuple[Any, dict[str, Tensor]]:
        """Says what must not matter, for the check before the first step.

        Args:
            batch: a carrier.

        Returns:
            The carrier with fewer entries that count, and where its ids must
            not matter to those: bool tensors by what the ids there are.
        """
        raise NotImplementedError

    def as_dataset(
        self, x: Any, batch_size: int, shuffle: bool, seed: int
    ) -> tf.data.Dataset:
        """Turns the input of `fit` or `evaluate` into batches of carriers."""
        x = x.dataset() if isinstance(x, data.Stream) else x
        if isinstance(x, tf.data.Dataset):
            return x
        return data.batches(self.as_carrier(x), batch_size, shuffle, seed)

    def fit(  # type: ignore[override]
        self,
        x: Any,
        *,
        batch_size: int = 32,
        epochs: int = 1,
        seed: int = 0,
        validation_data: Any = None,
        initial_epoch: int = 0,
        callbacks: Any = None,
        verbose: int | str = "auto",
    ) -> keras.callbacks.History:
        """Trains; as `keras.Model.fit`, on records, carriers or a stream.

        Args:
            x: records (dicts of text), a carrier of whole arrays, or batches:
                what `data.stream` returns, or a `Dataset` of carriers.
            batch_size: rows of a step, over all replicas; not of batches.
            epochs: the total number of passes.
            seed: int, of the order of rows; not of batches.
            validation_data: like `x`, measured after every epoch.
            initial_epoch: the epoch to go on from.
            callbacks: Keras callbacks.
            verbose: as in Keras.

        Returns:
            Keras' `History`.

        Raises:
            SetupError: training would go wrong, see `check_start`.
        """
        self._assert_compile_called("fit")
        if isinstance(x, data.Stream):
            callbacks = x.with_epochs(callbacks, initial_epoch)
            x = x.dataset()
        elif not isinstance(x, tf.data.Dataset):
            x = self.as_carrier(x)
        if validation_data is not None:
            validation_data = self.as_dataset(
                validation_data, batch_size, shuffle=False, seed=seed
            )
        dataset = self.as_dataset(x, batch_size, False, seed)
        for batch in dataset.take(int("update" in self.compilers.unmeasured)):
            count = tf.reduce_sum(self.batch_weights(batch))
            self.choose_update_compiler(batch, count)
        self.check_start(dataset)
        return super().fit(
            self.as_dataset(x, batch_size, shuffle=True, seed=seed),
            epochs=epochs,
            validation_data=validation_data,
            initial_epoch=initial_epoch,
            shuffle=False,
            callbacks=callbacks,
            verbose=verbose,
        )

    def evaluate(  # type: ignore[override]
        self,
        x: Any,
        *,
        batch_size: int = 32,
        callbacks: Any = None,
        verbose: int | str = 0,
        **kwargs: Any,
    ) -> dict[str, float]:
        """Measures the metrics on what `fit` takes."""
        kwargs["return_dict"] = True
        return super().evaluate(
            self.as_dataset(x, batch_size, shuffle=False, seed=0),
            callbacks=callbacks,
            verbose=verbose,
            **kwargs,
        )

    def check_start(self, dataset: tf.data.Dataset) -> None:
        """Looks for what would spoil training; changes nothing.

        Args:
            dataset: batches of carriers.

        Raises:
            SetupError: nothing to train or to learn from, losses or gradients
                that are not finite, or a model that sees what it must not.
        """
        start_check.check_learner(self, dataset)

    def gradients_and_sums(
        self, batch: Any, count: Tensor
    ) -> tuple[list[Tensor], dict[str, tuple[Tensor, Tensor]]]:
        """Computes what a step would be made of, without making it.

        Args:
            batch: a carrier, or its per-replica values.
            count: float32 scalar, what the sum of the losses is divided by.

        Returns:
            The gradients in the order of `learner_variables`, and the sum and
            count of the loss and of every metric, over all replicas.
        """
        strategy = self.distribute_strategy
        self._trace_gradients(lambda: of_any_length(batch))
        results = strategy.run(
            lambda *of: self._gradient_function(*of), args=(batch, count)
        )
        return tf.nest.map_structure(
            lambda x: strategy.reduce("SUM", x, axis=None), results
        )

    def choose_update_compiler(self, batch: Any, count: Tensor) -> None:
        """See `choose_compiler`.

        Args:
            batch: what `gradients_and_sums` takes.
            count: see there.
        """
        first = self.distribute_strategy.experimental_local_results(batch)[0]
        self.choose_compiler(
            "update",
            self.make_update_functions,
            lambda: self.gradients_and_sums(batch, count),
            (
                self.micro_batches,
                [tuple(x.shape) for x in tf.nest.flatten(first)],
            ),
        )

    def trace_gradients(self, dataset: tf.data.Dataset) -> None:
        """Traces forward and backward pass for the shapes of a Dataset."""
        self._trace_gradients(lambda: dataset.element_spec)

    def _trace_gradients(self, describe: Callable[[], Any]) -> None:
        self.trace_once(
            *("update", self._gradient_function),
            lambda: (describe(), tf.TensorSpec([], tf.float32)),
        )

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The means over an epoch, one a metric name."""
        return list(self._means.values()) if self.compiled else []

    def train_step(self, batch: Any) -> dict[str, Tensor]:
        """Makes one optimizer step on a replica's part of a batch."""
        count = ops.global_sum(tf.reduce_sum(self.batch_weights(batch)))
        gradients, sums = self._gradient_function(batch, count)
        return self._apply_trace(gradients, sums)(gradients, sums)

    def make_train_function(self, force: bool = False) -> None:
        """Makes what takes an iterator's next batch and makes a step of it.

        Keras puts all of a step into one graph, as a strategy needs it.
        Without one, passes and optimizer are called one after the other: so
        the passes are optimised once, for steps and for looking at gradients.
        """
        if self._in_one_graph():
            super().make_train_function(force)
        elif self.train_function is None or force:
            self.train_function = lambda batches: self.train_step(next(batches))

    def _in_one_graph(self) -> bool:
        with self.distribute_strategy.scope():
            return self.run_eagerly or tf.distribute.has_strategy()

    def _apply_trace(self, gradients: list[Tensor], sums: Any) -> Any:
        """Returns the trace that makes the step of these gradients.

        To find it, TensorFlow would describe each of them anew in every step.
        """
        function, names = self._apply_function, tuple(sums)
        if function == self._applied or tf.config.functions_run_eagerly():
            return function
        if names not in self._apply_traces:
            trace = function.get_concrete_function(gradients, sums)
            self._apply_traces[names] = trace
        return self._apply_traces[names]

    def _applied(
        self,
        gradients: list[Tensor],
        sums: dict[str, tuple[Tensor, Tensor]],
    ) -> dict[str, Tensor]:
        """Makes the step of a replica's gradients, returns the logs."""
        gradients = ops.global_sums(gradients)
        norms = []
        for optimizer, variables in self.optimizer_groups():
            part = gradients[: len(variables)]
            norms.append(tf.linalg.global_norm(part))
            scale = self._gradient_scale(norms[-1])
            apply_scaled(optimizer, part, scale, variables)
            gradients = gradients[len(variables) :]
        return self._logs(sums) | {"gradient_norm": tf.norm(norms)}

    def test_step(self, batch: Any) -> dict[str, Tensor]:
        """Measures a replica's part of a batch."""
        return self._logs(self._loss_function(batch))

    def predict_step(self, batch: Any) -> Tensor:
        """Is refused: Keras would unpack a carrier as (x, y, weight)."""
        raise ValueError(
            f"{type(self).__name__} has no `predict`: call the model, or "
            "`score` or `generate`, instead."
        )

    def _maybe_symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: built already, and Keras' version breaks on masks."""

    def checked_optimizer(self, optimizer: Any) -> keras.optimizers.Optimizer:
        """Makes an optimizer under the strategy, or refuses it."""
        with self.distribute_strategy.scope():
            optimizer = keras.optimizers.get(optimizer)
        check_optimizer(optimizer)
        return optimizer

    def _gradient_scale(self, norm: Tensor) -> Tensor:
        """Returns what an optimizer's gradients of that norm are scaled by."""
        scale = tf.ones([], norm.dtype)
        if self.clip_norm is None:
            return scale
        # NaN where the norm is not finite.
        return tf.clip_by_global_norm([scale], self.clip_norm, norm)[0][0]

    def _gradients(
        self, batch: Any, count: Tensor
    ) -> tuple[list[Tensor], dict[str, tuple[Tensor, Tensor]]]:
        """Returns this replica's summed gradients and metric sums."""
        parts = self.micro_batches
        # XLA's shapes cannot follow the lengths.
        trim = (lambda x: x) if self.xla else trimmed
        if parts == 1:
            return self._part_gradients(trim(batch), count)
        if not self.xla:
            batch = sorted_by_length(batch)
        nothing = {name: (tf.zeros([]),) * 2 for name in self.metric_names}
        measured: set[str] = set()

        def of_part(index: Any) -> tuple[list[Tensor], dict[str, Any]]:
            part = trim(rows_of_part(batch, index, parts))
            gradients, sums = self._part_gradients(part, count)
            # Some kinds of batches have some of the metrics only.
            measured.update(sums)
            return gradients, nothing | sums

        zeros = [tf.zeros(v.shape) for v in self.learner_variables()], nothing
        gradients, sums = sum_over_parts(of_part, parts, zeros, self.xla)
        return gradients, {n: sums[n] for n in nothing if n in measured}

    def _part_gradients(
        self, part: Any, count: Tensor
    ) -> tuple[list[Tensor], dict[str, tuple[Tensor, Tensor]]]:
        gradients: list[Tensor] = []
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        for compute, variables in self.loss_terms():
            with tf.control_dependencies(self._awaited(gradients)):
                with (
                    tf.GradientTape() as tape,
                    noted_lookups(self, tape) as lookups,
                ):
                    terms = compute(part, training=True)
                    loss = tf.reduce_sum(terms.losses * terms.weights)
                    loss = loss / tf.maximum(count, 1e-8)
                gradients += lookup_gradients(
                    tape, loss, variables, lookups, in_place=not self.xla
                )
            metrics = self._metric_sums(terms)
            if sums:
                # The terms add up over the same entries.
                so_far, weight = sums[self.loss_name]
                here, _ = metrics[self.loss_name]
                metrics[self.loss_name] = (so_far + here, weight)
            sums |= metrics
        return gradients, sums

    def _awaited(self, gradients: list[Tensor]) -> list[Any]:
        """Returns what the passes of the next loss wait for."""
        weights = sum(v.shape.num_elements() for v in self.learner_variables())
        if self.micro_batches == 1 and weights <= AT_A_TIME:
            return []
        # One edge to all of its operations, not one of every gradient.
        return [tf.group(gradients)]

    def _test_sums(self, batch: Any) -> dict[str, tuple[Tensor, Tensor]]:
        return self._metric_sums(self.batch_losses(batch, training=False))

    def _metric_sums(
        self, terms: BatchLosses
    ) -> dict[str, tuple[Tensor, Tensor]]:
        total = tf.reduce_sum(terms.losses * terms.weights)
        count = tf.reduce_sum(terms.weights)
        return {self.loss_name: (total, count)} | terms.metrics

    def _logs(
        self, sums: dict[str, tuple[Tensor, Tensor]]
    ) -> dict[str, Tensor]:
        """Adds a batch to the epoch's means and returns them."""
        logs = {}
        for name, (total, count) in sums.items():
            count = ops.global_sum(count)
            mean = ops.global_sum(total) / tf.maximum(count, 1e-8)
            # Every replica adds the same global numbers: the ratio is right.
            self._means[name].update_state(mean, sample_weight=count)
            logs[name] = self._means[name].result()
        return logs
