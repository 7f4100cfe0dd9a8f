"""Records to train on and records held out."""

import random
from collections.abc import Sequence

from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record


def split_by_prompt(
    records: Sequence[Record],
    seed: int = 0,
    share: float = 0.2,
    most: int = 200,
) -> tuple[list[Record], list[Record]]:
    """Holds out some prompts with all their records.

    A prompt that is in several records is on one side only, so that nothing
    which is measured has been trained on.

    Args:
        records: with the string `prompt`.
        seed: which prompts are held out.
        share: of the prompts that is held out, at least two.
        most: prompts that are held out at the most.

    Returns:
        Records to train on and records held out, each in the order given.

    Raises:
        DataError: there are fewer than 4 prompts.

    Example:
        >>> records = [{"prompt": str(n % 10)} for n in range(20)]
        >>> [len(part) for part in split_by_prompt(records)]
        [16, 4]
    """
    prompts = list(dict.fromkeys(record["prompt"] for record in records))
    if len(prompts) < 4:
        raise DataError(
            f"The data has {len(prompts)} different prompts: at least 4 are "
            "needed, two to train on and two to hold out."
        )
    random.Random(seed).shuffle(prompts)
    held_out = set(prompts[: min(most, max(2, int(share * len(prompts))))])
    return (
        [r for r in records if r["prompt"] not in held_out],
        [r for r in records if r["prompt"] in held_out],
    )
