"""Who among the annotators agrees: to measure, to leave out, to weigh.

Knows records with an `annotator` who compared or rated responses; no tokens.
"""

import json
import reprlib
from collections.abc import Iterable
from collections.abc import Mapping
from itertools import combinations
from typing import Any
from typing import NamedTuple

import numpy as np

from tfrlhf.data.preferences import ranked_responses
from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record
from tfrlhf.data.records import number_field
from tfrlhf.data.records import numbered_records
from tfrlhf.data.records import require
from tfrlhf.data.records import weight_field

# A judged thing to what each annotator said of it.
Judged = dict[Any, dict[str, float]]


class Agreement(NamedTuple):
    """How well annotators agree; 1 always, 0 as by chance, less if contrary.

    Attributes:
        alpha: of all of them.
        annotators: of each with the others; those who judged nothing that
            another one judged are not in it.
        judgements: how many of each one's judgements could be compared.
    """

    alpha: float
    annotators: dict[str, float]
    judgements: dict[str, int]


def annotator_agreement(records: Iterable[Record]) -> Agreement:
    """Measures Krippendorff's α, and what each annotator has to do with it.

    α = 1 − D_o / D_e. D_o is the mean difference between a judgement and
    those of the others on the same thing, D_e the one expected by chance
    (Krippendorff, 2011, https://repository.upenn.edu/asc_papers/43). An
    annotator's own agreement takes D_o over his judgements alone; α is the
    mean of these, weighted by `judgements`.

    Of ratings the difference is the squared one. Of a comparison each pair of
    responses is a thing that is judged, and two judgements are different or
    not; as either response may stand first, D_e = 1 − t² − (1 − t)²/2, where t
    is the share of ties: without ties, α is 2·(share that agrees) − 1.

    Args:
        records: preferences or ratings, each with its `annotator`; of several
            judgements of one thing by one annotator the last one counts.

    Returns:
        `Agreement`; 1 where all judgements are the same.

    Raises:
        DataError: a bad record, comparisons mixed with ratings, or nothing
            that two annotators judged.

    Example:
        >>> pair = {"prompt": "Hi", "chosen": " there", "rejected": " X"}
        >>> both = [pair | {"annotator": name} for name in ("Ann", "Bob")]
        >>> annotator_agreement(both).annotators
        {'Ann': 1.0, 'Bob': 1.0}
    """
    found = _agreement(*_judgements(records))
    if found is None:
        raise DataError(
            "`records` holds nothing that two annotators judged: agreement "
            "needs the same prompt with the same responses from several."
        )
    return found


def filter_annotators(
    records: Iterable[Record], minimum_agreement: float
) -> list[Record]:
    """Leaves out the annotators who agree too little with the others.

    The one who agrees least goes first, then agreement is measured anew, until
    all that are left reach the minimum. Who shares nothing with others stays.

    Args:
        records: see `annotator_agreement`.
        minimum_agreement: the least agreement of an annotator, at most 1.

    Returns:
        The records of those who stay, in their order.

    Raises:
        DataError: see `annotator_agreement`, or no annotator stays.

    Example:
        >>> kept = filter_annotators(records, minimum_agreement=0.2)
    """
    records = list(records)
    judged, is_rating = _judgements(records)
    out: set[str] = set()
    found = _agreement(judged, is_rating)
    while found and min(found.annotators.values()) < minimum_agreement:
        least = min(found.annotators.values())
        out |= {a for a, alpha in found.annotators.items() if alpha == least}
        judged = {
            thing: {a: x for a, x in said.items() if a not in out}
            for thing, said in judged.items()
        }
        found = _agreement(judged, is_rating)
    kept = [record for record in records if record["annotator"] not in out]
    if not kept:
        raise DataError(
            f"none of the {len(out)} annotators reaches minimum_agreement="
            f"{minimum_agreement}: lower it, or look at the records."
        )
    return kept


