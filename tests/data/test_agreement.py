"""Agreement of annotators, against published numbers and plain loops."""

import doctest

import numpy as np
import pytest

from tfrlhf import data
from tfrlhf.data import agreement

# Krippendorff, 2011, section E: 4 observers, 12 units; interval α = 0.849.
OBSERVED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def ratings():
    return [
        {
            "prompt": "Q",
            "response": f" {unit}",
            "rating": value,
            "annotator": name,
        }
        for name, row in zip("ABCD", OBSERVED, strict=True)
        for unit, value in enumerate(row)
        if value is not None
    ]


def pair(annotator, number, first_wins, **more):
    one, other = f" yes {number}", f" no {number}"
    chosen, rejected = (one, other) if first_wins else (other, one)
    return {
        "prompt": f"Q{number}",
        "chosen": chosen,
        "rejected": rejected,
        "annotator": annotator,
    } | more


def votes(draws, errors):
    """Pairs judged by annotators of whom each errs in some share of them."""
    return [
        pair(name, number, bool(draws.random() > error))
        for name, error in errors.items()
        for number in range(60)
    ]


def test_ratings_have_the_published_alpha():
    found = data.annotator_agreement(ratings())
    assert found.alpha == pytest.approx(0.849, abs=5e-4)
    # Every judgement but unit 12's, which has no other beside it.
    assert found.judgements == {"A": 9, "B": 10, "C": 10, "D": 11}
    mean = sum(found.annotators[a] * n for a, n in found.judgements.items())
    assert found.alpha == pytest.approx(mean / 40)


def test_comparisons_agree_by_their_share():
    records = [pair("A", n, True) for n in range(8)]
    records += [pair("B", n, n < 6) for n in range(8)]
    records += [pair("A", 99, True), pair("C", 98, True)]
    found = data.annotator_agreement(records)
    assert found.alpha == pytest.approx(2 * 6 / 8 - 1)
    assert found.annotators == {"A": found.alpha, "B": found.alpha}
    assert found.judgements == {"A": 8, "B": 8}


def test_rankings_agree_pair_by_pair():
    base = {"prompt": "Q", "responses": [" a", " b", " c"]}
    records = [
        base | {"annotator": "A"},
        # The same responses in another order of writing: b a c.
        {"prompt": "Q", "responses": [" b", " c", " a"], "ranks": [0, 2, 1]}
        | {"annotator": "B"},
        base | {"ranks": [0, 1, 1], "annotator": "C"},
    ]
    found = data.annotator_agreement(records)
    # Of the pairs ab, ac, bc: A and B differ in 1, A and C in 1, B and C in 2.
    assert found.judgements == {"A": 3, "B": 3, "C": 3}
    ties = 1 / 9
    chance = 1 - ties**2 - (1 - ties) ** 2 / 2
    wanted = {"A": 1 / 3, "B": 1 / 2, "C": 1 / 2}
    for name, difference in wanted.items():
        assert found.annotators[name] == pytest.approx(1 - difference / chance)


def test_a_later_judgement_replaces_an_earlier_one():
    records = [pair("A", 1, False), pair("B", 1, True), pair("A", 1, True)]
    assert data.annotator_agreement(records).alpha == 1.0


def test_one_rating_for_all_is_agreement():
    records = [r | {"rating": 3} for r in ratings()]
    assert data.annotator_agreement(records).alpha == 1.0


def test_the_contrary_are_left_out():
    errors = {"good": 0.1, "fair": 0.1, "random": 0.5, "contrary": 0.9}
    records = votes(np.random.default_rng(0), errors)
    records.append(pair("alone", 999, True))
    found = data.annotator_agreement(records)
    # Beside the contrary one, the good ones are no better than this.
    assert found.annotators["good"] < 0.4 and found.annotators["contrary"] < 0
    kept = data.filter_annotators(records, minimum_agreement=0.4)
    assert {r["annotator"] for r in kept} == {"good", "fair", "alone"}
    assert kept == [r for r in records if r in kept]
    assert data.filter_annotators(records, -1.0) == records
    with pytest.raises(data.DataError, match="none of the 4 annotators"):
        data.filter_annotators(records[:-1], 1.1)


def test_weights_are_multiplied():
    records = [pair("A", 1, True, weight=2.0), pair("B", 1, True)]
    weighed = data.weight_annotators(records, {"A": 0.25, "B": 3})
    assert [r["weight"] for r in weighed] == [0.5, 3.0]
    assert "weight" not in records[1] and records[0]["weight"] == 2.0
    again = data.weight_annotators(weighed, {"A": 0.0, "B": 1.0})
    assert [r["weight"] for r in again] == [0.0, 3.0]


def test_bad_records_are_named():
    one = pair("A", 1, True)
    nameless = {k: v for k, v in one.items() if k != "annotator"}
    both = [one, ratings()[0]]
    for call, message in [
        (lambda: data.annotator_agreement([nameless]), "record 0: .*annotator"),
        (lambda: data.annotator_agreement([one]), "nothing that two"),
        (lambda: data.annotator_agreement(both), "record 1: .* mixed"),
        (
            lambda: data.annotator_agreement([one | {"annotator": 7}]),
            "record 0: `annotator` must be a string, not 7",
        ),
        (
            lambda: data.weight_annotators([one], {"B": 1.0}),
            "record 0: the annotator 'A' has no weight",
        ),
        (
            lambda: data.weight_annotators([one], {"A": -1.0}),
            "`weights` of 'A': `weight` must not be negative",
        ),
    ]:
        with pytest.raises(data.DataError, match=message):
            call()


def test_examples_in_docstrings_hold():
    names = vars(agreement) | {"records": [*ratings()]}
    failed, attempted = doctest.testmod(agreement, extraglobs=names)
    assert attempted > 0 and failed == 0
