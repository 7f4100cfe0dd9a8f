"""Lists of messages as prompts: of `generate`, PPO and its rewards."""

import keras
import numpy as np
import pytest
import tokenizers

import tfrlhf
from tests import small
from tests.trainers.conftest import BATCH
from tests.trainers.conftest import letters
from tfrlhf import data
from tfrlhf import evaluation
from tfrlhf.rollout import as_columns
from tfrlhf.trainers.prompt_batches import PromptBatches

# It writes BOS itself, and ends a turn with EOS.
TEMPLATE = """{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}
{{ raise_exception('no tools here') }}{% endif %}{{ m.role[0] }}:{{ m.content }}
{%- if m.role == 'assistant' %}{{ eos_token }}{% endif %};{% endfor %}
{%- if add_generation_prompt %}a:{% endif %}"""
CHATS = [
    [{"role": "user", "content": "The park"}],
    [
        {"role": "system", "content": "Go"},
        {"role": "user", "content": "公园"},
    ],
    # The names of ShareGPT.
    [{"from": "human", "value": "12 trees"}],
    [{"role": "user", "content": "let us"}],
]
TEXTS = ["<s>u:The park;a:", "<s>s:Go;u:公园;a:", "<s>u:12 trees;a:"]
SAMPLER = tfrlhf.Sampler(temperature=0.7, max_new_tokens=4)


def chat_tokenizer(template=TEMPLATE):
    """The small one with BOS in front, and a template that writes it too."""
    backend = tokenizers.Tokenizer.from_str(small.tokenizer().to_json())
    # Of the model's 300 ids, none is spare: a rare one becomes BOS.
    token = backend.id_to_token(1)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, 1)]
    )
    return tfrlhf.Tokenizer(
        backend,
        bos_id=1,
        eos_id=0,
        pad_id=0,
        chat_template=template,
        chat_variables={"bos_token": token, "eos_token": "<|endoftext|>"},
    )


def chat_policy():
    policy = small.gpt2_policy(sharpness=4.0)
    policy.tokenizer = chat_tokenizer()
    return policy


def engine(reward, policy=None):
    ppo = tfrlhf.PPO(policy or chat_policy(), reward)
    ppo.compile(
        keras.optimizers.SGD(0.1),
        sampler=SAMPLER,
        advantage=tfrlhf.rollout.MovingBaseline(),
        update_epochs=1,
        jit_compile=False,
    )
    return ppo


def written(text):
    return text.replace("<s>", chat_tokenizer().chat_variables["bos_token"])


def test_generate_takes_one_conversation_or_several():
    policy = chat_policy()
    greedy = tfrlhf.Sampler(temperature=0, max_new_tokens=4)
    several = policy.generate(CHATS[:2], sampler=greedy)
    alone = policy.generate(CHATS[0], sampler=greedy)
    assert isinstance(alone, str)
    assert several[0] == alone and len(several) == 2
    ids = policy.encode_prompts(CHATS[:1], 4)
    length = int(ids.padding_mask.sum())
    row = ids.token_ids[0, :length].tolist()
    _, *expected = policy.tokenizer.encode(written(TEXTS[0]))
    # One BOS, the template's.
    assert row == expected and row.count(1) == 1


def test_a_reward_function_gets_text_and_messages(eagerly):
    seen = []

    def reward(prompts, responses, **columns):
        seen.append((prompts, columns))
        return letters(prompts, responses)

    ppo = engine(reward)
    records = [{"prompt": chat, "n": i} for i, chat in enumerate(CHATS)]
    ppo.fit(records, batch_size=BATCH, verbose=0)
    ((prompts, columns),) = seen
    for prompt, messages, n in zip(
        prompts, columns["messages"], columns["n"], strict=True
    ):
        assert messages is CHATS[n]
        if n < len(TEXTS):
            assert prompt == written(TEXTS[n])
    assert ppo.last_iteration.prompts == prompts
    rollout = ppo.last_iteration.rollout
    first = rollout.token_ids.numpy()[0].tolist()
    _, *expected = ppo.policy.tokenizer.encode(prompts[0])
    assert first[: len(expected)] == expected
    # Bare conversations, without the column `n`.
    ppo.evaluate(CHATS, batch_size=BATCH)
    assert set(seen[-1][1]) == {"messages"}


