"""The gold reward of the embedded corpus: how a shop answers a review.

It stands in for the people a reward model learns from: it labels the corpus's
preferences and measures trained policies, and PPO never sees it. The formula
was fixed before any training:

    +1    thanks
    +1    an apology, or shared joy
    +1    a remedy or an offer
    +1    an invitation to come back
    +0.5  a content word of the review is taken up
    -1.5  a dismissive remark
    -1    not in the review's language
    -2    x (1 - distinct word bigrams / word bigrams)
    -1    x the share by which the length misses 8 to 30 words, at most 1

A reply without a word scores -3 in all. Each term counts once. A word is a
Latin word or one CJK character, which counts as half a word of length.

English and simplified Chinese, by lists of phrases that were made while reading
the corpus's training replies. They find most, not all, and know no grammar:
"not sorry" is an apology to them.
"""

import re
from itertools import pairwise

from tfrlhf.rewards.words import CJK
from tfrlhf.rewards.words import words

EMPTY = -3.0
DISMISSIVE = -1.5
OTHER_LANGUAGE = -1.0
TAKEN_UP = 0.5
REPETITION = -2.0
SHORTEST = 8
LONGEST = 30


def _phrases(english: str, chinese: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{english})\b|{chinese}")


COURTESIES = {
    "thanks": _phrases(r"thank(s|ful)?|grateful", r"谢|多亏"),
    "sympathy": _phrases(
        r"sorry|apolog\w+|regret|forgive|excuse us|ashamed|shocked|understand"
        r"|glad|happy|delighted|pleas(ed|ure)|joy|love(d|ly)?|wonderful|proud"
        r"|honou?r|congratulations|touched",
        r"抱歉|对不起|道歉|不好意思|过意不去|原谅|内疚|惭愧|难过|心疼"
        r"|辛苦|受苦|是我们(的错|错|不|做得)|开心|高兴|幸福|感动|骄傲|恭喜"
        r"|放心|温暖|笑了|太[好棒可]|真[好棒]",
    ),
    "remedy": _phrases(
        r"refund\w*|replac\w+|exchang\w+|repair\w*|fix(ed)?|discount|voucher"
        r"|percent|half price|free|gift|treat|offer|new one|on (us|the house)"
        r"|pay (back|for)|paid by us|back (to|on) you\w*|money back|call us"
        r"|(no|any) (extra )?cost|costs you nothing"
        r"|(call|bring|give|send|lend) you|we will (call|send|bring|carry|pay)",
        r"退[款钱还您回给]|全[退免额赔]|赔|[补再新]寄|寄[一出新给]|补发|重做"
        r"|换[新大一]|更换|修好|上门|免费|不收|[半八九]折|半价|优惠|便宜|包邮"
        r"|送[您他她它给一两]|我们[送出]|请您[吃喝]|给您[换留修调]|电话|联系",
    ),
    "invitation": _phrases(
        r"come (back|again|by|in|soon|and)|see(ing)? you|hope to see|welcome"
        r"|look forward|your next|next visit|(try|join|visit) us|invite"
        r"|(visit|book|join|try|you|us) again|whenever you|waiting for you"
        r"|bring (her|him|them)",
        r"欢迎|再[来见]|常来|期待|光临|等[您着你]|来[玩坐尝]|随时"
        r"|下次(?=.{0,6}[您来送免])",
    ),
}
DISMISSED = _phrases(
    r"(nobody|no one|every(one|body)) (else|made|knows|complain\w+)|anyone can"
    r"|other (people|customers|guests)|not (my|our) (fault|problem|job)"
    r"|not (us|ours)|(our|his|her) job|your (own|fault)|(?<!enjoy )yourself"
    r"|you know|we know (it|how to)|what did you|so what|now what|anyway"
    r"|be happy|not that|over it|deal with it|you (probably|can always)"
    r"|you (should|could) have (asked|checked|paid|picked|bought|made|known)"
    r"|(it|that|they|our \w+) (is|was|are|were) (enough|normal|fine)"
    r"|of course (it|they|we|the)|(it|they) (is|was|are) (just|only)(?! fair)"
    r"|that is (how|what|when)(?! we)|(?<=, )right(?=\?)|(?<=, )not an?"
    r"|(?P<thing>\w+) (is|are) (an? )?(?P=thing)"  # A table is a table.
    r"|(^|(?<=[.!?] ))(then(?! we)|do not(?! worry)|stop(?! (by|in))|learn"
    r"|buy(?! one)|read|watch|wait until|teach|train|put|turn|wear)",
    # 你 where a shop says 您, unless thanked, given or wished something.
    r"(?<![谢给请为祝让迎陪帮向对跟])你(?!们|好)|别人|谁[让知叫逼]|嫌"
    r"|自己[看带加缝摔拿水去修洗举早点]|就行|不就|就好了|就别|又不|本来就"
    r"|当然[不会好]|很正常|怎么了|而已|罢了|不错了|没办法|[可了]不管"
    r"|有什么[奇好]|不算[快多远]|哪里都|[嘛呗]"
    r"|(^|[，。])别(?!客气|担心|着?急|生气|难过)",
)

