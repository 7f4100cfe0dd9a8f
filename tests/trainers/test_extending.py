"""docs/extending.md does what it says, and its algorithms are right."""

import re

import numpy as np
import pytest

import tfrlhf
from tests.conftest import ROOT
from tests.learning import tables
from tests.trainers import test_critic_free as replica

DOCUMENT = ROOT / "docs" / "extending.md"
CLIP = 0.02


@pytest.fixture(scope="module")
def extension():
    """Names after running the page on a policy that is a table."""
    text = DOCUMENT.read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 5
    assert len(blocks[0].splitlines()) < 120
    names = {
        "policy": tables.policy(),
        "reward": replica.graded,
        "prompts": [tables.START] * 4,
    }
    for block in blocks:
        exec(block, names)
    return names


def slopes_of_cispo(variant, new, old, ref, advantages, share):
    weights = [
        min(np.exp(n - o), 1 + CLIP) for n, o in zip(new, old, strict=True)
    ]
    return [-share * w * a for w, a in zip(weights, advantages, strict=True)]


def optimal_baseline(rewards):
    found = []
    for start in range(0, len(rewards), replica.GROUP):
        group = rewards[start : start + replica.GROUP]
        tokens = sum(len(row) for row in group)
        baseline = sum(len(row) * sum(row) for row in group) / tokens
        found += [[sum(row) - baseline] * len(row) for row in group]
    return found


def check(monkeypatch, name, variant):
    monkeypatch.setitem(replica.VARIANTS, name, variant)
    replica.test_two_steps_are_those_of_the_loops(name)


def test_two_steps_of_the_loss(extension, monkeypatch):
    monkeypatch.setattr(replica, "slopes", slopes_of_cispo)
    loss = extension["CISPOLoss"](clip=CLIP, value_weight=0.0)
    settings = replica.group() | {"loss": loss}
    standardised = replica.in_groups(replica.standardised)
    check(
        monkeypatch,
        "CISPO",
        replica.Variant(extension["CISPO"], standardised, settings),
    )


def test_two_steps_of_the_estimator(extension, monkeypatch):
    check(
        monkeypatch,
        "OPO",
        replica.Variant(
            tfrlhf.RLOO,
            optimal_baseline,
            {
                "advantage": extension["OptimalBaseline"](replica.GROUP),
                "kl": tfrlhf.FixedKL(0.1),
            },
            reward_kl=0.1,
        ),
    )


def test_a_clipped_weight_still_learns(extension):
    # PPO's clip would stop these tokens.
    ours = replica.Variant(
        extension["CISPO"],
        None,
        replica.group()
        | {"loss": extension["CISPOLoss"](clip=CLIP, value_weight=0.0)},
    )
    theirs = replica.Variant(
        tfrlhf.GRPO,
        None,
        replica.group() | {"loss": tfrlhf.losses.PPOLoss(clip=CLIP)},
    )
    far, near = (
        np.abs(
            tables.table_of(replica.trained(v, update_epochs=4).policy)
            - tables.start_table()
        ).max()
        for v in (ours, theirs)
    )
    assert far > 1.5 * near
