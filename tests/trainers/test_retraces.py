"""Ragged data: after the first shapes nothing is traced anew."""

import keras
import keras_hub
import numpy as np

import tfrlhf
from tests import small
from tests.trainers.conftest import letters

WARM_UP, ITERATIONS = 20, 200
WORDS = "green", "old", "near the river", "small"
FUNCTIONS = (
    "_collect_function",
    "_experience_function",
    "_gradient_function",
    "_apply_function",
)


class Traces(keras.callbacks.Callback):
    """Counts the traces of every phase, and notes the lengths."""

    def __init__(self):
        super().__init__()
        self.counts, self.widths = [], set()

    def on_train_batch_end(self, batch, logs=None):
        rollout = self.model.last_iteration.rollout
        self.widths.add(rollout.token_ids.shape[1])
        functions = [vars(self.model)[name] for name in FUNCTIONS]
        functions.append(self.model._decoder.stage)
        self.counts.append(
            [f.experimental_get_tracing_count() for f in functions]
        )


def test_ragged_rollouts_trace_nothing_after_the_warm_up():
    policy = small.gpt2_policy(sharpness=4.0)
    ppo = tfrlhf.PPO(policy, letters, tfrlhf.ValueModel.from_policy(policy))
    ppo.compile(
        keras.optimizers.Adam(1e-5),
        # The end of a sentence, so that lengths differ.
        sampler=tfrlhf.Sampler(
            max_new_tokens=32, stop_token_ids=tuple(range(3, 20))
        ),
        update_epochs=1,
        micro_batches=2,
        jit_compile=False,
    )
    words = "the park is green and the trees are old " * 3
    rng = np.random.default_rng(0)
    prompts = [
        words[: int(n)].strip()
        for n in rng.integers(3, 60, 2 * (WARM_UP + ITERATIONS))
    ]
    traces = Traces()
    ppo.fit(prompts, batch_size=2, callbacks=[traces], verbose=0)
    assert len(traces.widths) > 2
    assert traces.counts[-1] == traces.counts[WARM_UP - 1]
    # The longest phases were traced for all lengths from the start.
    looks, _, gradients, *_ = traces.counts[-1]
    assert looks == gradients == 1


def test_layers_of_a_deep_model_are_traced_once(monkeypatch):
    traced = []
    kind = keras_hub.layers.TransformerDecoder
    plain = kind.call

    def noted(layer, *args, **kwargs):
        traced.append(layer.name)
        return plain(layer, *args, **kwargs)

    policy = tfrlhf.small_policy(
        tokenizer=small.tokenizer(), layers=6, width=32
    )
    sft = tfrlhf.SFT(policy)
    sft.compile("adam", jit_compile=False)
    monkeypatch.setattr(kind, "call", noted)
    records = [{"prompt": "the park", "response": f" is {x}"} for x in WORDS]
    sft.fit(records, batch_size=2, epochs=2, verbose=0)
    # The last one, whose states are read by place, is another.
    assert traced == ["transformer_layer_0", "transformer_layer_5"]
