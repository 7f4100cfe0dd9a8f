"""Alerts on a stream of outcomes: has their share grown lately?"""

from typing import Any
from typing import NamedTuple

import numpy as np

from tfrlhf.evaluation.win_rate import accuracy


class GrowthAlert(NamedTuple):
    """Compares the newest outcomes of a stream with those just before.

    The two-proportion z-test with a pooled share: z = (p_new − p_old) /
    √(p·(1 − p)·(1/window + 1/before)), with p the share of both together.
    There is an alert where z is above the threshold.

    Attributes:
        window: how many of the newest make p_new.
        before: how many just before those make p_old.
        threshold: standard errors.

    Example:
        >>> alert = GrowthAlert(window=2, before=4, threshold=1.5)
        >>> flags = [[0, 0, 1, 0, 1, 1], [0, 0, 1, 1, 0, 0]]
        >>> alert.z_scores(flags).round(2)[0].tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.73]
        >>> alert.first(flags).tolist()
        [5, 6]
    """

    window: int
    before: int
    threshold: float = 3.5

    def z_scores(self, flags: Any) -> np.ndarray:
        """Computes z at each time.

        Args:
            flags: 0 or 1, [streams, time], oldest first.

        Returns:
            float [streams, time]; 0 until there are window + before outcomes.

        Raises:
            ValueError: flags are not [streams, time], or `window` or `before`
                is below 1.
        """
        flags = np.asarray(flags)
        window, before, _ = self
        if flags.ndim != 2 or min(window, before) < 1:
            raise ValueError(
                "`GrowthAlert` needs flags [streams, time], and a `window` "
                f"and a `before` of at least 1. Received: shape {flags.shape}, "
                f"window={window}, before={before}"
            )
        if flags.shape[1] < window + before:
            return np.zeros(flags.shape)
        sums = np.cumsum(np.pad(flags, [(0, 0), (1, 0)]), axis=1)
        end, middle = sums[:, window + before :], sums[:, before:-window]
        start = sums[:, : -window - before]
        new, old = (end - middle) / window, (middle - start) / before
        pooled = (end - start) / (window + before)
        deviation = np.sqrt(pooled * (1 - pooled) * (1 / window + 1 / before))
        z = (new - old) / np.maximum(deviation, 1e-6)
        return np.pad(z, [(0, 0), (window + before - 1, 0)])

    def first(self, flags: Any) -> np.ndarray:
        """Finds the first alert of each stream.

        Args:
            flags: see `z_scores`.

        Returns:
            int [streams]: its index, or the length of the stream where there
            is none.
        """
        alert = self.z_scores(flags) > self.threshold
        return np.where(alert.any(axis=1), alert.argmax(axis=1), alert.shape[1])

    def quality(self, quiet: Any, grown: Any, start: int) -> dict[str, Any]:
        """Measures how late alerts come, and how often for nothing.

        Args:
            quiet: flags of at least two streams whose share stays.
            grown: flags of at least two streams whose share grows.
            start: the time from which it has grown.

        Returns:
            `Estimate`s of shares of streams: `false_alarms` of the quiet
            ones; `early`, before the start, and `detected`, after it, of the
            others; and the median `delay` in outcomes of those detected, None
            if there are none.
        """
        false, found = self.first(quiet), self.first(grown)
        early, late = found < start, found < np.shape(grown)[1]
        delays = found[late & ~early] - start + 1
        return {
            "false_alarms": accuracy(false < np.shape(quiet)[1]),
            "early": accuracy(early),
            "detected": accuracy(late & ~early),
            "delay": float(np.median(delays)) if len(delays) else None,
        }


def draw_streams(
    outcomes: Any, share: Any, count: int, draw: np.random.Generator
) -> np.ndarray:
    """Draws streams of cases whose share of one outcome is given over time.

    Args:
        outcomes: 0 or 1 for each of some cases, of both at least one.
        share: of ones at each time.
        count: how many streams to draw.
        draw: the random numbers.

    Returns:
        int [count, time]: the number of a case, drawn with replacement.

    Raises:
        ValueError: all cases have the same outcome.

    Example:
        >>> draw = np.random.default_rng(0)
        >>> draw_streams([0, 1, 0], [0, 0, 1, 1], 1, draw)[0, 2:].tolist()
        [1, 1]
    """
    outcomes = np.asarray(outcomes, bool)
    ones, zeros = np.flatnonzero(outcomes), np.flatnonzero(~outcomes)
    if not len(ones) or not len(zeros):
        raise ValueError(
            "`draw_streams` needs cases of both outcomes. Received: "
            f"{len(ones)} ones and {len(zeros)} zeros"
        )
    shape = count, len(share)
    drawn = draw.random(shape) < share
    return np.where(drawn, draw.choice(ones, shape), draw.choice(zeros, shape))
