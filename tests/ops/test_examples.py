import doctest
import importlib

import pytest

MODULES = [
    "tfrlhf.checks",
    "tfrlhf.ops.advantages",
    "tfrlhf.ops.distribute",
    "tfrlhf.ops.groups",
    "tfrlhf.ops.kl",
    "tfrlhf.ops.log_probs",
    "tfrlhf.ops.masking",
    "tfrlhf.ops.rewards",
    "tfrlhf.ops.sequences",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name):
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted > 0
    assert failed == 0
