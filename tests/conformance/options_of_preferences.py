"""What is seen of the options of preference optimisation."""

import keras
import numpy as np
import tensorflow as tf

import tfrlhf
from tests.conformance import support
from tests.learning import tables
from tests.trainers import test_preference_optimization as replicas
from tfrlhf import losses


class SeenDPO(tfrlhf.DPO):
    """Keeps the sizes, and whether a pass was traced."""

    def batch_losses(self, batch, training):
        self.rows.append(batch.token_ids.shape[0])
        self.traced = not tf.executing_eagerly()
        return super().batch_losses(batch, training)


def models():
    return (
        tables.policy(replicas.TABLE),
        tables.policy(replicas.REFERENCE),
    )


def of_dpo(**changed):
    """Logs, weights and sizes of a step, without tracing unless asked."""
    dpo = SeenDPO(*models())
    dpo.rows = []
    settings = {
        "optimizer": keras.optimizers.SGD(0.5),
        "clip_norm": None,
        "jit_compile": False,
        "run_eagerly": True,
    } | changed
    dpo.compile(settings.pop("optimizer"), **settings)
    logs = dpo.fit(replicas.preferences(), batch_size=8, verbose=0).history
    return {
        "logs": logs,
        "weights": float(np.sum(np.abs(tables.table_of(dpo.policy)))),
        "rows": dpo.rows,
        "traced": dpo.traced,
    }


def of_online(settings=None, **changed):
    """All that one iteration of online DPO leaves."""
    policy, reference = models()
    online = tfrlhf.OnlineDPO(policy, support.lengths, reference)
    all_settings = {
        "optimizer": keras.optimizers.SGD(0.5),
        "sampler": tables.SAMPLER,
        "jit_compile": False,
        "clip_norm": None,
    }
    all_settings |= changed | (settings or {})
    online.compile(all_settings.pop("optimizer"), **all_settings)
    logs = support.iterate(online, [tables.START] * 6)
    return {
        "logs": sorted(logs.items()),
        "responses": online.last_iteration.responses,
        "weights": float(np.sum(np.abs(tables.table_of(policy)))),
    }


def bare_dpo():
    return tfrlhf.DPO(*models())


def bare_online():
    return tfrlhf.OnlineDPO(tables.policy(), support.lengths)


OPTIONS = {
    tfrlhf.DPO.compile: (
        of_dpo,
        {
            "optimizer": lambda: keras.optimizers.Adam(0.5),
            "loss": losses.IPOLoss,
            "sft_weight": 0.5,
            "micro_batches": 2,
            "clip_norm": 0.01,
            "run_eagerly": False,
            "jit_compile": True,
        },
    ),
    tfrlhf.OnlineDPO.compile: (
        of_online,
        {
            "optimizer": lambda: keras.optimizers.Adam(0.5),
            "loss": losses.IPOLoss,
            "sampler": tfrlhf.Sampler(0.5, max_new_tokens=4),
            "jit_compile": True,
            "settings": {"sft_weight": 0.5},
        },
    ),
}
