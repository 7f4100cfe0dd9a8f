"""Words of English and Chinese text, for rewards and measures over words."""

import re

CJK = "[㐀-鿿]"
_WORD = re.compile(rf"{CJK}|(?:(?!{CJK})[^\W_])+(?:'[a-z]+)?")


def words(text: str) -> list[str]:
    """Splits text into lower-case words and single CJK characters.

    Args:
        text: any text; punctuation separates.

    Returns:
        The words in order.

    Example:
        >>> words("It's hot, 很好!")
        ["it's", 'hot', '很', '好']
    """
    return _WORD.findall(text.lower().replace("’", "'"))
