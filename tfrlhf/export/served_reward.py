"""What the SavedModel of a reward model computes, for ids and for text."""

from typing import Any

import tensorflow as tf

from tfrlhf.data.prompts import end_of_sequence
from tfrlhf.export import requests
from tfrlhf.export.graph_tokenizer import GraphTokenizer
from tfrlhf.models import RewardModel
from tfrlhf.models import Tokenizer
from tfrlhf.types import Tensor


class IdReward:
    """The signature of a reward model whose clients tokenise.

    Args:
        reward: `RewardModel`.
    """

    def __init__(self, reward: RewardModel) -> None:
        self._reward = reward

    def signatures(self) -> dict[str, Any]:
        """Returns a `tf.function` for each name."""
        inputs = requests.id_inputs()
        return {"score_ids": requests.signature(self.score_ids, inputs)}

    def score_ids(
        self, token_ids: Tensor, padding_mask: Tensor
    ) -> dict[str, Tensor]:
        """Scores ids and their mask, int32 [B, S].

        Returns:
            scores float32 [B].
        """
        context = self._reward.context_length
        width = tf.shape(token_ids)[1]
        checks = [
            requests.require_rows(token_ids, padding_mask),
            requests.require(
                width <= context,
                f"`token_ids` has {{}} columns, more than the {context} of the "
                "model's context: send fewer.",
                [width],
            ),
        ]
        rows = requests.after(checks, [token_ids, padding_mask])
        return {"scores": self._reward.call(*rows)}


class TextReward(IdReward):
    """The signatures of a reward model that tokenises in the graph.

    Args:
        reward: `RewardModel`.
        host: its tokenizer.
        tokenizer: the same, for graphs.

    Raises:
        ValueError: the tokenizer has no EOS.
    """

    def __init__(
        self, reward: RewardModel, host: Tokenizer, tokenizer: GraphTokenizer
    ) -> None:
        super().__init__(reward)
        self._tokenizer = tokenizer
        self._end = end_of_sequence(host, reward.context_length)
        self._pad_id = host.pad_id
        self._opening = len(host.encode(""))

    def signatures(self) -> dict[str, Any]:
        """Returns a `tf.function` for each name."""
        inputs = [
            requests.text_input(name) for name in ("prompts", "responses")
        ]
        function = requests.signature(self.score, inputs)
        return {"serving_default": function, "score": function}

    def score(self, prompts: Tensor, responses: Tensor) -> dict[str, Tensor]:
        """Scores responses to prompts, both string [B], as RewardModel.score.

        Returns:
            scores float32 [B].
        """
        count = [tf.size(prompts), tf.size(responses)]
        checks = [
            requests.require_some("prompts", prompts),
            requests.require(
                count[0] == count[1],
                "There are {} `prompts` and {} `responses`: send as many of "
                "the one as of the other.",
                count,
            ),
        ]
        sequences = self._sequences(
            *requests.after(checks, (prompts, responses))
        )
        lengths = tf.cast(sequences.row_lengths(), tf.int32)
        context = self._reward.context_length
        longest = tf.argmax(lengths, output_type=tf.int32)
        check = requests.require(
            tf.reduce_all(lengths <= context),
            "`prompts` and `responses` {} are {} tokens long with EOS, more "
            f"than the {context} of the model's context: shorten them.",
            [longest, tf.gather(lengths, longest)],
        )
        padded = requests.padded(sequences, self._pad_id)
        return {"scores": self._reward.call(*requests.after([check], padded))}

    def _sequences(self, prompts: Tensor, responses: Tensor) -> tf.RaggedTensor:
        """Ids of prompts with responses and EOS, as `Tokenizer.encode_pair`."""
        first = self._tokenizer.encode(prompts)
        lengths = first.row_lengths()
        check = requests.require(
            tf.reduce_all(lengths > 0),
            "`prompts` {} has no tokens: write its text.",
            [tf.argmin(lengths)],
        )
        first = requests.after([check], first)
        whole = self._tokenizer.encode(tf.strings.join([prompts, responses]))
        rest = self._tokenizer.encode(responses)[:, self._opening :]
        apart = tf.concat([first, rest], axis=1)
        wanted = first.to_tensor(-1)
        start = whole.to_tensor(-1, shape=tf.shape(wanted))
        joins = tf.reduce_all((wanted == -1) | (wanted == start), axis=1)
        count = tf.size(prompts)
        row = tf.range(count) + tf.where(joins, 0, count)
        sequences = tf.gather(tf.concat([whole, apart], axis=0), row)
        ends = tf.fill([count, 1], self._end)
        return tf.concat([sequences, ends], axis=1)
