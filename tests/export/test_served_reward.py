import numpy as np
import pytest
import tensorflow as tf

from tests.export.small_models import small_reward
from tests.texts import ADVERSARIAL
from tests.texts import BILINGUAL
from tfrlhf import Tokenizer
from tfrlhf.export import GraphTokenizer
from tfrlhf.export.served_reward import TextReward


@pytest.mark.parametrize("kind", ["trained", "stories"])
def test_pairs_are_scored_whether_the_prompt_is_a_prefix_or_not(kind, request):
    if kind == "trained":
        tokenizer = Tokenizer.train(BILINGUAL, 300)
    else:
        directory = request.getfixturevalue("stories_directory")
        tokenizer = Tokenizer.from_directory(directory)
    texts = [text for text in ADVERSARIAL if 3 < len(text) < 20]
    pairs = [(text[:cut], text[cut:]) for text in texts for cut in (1, 2, 3)]
    pairs += [("a", ""), ("a", "  "), (" ", "a")]
    prompts, responses = zip(*pairs, strict=True)
    joined = [tokenizer.encode_pair(*pair)[2] for pair in pairs]
    assert 5 < sum(joined) < len(pairs) - 5
    reward = small_reward(tokenizer)
    served = TextReward(reward, tokenizer, GraphTokenizer(tokenizer))
    texts = tf.constant(prompts), tf.constant(responses)
    scores = served.score(*texts)["scores"]
    expected = reward.score(list(prompts), list(responses))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
