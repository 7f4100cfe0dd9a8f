"""What a nat of KL buys: reward over KL along training runs.

Gao et al., 2022 (https://arxiv.org/abs/2210.10760) compare methods so: a policy
can have any reward if it may go far enough from where it started.
"""

import pathlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from tfrlhf.evaluation.win_rate import Estimate


class Curve(NamedTuple):
    """KL and score as training goes on.

    Attributes:
        kl: to the policy before training, in nats, one number an iteration.
        scores: mean score of the same samples.
    """

    kl: Sequence[float]
    scores: Sequence[float]

    def smooth(self, width: int = 5) -> "Curve":
        """Returns means over windows of iterations, against sampling noise.

        Args:
            width: of a window; shorter curves are one window.

        Example:
            >>> Curve([0.0, 1.0, 2.0], [0.0, 4.0, 8.0]).smooth(2)
            Curve(kl=[0.5, 1.5], scores=[2.0, 6.0])
        """
        window = np.ones(min(width, len(self.kl)))
        kl, scores = (
            (np.convolve(x, window, "valid") / len(window)).tolist()
            for x in self
        )
        return Curve(kl, scores)


def score_at_kl(
    curves: Sequence[Curve], kl: float, width: int = 5
) -> Estimate | None:
    """Estimates the score with which runs first reach a KL.

    Each smoothed curve is followed up to the first point that far out, and
    read by a straight line from the point before.

    Args:
        curves: one a seed.
        kl: in nats.
        width: of `Curve.smooth`.

    Returns:
        Mean and standard error over the curves (0 for one curve); None where
        not every curve comes that far.

    Raises:
        ValueError: there is no curve, or an empty one.

    Example:
        >>> runs = [Curve([0, 2], [0, 4]), Curve([0, 1], [0, 4])]
        >>> score_at_kl(runs, 1.0, width=1)
        Estimate(value=3.0, stderr=1.0)
    """
    if not curves or not all(curve.kl for curve in curves):
        raise ValueError("`score_at_kl` needs at least one curve, none empty.")
    found = []
    for curve in curves:
        kls, scores = curve.smooth(width)
        later = next((i for i, x in enumerate(kls) if x >= kl), None)
        if later is None:
            return None
        before = max(later - 1, 0)
        step = kls[later] - kls[before]
        share = (kl - kls[before]) / step if step > 0 else 1.0
        found.append(scores[before] + share * (scores[later] - scores[before]))
    spread = np.std(found, ddof=1) if len(found) > 1 else 0.0
    return Estimate(float(np.mean(found)), float(spread / np.sqrt(len(found))))


def plot_frontier(
    path: str | pathlib.Path,
    runs: Mapping[str, Sequence[Curve]],
    beside: Mapping[str, Curve] | None = None,
) -> None:
    """Draws score over KL, a line a run, as a picture.

    Args:
        path: of the picture; its ending names the format.
        runs: name to the curves of its seeds, which share a colour.
        beside: name to what is not a run, drawn as dashes with dots.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib import figure
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib: pip install tfrlhf[plots]."
        ) from error
    canvas = figure.Figure(figsize=(10, 6))
    axes: Any = canvas.subplots()
    for index, (name, curves) in enumerate(runs.items()):
        for number, curve in enumerate(curves):
            axes.plot(
                *curve.smooth(),
                color=f"C{index % 10}",
                linestyle="-" if index < 10 else ":",
                label=name if number == 0 else None,
                linewidth=1.2,
            )
    for name, curve in (beside or {}).items():
        axes.plot(*curve, "k.--", label=name)
    axes.set_xlabel("KL to the policy before training (nats)")
    axes.set_ylabel("score")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    canvas.tight_layout()
    canvas.savefig(path, dpi=110)
