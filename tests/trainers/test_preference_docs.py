"""docs/preference_optimization.md does what it says."""

import re

import pytest

import tfrlhf
from tests import small
from tests.conformance import support
from tests.conformance.test_metrics import documented
from tests.conftest import ROOT
from tests.modes import normal
from tfrlhf.trainers import preference_metrics

DOCUMENT = ROOT / "docs" / "preference_optimization.md"


@pytest.mark.filterwarnings("ignore:Even though the `tf.config.exp")
def test_the_blocks_run(eagerly, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = DOCUMENT.read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 4
    size = small.tokenizer().vocabulary_size
    model = support.table_model(normal(1, size, size))
    names = {
        "policy": tfrlhf.Policy(model, small.tokenizer(), small.CONTEXT),
        "reward": lambda prompts, responses: [float(len(r)) for r in responses],
    }
    for block in blocks:
        exec(block, names)
    assert len(list((tmp_path / "runs" / "reference").iterdir())) == 1


def test_every_metric_is_documented():
    logged = {*preference_metrics.PAIRS, *preference_metrics.RATINGS}
    assert documented("Direct") == logged | {"gradient_norm"}
