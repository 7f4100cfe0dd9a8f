"""VADER's compound score, with the numbers of its paper's examples."""

import pytest

from tfrlhf.rewards import vader

pytest.importorskip("vaderSentiment", reason="vaderSentiment is not installed")


def test_compound_scores():
    # The first three are in the documentation of vaderSentiment.
    responses = [
        "VADER is smart, handsome, and funny.",
        "VADER is smart, handsome, and funny!",
        "VADER is not smart, handsome, nor funny.",
        "A lovely day.",
        "A sad, ugly day.",
        "",
    ]
    scores = vader([""] * 6, responses, source=["a"] * 6)
    assert [type(score) for score in scores] == [float] * 6
    assert scores == pytest.approx(
        [0.8316, 0.8439, -0.7424, 0.5859, -0.7506, 0.0]
    )


def test_scores_do_not_depend_on_the_batch_or_the_prompts():
    responses = ["Good.", "Bad.", "A table."]
    together = vader(["x"] * 3, responses)
    assert together == [vader(["Terrible!"], [r])[0] for r in responses]
