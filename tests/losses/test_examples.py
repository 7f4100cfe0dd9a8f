import doctest
import importlib

import pytest

MODULES = [
    "tfrlhf.losses.policy",
    "tfrlhf.losses.preference",
    "tfrlhf.losses.preference_objectives",
    "tfrlhf.losses.ranking",
    "tfrlhf.losses.regression",
    "tfrlhf.losses.supervised",
    "tfrlhf.losses.value",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name):
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted > 0
    assert failed == 0
