"""Records to batches of ids without holding all of them: for large sources.

A bounded buffer shuffles, a run of some batches is tokenised at once and cut
by length. The order depends on the seed and the epoch alone.
"""

import random
import warnings
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from itertools import islice
from typing import Any

import tensorflow as tf

from tfrlhf.data.examples import ExampleEncoder
from tfrlhf.data.preferences import PreferenceEncoder
from tfrlhf.data.prompts import end_of_sequence
from tfrlhf.data.ratings import RatingEncoder
from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record
from tfrlhf.data.records import numbered_records
from tfrlhf.data.tokens import Encoder
from tfrlhf.data.tokens import TextTokenizer
from tfrlhf.data.tokens import encoded_rows
from tfrlhf.types import Examples
from tfrlhf.types import Preferences
from tfrlhf.types import Ratings

# Batches of a run within which rows are sorted by length.
RUN = 8


def _spec(rank: int) -> tf.TensorSpec:
    return tf.TensorSpec([None] * rank, tf.int32)


_NUMBERS = tf.TensorSpec([None], tf.float32)
_SPECS = {
    "examples": Examples(_spec(2), _spec(2), _spec(2)),
    "preferences": Preferences(
        _spec(3), _spec(3), _spec(3), _spec(2), _NUMBERS, _NUMBERS
    ),
    "ratings": Ratings(_spec(2), _spec(2), _spec(2), _NUMBERS, _NUMBERS),
}


class Stream:
    """Batches of a carrier made while they are read; `stream` makes it.

    Attributes:
        skipped: How many bad records the last pass has left out.
    """

    def __init__(
        self,
        records: Iterable[Record],
        kind: str,
        encoder: Encoder[Any],
        tokenizer: TextTokenizer,
        *,
        batch_size: int,
        seed: int | None,
        buffer: int,
        bucket: int,
        skip_bad: bool,
    ) -> None:
        self.skipped = 0
        self._epoch = 0
        self._records = records
        self._spec = _SPECS[kind]
        self._encoder = encoder
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._seed = seed
        self._buffer = buffer
        self._bucket = bucket
        self._skip_bad = skip_bad

    def epoch(self, number: int) -> Iterator[Any]:
        """Yields the batches of an epoch as carriers of NumPy arrays.

        Args:
            number: Of the epoch; the same one has the same order in every
                run.

        Raises:
            DataError: The first bad record.
        """
        records = numbered_records(self._records)
        if self._seed is None:
            for run in _runs(self._rows(records), self._batch_size):
                yield from self._batches(run)
            return
        draw = random.Random(f"{self._seed}/{number}")
        mixed = _shuffled(records, self._buffer, draw)
        for run in _runs(self._rows(mixed), self._batch_size * RUN):
            # Python's sort is stable: rows of one length stay as drawn.
            run.sort(key=self._encoder.length)
            batches = list(self._batches(run))
            draw.shuffle(batches)
            yield from batches

    def dataset(self, check: bool = True) -> tf.data.Dataset:
        """Returns the batches as a Dataset to train on.

        Each pass over it has the order of the epoch that `set_epoch` has set
        last, at first 0.

        Args:
            check: Call `check` first, so that a bad record stops a training
                before it starts and Keras knows the number of batches.
                Without it `fit` warns that it does not, and a bad record
                raises `tf.errors.InvalidArgumentError` when it is reached.

        Returns:
            A Dataset of carriers with B, S and K unknown.

        Raises:
            DataError: The first bad record.
        """
        dataset = tf.data.Dataset.from_generator(
            lambda: self.epoch(self._epoch), output_signature=self._spec
        )
        if check:
            batches = -(-self.check() // self._batch_size)
            cardinality = tf.data.experimental.assert_cardinality(batches)
            dataset = dataset.apply(cardinality)
        options = tf.data.Options()
        # There are no files to share out between workers.
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)

    def set_epoch(self, number: int) -> None:
        """Makes the next passes over the Datasets those of an epoch."""
        self._epoch = number

    def follow_epochs(self) -> Any:
        """Returns the Keras callback that sets each epoch as it begins.

        `fit` starts more passes than there are epochs, so that counting them
        would not do. With it a run that goes on from `initial_epoch` sees the
        orders it would have seen.
        """
        import keras  # slow to import

        return keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs=None: self.set_epoch(epoch)
        )

    def with_epochs(self, callbacks: Any, first: int) -> list[Any]:
        """Adds `follow_epochs` to what `fit` was given; for trainers.

        Args:
            callbacks: None, a Keras callback or several.
            first: The epoch that comes first, which is set.
        """
        self.set_epoch(first)
        if callbacks is None:
            callbacks = []
        elif not isinstance(callbacks, list | tuple):
            callbacks = getattr(callbacks, "callbacks", [callbacks])
        return [self.follow_epochs(), *callbacks]

    def check(self) -> int:
        """Reads all records once and counts the good ones.

        Raises:
            DataError: The first bad record.
        """
        return sum(1 for _ in self._rows(numbered_records(self._records)))

    def _rows(self, records: Iterable[tuple[str, Record]]) -> Iterator[Any]:
        """Yields the rows of good records; bad ones raise or are counted."""
        good, bad, reason = 0, 0, ""
        made = encoded_rows(records, self._encoder, self._tokenizer)
        for _, make in made:
            try:
                row = make()
            except DataError as error:
                if not self._skip_bad:
                    raise
                bad, reason = bad + 1, reason or str(error)
                continue
            good += 1
            yield row
        self.skipped = bad
        if not good:
            raise DataError(
                f"all of the {bad} records are bad, the first because {reason}"
            )
        if bad:
            warnings.warn(
                f"skipped {bad} bad records of {good + bad}, the first "
                f"because {reason}",
                stacklevel=2,
            )

    def _batches(self, rows: list[Any]) -> Iterator[Any]:
        for start in range(0, len(rows), self._batch_size):
            part = rows[start : start + self._batch_size]
            yield self._encoder.stack(part, self._bucket)


