"""Comparisons out of clicks: what was skipped above a click was left."""

from collections.abc import Iterable
from typing import Any

from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record


def click_preferences(
    sessions: Iterable[Record],
    compare: str = "skipped",
    rivals: int = 3,
) -> list[dict[str, Any]]:
    """Makes a ranked list of each click: the clicked item, then its rivals.

    Readers look at items from the first place on: one that stands above a
    click and has none was seen and left (Joachims, 2002,
    https://doi.org/10.1145/775047.775067). What stands below may not have
    been seen.

    Args:
        sessions: {"prompt", "responses", "clicks"}: items in the order shown,
            and a 0 or 1 for each.
        compare: "skipped", with items above that have no click; "all", with
            all that have none.
        rivals: the most items that a clicked one is compared with, the
            nearest ones.

    Returns:
        Records {"prompt", "responses", "ranks"}, as `RewardModel` learns from
        with `ListwiseRanking`; a click without rivals makes none.

    Raises:
        DataError: no click has a rival.
        ValueError: another `compare`.

    Example:
        >>> session = {"prompt": "Maps", "responses": ["a", "b", "c"]}
        >>> click_preferences([session | {"clicks": [0, 0, 1]}])[0]["responses"]
        ['c', 'b', 'a']
    """
    if compare not in ("skipped", "all"):
        raise ValueError(
            "`compare` must be 'skipped' or 'all'. Received: "
            f"compare={compare!r}"
        )
    found = []
    for session in sessions:
        shown, clicks = session["responses"], session["clicks"]
        for place in range(len(shown)):
            if not clicks[place]:
                continue
            others = range(len(shown) if compare == "all" else place)
            left = [
                shown[i]
                for i in sorted(others, key=lambda i: abs(i - place))
                if not clicks[i] and shown[i] != shown[place]
            ]
            worse = list(dict.fromkeys(left))[:rivals]
            if worse:
                found.append(
                    {
                        "prompt": session["prompt"],
                        "responses": [shown[place], *worse],
                        "ranks": [0] + [1] * len(worse),
                    }
                )
    if not found:
        raise DataError(
            "No session has a click below an item without one: give more "
            "sessions, or compare with all items."
        )
    return found