def weight_annotators(
    records: Iterable[Record], weights: Mapping[str, float]
) -> list[Record]:
    """Multiplies the weight of every record by its annotator's.

    Args:
        records: preferences or ratings, each with its `annotator`.
        weights: a number that is not negative for each annotator.

    Returns:
        Copies of the records with their `weight`.

    Raises:
        DataError: an annotator without a weight, or a bad weight.

    Example:
        >>> records = [{"prompt": "Hi", "annotator": "Ann", "weight": 2}]
        >>> weight_annotators(records, {"Ann": 0.5})[0]["weight"]
        1.0
    """
    weighed = []
    for where, record in numbered_records(records):
        annotator = _annotator(where, record)
        if annotator not in weights:
            raise DataError(
                f"{where}: the annotator {annotator!r} has no weight: add it "
                f"to `weights`, which has {reprlib.repr(sorted(weights))}."
            )
        factor = weight_field(
            f"`weights` of {annotator!r}", {"weight": weights[annotator]}
        )
        weight = weight_field(where, record) * factor
        weighed.append(record | {"weight": weight})
    return weighed


def _annotator(where: str, record: Record) -> str:
    annotator = require(where, record, "annotator")
    if not isinstance(annotator, str):
        raise DataError(
            f"{where}: `annotator` must be a string, not "
            f"{reprlib.repr(annotator)}: write a name or number in quotes."
        )
    return annotator


def _judgements(records: Iterable[Record]) -> tuple[Judged, bool]:
    """Returns what was judged, and whether it was rated or compared."""
    judged: Judged = {}
    kinds = set()
    for where, record in numbered_records(records):
        annotator = _annotator(where, record)
        kinds.add("rating" in record)
        if len(kinds) > 1:
            raise DataError(
                f"{where}: comparisons and ratings are mixed: measure the "
                "agreement of each kind apart."
            )
        for thing, judgement in _said(where, record):
            judged.setdefault(thing, {})[annotator] = judgement
    return judged, kinds == {True}


def _said(where: str, record: Record) -> list[tuple[Any, float]]:
    """Returns the things that a record judges with the judgements."""
    prompt = _key(require(where, record, "prompt"))
    if "rating" in record:
        response = _key(require(where, record, "response"))
        return [((prompt, response), number_field(where, record, "rating"))]
    responses, ranks = ranked_responses(where, record)
    ranked = sorted(zip(map(_key, responses.values()), ranks, strict=True))
    return [
        ((prompt, one, other), float(np.sign(second - first)))
        for (one, first), (other, second) in combinations(ranked, 2)
    ]


def _key(text: Any) -> str:
    return text if isinstance(text, str) else json.dumps(text, sort_keys=True)


def _agreement(judged: Judged, is_rating: bool) -> Agreement | None:
    """Returns None where nobody can be compared with anybody."""
    differences: dict[str, list[float]] = {}
    pooled: list[float] = []
    for said in judged.values():
        if len(said) < 2:
            continue
        values = np.array(list(said.values()))
        apart = values[:, None] - values[None, :]
        apart = apart**2 if is_rating else (apart != 0).astype(float)
        means = apart.sum(axis=1) / (len(values) - 1)
        for annotator, mean in zip(said, means, strict=True):
            differences.setdefault(annotator, []).append(float(mean))
        pooled += values.tolist()
    if not pooled:
        return None
    chance = _chance(np.array(pooled), is_rating)

    def alpha(observed: list[float]) -> float:
        return 1.0 - float(np.mean(observed)) / chance if chance else 1.0

    return Agreement(
        alpha([x for each in differences.values() for x in each]),
        {name: alpha(each) for name, each in differences.items()},
        {name: len(each) for name, each in differences.items()},
    )


def _chance(values: np.ndarray, is_rating: bool) -> float:
    """Returns the difference of two judgements drawn at random."""
    if is_rating:
        return 2.0 * float(values.var(ddof=1))
    ties = float(np.mean(values == 0))
    return 1.0 - ties**2 - (1.0 - ties) ** 2 / 2.0
