from collections import Counter

import pytest

from benchmarks.costs import kinds


def test_operations_are_sorted_into_kinds():
    seconds = Counter(
        {
            "_MklMatMul": 4.0,
            "_MklNativeFusedMatMul": 2.0,
            "_MklBatchMatMulV2": 2.0,
            "ResourceApplyAdam": 1.0,
            "Gather": 1.0,
        }
    )
    shares = kinds(seconds)
    assert next(iter(shares)) == "products of layers and head"
    assert shares == pytest.approx(
        {
            "products of layers and head": 0.6,
            "products of attention": 0.2,
            "Adam, norm of gradients": 0.1,
            "other": 0.1,
        }
    )
