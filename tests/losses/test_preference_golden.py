"""What TRL 1.16 computed, recorded by `tests/peers/dpo.py`."""

import json

import pytest

from tests.conftest import ROOT
from tests.peers import dpo

RECORDING = json.loads(
    (ROOT / "tests/golden/preference_losses.json").read_text("utf-8")
)


def test_the_losses_are_those_of_trl():
    assert RECORDING["versions"]["trl"] == "1.16.0"
    found = dpo.loss_differences(RECORDING)
    assert set(found) >= {"DPO", "cDPO", "robust DPO", "IPO", "SimPO", "KTO"}
    assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=dpo.TOLERANCE)


def test_another_number_is_noticed():
    changed = json.loads(json.dumps(RECORDING))
    for setting in changed["paired"] + changed["simpo"]:
        setting["losses"][2] += 1e-3
    for setting in changed["orpo"]:
        setting["penalties"][0] += 1e-3
    for setting in changed["kto"]["settings"]:
        setting["batch_loss"] += 1e-3
    found = dpo.loss_differences(changed)
    assert min(found.values()) > dpo.TOLERANCE