STOP_WORDS = frozenset(
    "about after again also always because been before being both came come "
    "could does down each even ever every from gave give good great have here "
    "into just know like made make many more most much next nice nobody none "
    "only other over please really reply review said same should some sorry "
    "still such take than thank thanks that their them then there these they "
    "this time told took very want wanted were what when where which while "
    "whole will with without would your".split()
)
STOP_CHARACTERS = frozenset(
    "的了是我您你他她它们在不没也就都很还一二三两这那有和给让到来去又再着过得"
    "上下里个么说要会能可以对把被太真好多吗吧啊呢"
)
FRAME = ("评价", "回复")

PAIR = re.compile(rf"(?=({CJK}{CJK}))")  # Overlapping.


def courtesy(
    prompts: list[str], responses: list[str], **columns: object
) -> list[float]:
    """Scores how courteous and helpful shop replies to reviews are.

    The formula stands at the top of the module. The words "Review" and
    "Reply", which frame the review in a prompt, are no content words.

    Args:
        prompts: the reviews, with or without their frame.
        responses: one reply for each.
        **columns: the prompts' other columns; not read.

    Returns:
        One score a reply, from -5.5 to 4.5.

    Raises:
        ValueError: if there are not as many responses as prompts.

    Example:
        >>> review = "The soup was cold."
        >>> warm = "Sorry about the soup! Come back for a free bowl, thank you."
        >>> courtesy([review, review], [warm, "The soup is made of leek."])
        [4.5, 0.25]
    """
    if len(prompts) != len(responses):
        raise ValueError(
            "courtesy needs one response for each prompt. Received: "
            f"{len(prompts)} prompts and {len(responses)} responses."
        )
    return [_score(*pair) for pair in zip(prompts, responses, strict=True)]


def _score(prompt: str, response: str) -> float:
    found = words(response)
    if not found:
        return EMPTY
    text = response.lower().strip()
    score = float(sum(bool(x.search(text)) for x in COURTESIES.values()))
    if DISMISSED.search(text):
        score += DISMISSIVE
    if _is_chinese(found) != _is_chinese(words(prompt)):
        score += OTHER_LANGUAGE
    if _content(prompt) & _content(response):
        score += TAKEN_UP
    bigrams = list(pairwise(found))
    if bigrams:
        score += REPETITION * (1 - len(set(bigrams)) / len(bigrams))
    return score - _length_penalty(found)


def _is_chinese(found: list[str]) -> bool:
    return 2 * sum(bool(re.match(CJK, word)) for word in found) > len(found)


def _length_penalty(found: list[str]) -> float:
    length = sum(0.5 if re.match(CJK, word) else 1.0 for word in found)
    short = max(0.0, (SHORTEST - length) / SHORTEST)
    long = min(1.0, max(0.0, (length - LONGEST) / LONGEST))
    return short + long


def _content(text: str) -> set[str]:
    """Content words: long Latin words, plural s off, and pairs of CJK."""
    latin = {
        word[:-1] if word.endswith("s") and not word.endswith("ss") else word
        for word in words(text)
        if len(word) >= 4 and word not in STOP_WORDS
    }
    pairs = {
        pair
        for pair in PAIR.findall(text)
        if pair not in FRAME and not STOP_CHARACTERS.intersection(pair)
    }
    return latin | pairs
