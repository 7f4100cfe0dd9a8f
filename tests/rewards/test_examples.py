"""The examples in the docstrings."""

import doctest
import importlib

import pytest

RUN = {
    "answers": 3,
    "arguments": 1,
    "classifier": 1,
    "combination": 1,
    "form": 3,
    "labels": 3,
    "numeric": 2,
    "retrieval": 1,
    "safety": 2,
    "text_overlap": 3,
}


@pytest.mark.parametrize("name", RUN)
def test_examples(name):
    module = importlib.import_module(f"tfrlhf.rewards.{name}")
    names = vars(importlib.import_module("tfrlhf.rewards")) | vars(module)
    found = doctest.DocTestFinder(exclude_empty=True).find(module, globs=names)
    runner = doctest.DocTestRunner()
    for example in found:
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0
    assert sum(bool(example.examples) for example in found) == RUN[name]
