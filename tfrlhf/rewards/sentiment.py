"""How positive a text sounds."""

from typing import Any


def vader(
    prompts: list[str], responses: list[str], **columns: Any
) -> list[float]:
    """Scores sentiment by VADER's compound score.

    A lexicon and rules for English (Hutto and Gilbert, 2014), from the package
    vaderSentiment: `pip install tfrlhf[sentiment]`.

    Args:
        prompts: not read.
        responses: one text for each prompt.
        **columns: not read.

    Returns:
        One score a response, from -1 (negative) to 1 (positive).

    Raises:
        ImportError: vaderSentiment is not installed.

    Example:
        >>> vader(["", ""], ["A lovely day.", "A sad, ugly day."])
        [0.5859, -0.7506]
    """
    # An extra: imported where it is needed.
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    return [
        float(analyzer.polarity_scores(response)["compound"])
        for response in responses
    ]