def stream(
    records: Iterable[Record],
    tokenizer: TextTokenizer,
    max_length: int,
    *,
    kind: str = "examples",
    batch_size: int = 32,
    shuffle: bool = True,
    seed: int = 0,
    buffer: int = 4096,
    bucket: int = 16,
    learn_prompts: bool = False,
    truncate: bool = False,
    skip_bad: bool = False,
) -> Stream:
    """Makes batches of ids while records are read, in bounded memory.

    Args:
        records: What can be iterated again, such as what `load` returns.
        tokenizer: Gives the ids; must have an EOS, which ends each response.
        max_length: The most tokens of prompt, response and EOS together.
        kind: "examples" for SFT, "preferences" or "ratings" for a reward
            model.
        batch_size: Rows a batch; the last batch may be short.
        shuffle: Draw the records from a buffer, and put rows of like length
            into one batch; without it the order is that of the records.
        seed: Of the orders.
        buffer: Records among which the next one is drawn.
        bucket: S is a batch's longest row rounded up to a multiple of this,
            and at most `max_length`.
        learn_prompts: As in `examples`.
        truncate: As in `preferences`.
        skip_bad: Leave bad records out, with a warning that counts them.

    Returns:
        A `Stream`, which `fit` and `evaluate` of `SFT` and `RewardModel` take
        as it is.

    Raises:
        ValueError: An argument that makes no sense.

    Example:
        >>> records = [{"prompt": "Say hi.", "response": " Hi!"}] * 3
        >>> made = stream(records, tokenizer, 64, batch_size=2)
        >>> [len(batch.token_ids) for batch in made.epoch(0)]
        [1, 2]
    """
    end_of_sequence(tokenizer, max_length)
    makers: dict[str, Callable[[], Encoder[Any]]] = {
        "examples": lambda: ExampleEncoder(
            tokenizer, max_length, learn_prompts
        ),
        "preferences": lambda: PreferenceEncoder(
            tokenizer, max_length, truncate
        ),
        "ratings": lambda: RatingEncoder(tokenizer, max_length),
    }
    if kind not in makers:
        raise ValueError(
            f"`kind` must be one of {', '.join(map(repr, makers))}, not "
            f"{kind!r}."
        )
    sizes = {"batch_size": batch_size, "buffer": buffer, "bucket": bucket}
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, not {value}.")
    if iter(records) is records:
        raise ValueError(
            "`records` can be read only once: give a list or what "
            "`tfrlhf.data.load` returns."
        )
    return Stream(
        records,
        kind,
        makers[kind](),
        tokenizer,
        batch_size=batch_size,
        seed=seed if shuffle else None,
        buffer=buffer,
        bucket=bucket,
        skip_bad=skip_bad,
    )


def _shuffled(
    items: Iterator[Any], buffer: int, draw: random.Random
) -> Iterator[Any]:
    """Yields items in an order drawn among `buffer` of them at a time."""
    held = list(islice(items, buffer))
    for item in items:
        place = draw.randrange(len(held))
        yield held[place]
        held[place] = item
    draw.shuffle(held)
    yield from held


def _runs(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while run := list(islice(rows, size)):
        yield run
