"""Numbers as answers, as in GSM8K."""

import re
from fractions import Fraction
from numbers import Real
from typing import Any
from typing import NamedTuple

from tfrlhf.rewards.arguments import column

MARK = "####"
_NUMBER = re.compile(
    r"""(?<![A-Za-z_.\d])        # not in the middle of a word or a number
    (?P<sign>[-−+]?)[$€£¥]?(?P<minus>[-−]?)
    (?:(?P<top>\d+)/(?P<bottom>\d+)(?!\d)
      |(?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?P<rest>\.\d+)?(?<=\d))
    (?P<percent>\s?[%％])?""",
    re.VERBOSE,
)


class Number(NamedTuple):
    """A number as it was written.

    Attributes:
        value: what stands before a percent sign.
        percent: whether there is one.
    """

    value: Fraction
    percent: bool = False

    def equals(self, other: "Number") -> bool:
        """Compares exactly; 50% equals 50 and 0.5 and 50%, not 0.5%."""
        mine = self.value / 100 if self.percent else self.value
        theirs = other.value / 100 if other.percent else other.value
        return self.value == other.value or mine == theirs


class NumericAnswer:
    """Scores 1 where the response's number is the right one, else 0.

    The number is the first one after the last "####" (GSM8K, Cobbe et al.,
    2021), or without a mark the last one of the text. It is compared exactly,
    as a fraction: 1,200 = 1200.00, 1/2 = 0.5, $3 = 3.

    Args:
        column: each value a number, or a text that holds it, such as the
            whole solution of GSM8K.

    Example:
        >>> reward = NumericAnswer()
        >>> reward(["6 · 200?"], ["So it is $1,200.00."], answer=["#### 1200"])
        [1.0]
    """

    def __init__(self, column: str = "answer") -> None:
        self.column = column

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one score a response, 0 or 1; 0 without a number."""
        golds = column("NumericAnswer", self.column, columns, len(responses))
        right = [self._gold(row, gold) for row, gold in enumerate(golds)]
        found = [find_number(response) for response in responses]
        return [
            float(number is not None and number.equals(gold))
            for number, gold in zip(found, right, strict=True)
        ]

    def _gold(self, row: int, gold: Any) -> Number:
        number = None
        if isinstance(gold, Real):
            number = Number(Fraction(str(gold)))
        elif isinstance(gold, str):
            number = find_number(gold)
        if number is None:
            raise ValueError(
                "NumericAnswer needs a number, or a text with one, in the "
                f"column {self.column!r}. Received in row {row}: {gold!r}"
            )
        return number


def find_number(text: str) -> Number | None:
    """Finds the number a text ends in, or gives after "####".

    Args:
        text: any text.

    Returns:
        The number; None if there is none.

    Example:
        >>> find_number("2 + 3 = 5, so 5% more")
        Number(value=Fraction(5, 1), percent=True)
    """
    _, mark, marked = text.rpartition(MARK)
    found = [_read(match) for match in _NUMBER.finditer(marked)]
    numbers = [number for number in found if number is not None]
    if not numbers:
        return None
    return numbers[0] if mark else numbers[-1]


def _read(match: re.Match[str]) -> Number | None:
    part = match.groupdict()
    try:
        if part["top"]:
            value = Fraction(int(part["top"]), int(part["bottom"]))
        else:
            whole = (part["whole"] or "0").replace(",", "")
            value = Fraction(whole + (part["rest"] or ""))
    except (ValueError, ZeroDivisionError):
        # Thousands of digits, or a division by 0.
        return None
    negative = part["sign"] in ("-", "−") or part["minus"]
    return Number(-value if negative else value, part["percent"] is not None)
