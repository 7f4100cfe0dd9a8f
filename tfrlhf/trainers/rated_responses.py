"""Ratings with what KTO compares them to: responses to other prompts."""

import numpy as np

from tfrlhf.data.prompts import padded_rows
from tfrlhf.types import Ratings


def with_other_responses(
    ratings: Ratings, pad_id: int, max_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lays every prompt out twice: with its response and with another's.

    The other response is that of the next record with another prompt, or, if
    there is none, of the next record. Where it does not fit, its end is cut.

    Args:
        ratings: `Ratings` of B rows.
        pad_id: fills the rows.
        max_length: the most tokens of a row.

    Returns:
        Token ids, padding mask and response mask, int32 [B, 2, S].

    Raises:
        ValueError: a rating is neither 0 nor 1, or there is one record only.
    """
    ratings = Ratings(*(np.asarray(x) for x in ratings))
    wrong = ~np.isin(ratings.rating, (0.0, 1.0))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"KTO learns from ratings of 1 (good) and 0 (bad): record {row} "
            f"has {ratings.rating[row]:g}. Decide what is good first."
        )
    count = len(ratings.rating)
    if count < 2:
        raise ValueError(
            "KTO compares with responses to other prompts: give two records "
            "or more."
        )
    response = ratings.response_mask > 0
    prompt = (ratings.padding_mask > 0) & ~response
    prompts = [x[m].tolist() for x, m in zip(ratings[0], prompt, strict=True)]
    responses = [
        x[m].tolist() for x, m in zip(ratings[0], response, strict=True)
    ]
    rows = []
    for row, text in enumerate(prompts):
        others = ((row + step) % count for step in range(1, count))
        other = next(
            (i for i in others if prompts[i] != text), (row + 1) % count
        )
        room = max_length - len(text)
        rows += [(text, responses[row]), (text, responses[other][:room])]
    padded = padded_rows(rows, pad_id, max_length)
    ids, padding_mask, response_mask = (x.reshape(count, 2, -1) for x in padded)
    return ids, padding_mask, response_mask
