import doctest
import importlib

import pytest

MODULES = [
    "alerts",
    "calibration",
    "diversity",
    "frontier",
    "labels",
    "ranking",
    "win_rate",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name):
    module = importlib.import_module(f"tfrlhf.evaluation.{name}")
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0