def test_strings_beside_messages_have_no_column_of_messages(eagerly):
    seen = []

    def reward(prompts, responses, **columns):
        seen.append((prompts, columns))
        return [1.0] * len(prompts)

    engine(reward).evaluate([CHATS[0], "The park"], batch_size=2)
    # The shortest comes first.
    assert seen == [(["The park", written(TEXTS[0])], {})]


def test_a_reward_model_reads_the_ids_of_the_rollout(eagerly):
    reward = small.reward_model(sharpness=4.0)
    reward.tokenizer = chat_tokenizer()
    ppo = engine(reward)
    ppo.fit(CHATS, batch_size=BATCH, verbose=0)
    rollout = ppo.last_iteration.rollout
    token_ids, mask = tfrlhf.rollout.with_end(rollout, 0)
    expected = reward.call(token_ids, mask).numpy()
    assert rollout.scores.numpy() == pytest.approx(expected, abs=1e-5)


def test_a_reward_model_writes_messages_by_its_own_template():
    reward = small.reward_model(sharpness=4.0)
    reward.tokenizer = chat_tokenizer(TEMPLATE.replace(":", "="))
    reward.tokenizer._backend.add_special_tokens(["<other>"])
    ppo = engine(reward)
    records = PromptBatches(CHATS, BATCH, 0).records
    assert not ppo.reward_reads_ids
    completions = ppo.rollout(CHATS, seed=0)
    responses = ["yes", "", " ", "go on"]
    scores = ppo.score(records, responses, completions)
    for chat, response, score in zip(CHATS, responses, scores, strict=True):
        checked = data.prompts.check_prompt("", chat)
        whole = [*checked, {"role": "assistant", "content": response}]
        text = reward.tokenizer.render_chat(whole).removesuffix(";")
        (ids,) = reward.tokenizer.encode_many([text], opening=False)
        assert ids[0] == 1 and ids[-1] == 0 and ids.count(1) == 1
        row = np.array([ids], "int32")
        expected = reward.call(row, np.ones_like(row))
        assert float(score) == pytest.approx(float(expected[0]), abs=1e-5)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([{"role": "assistant", "content": "a"}], "record 1: `prompt.0..role`"),
        (
            [*CHATS[0], {"role": "assistant", "content": "a"}],
            "record 1: .*ends",
        ),
        (
            [
                *CHATS[0],
                {"role": "assistant", "content": "a"},
                {"role": "tool", "content": "b"},
            ],
            "record 1: `prompt` cannot be written: .*no tools here",
        ),
        (
            [{"role": "user", "content": "park " * 60}],
            "record 1: .*tokens long",
        ),
    ],
)
def test_bad_conversations_stop_before_the_training(bad, message):
    ppo = engine(letters)
    for chats, more in (([CHATS[0], bad], {}), (CHATS, {"v": [CHATS[0], bad]})):
        with pytest.raises(data.DataError, match=message) as caught:
            ppo.fit(chats, validation_data=more.get("v"), verbose=0)
        assert "\n" not in str(caught.value)
    assert ppo.last_iteration is None


def test_a_policy_without_a_template():
    ppo = engine(letters, small.gpt2_policy())
    with pytest.raises(data.DataError, match="record 0: .*no chat template"):
        ppo.fit(CHATS, verbose=0)


def test_a_column_of_the_same_name():
    record = {"prompt": CHATS[0], "messages": []}
    with pytest.raises(ValueError, match="rename the column"):
        PromptBatches([record], 1, 0)
    # With text it is a column like any other.
    assert as_columns([{"prompt": "a", "messages": 1}])[1] == {"messages": [1]}


def test_compare_shows_the_text():
    policy = chat_policy()
    seen = []

    def score(prompts, responses):
        seen.append(prompts)
        return list(range(len(prompts)))

    result = evaluation.compare(policy, policy, CHATS, SAMPLER, score, score)
    assert all(prompts[:3] == list(map(written, TEXTS)) for prompts in seen)
    assert result["samples"][0][0] == written(TEXTS[0])
