"""The gold reward: hand-worked scores, and what each term is worth."""

import pytest

from tfrlhf.rewards import courtesy
from tfrlhf.rewards.courtesy import words

ENGLISH = "Review: The soup was cold and nobody came.\nReply:"
CHINESE = "评价：外卖的汤全洒了，袋子里都是油。\n回复："
# Ten words, none in a list, none in the review.
NEUTRAL = " Every evening two cooks stand in a small room upstairs"


def score(prompt, response):
    return courtesy([prompt], [response])[0]


@pytest.mark.parametrize(
    ("prompt", "response", "expected"),
    [
        # Sorry, refund, come back, soup; 11 words.
        (
            ENGLISH,
            " Sorry! We will refund your soup today. Please come back soon.",
            3.5,
        ),
        # The same with thanks: everything a reply can earn.
        (
            ENGLISH,
            " Thanks, and sorry! We refund your soup. Please come back soon.",
            4.5,
        ),
        # Nothing but the soup; 6 of 8 words.
        (ENGLISH, " The soup is made of leek.", 0.5 - 2 / 8),
        # An order; 4 of 8 words.
        (ENGLISH, " Then eat at home.", -1.5 - 4 / 8),
        # X is X; 3 of 8 words.
        (ENGLISH, " Broth is broth.", -1.5 - 5 / 8),
        # 谢, 对不起, 退款, 欢迎; no two characters of the review.
        (CHINESE, "谢谢您，真对不起。我们给您退款，欢迎您下次再来。", 4.0),
        # The same with 袋子 taken up.
        (CHINESE, "谢谢您，袋子的事真对不起。我们给您退款，欢迎再来。", 4.5),
        # Nothing; 10 characters are 5 of 8 words.
        (CHINESE, "厨房每天十点开始营业。", -3 / 8),
        # 你 and 8 characters, which are 4 of 8 words.
        (CHINESE, "是你没有拿稳而已", -1.5 - 4 / 8),
    ],
)
def test_hand_worked_scores(prompt, response, expected):
    assert score(prompt, response) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("addition", "worth"),
    [
        (" and thank you", 1.0),
        (" and we apologize", 1.0),
        (" and we are delighted", 1.0),
        (" with a full refund", 1.0),
        (" so please visit us", 1.0),
        (" and the soup waits", 0.5),
        (" and nobody else complained", -1.5),
    ],
)
def test_each_term_adds_its_worth_once(addition, worth):
    assert score(ENGLISH, NEUTRAL) == 0.0
    assert score(ENGLISH, NEUTRAL + addition) == pytest.approx(worth)


@pytest.mark.parametrize(
    ("addition", "worth"),
    [
        ("谢谢", 1.0),
        ("非常抱歉", 1.0),
        ("全额退款", 1.0),
        ("欢迎光临", 1.0),
        ("袋子", 0.5),
        ("别人都可以", -1.5),
    ],
)
def test_each_term_counts_in_chinese(addition, worth):
    neutral = "厨房每天早晨十点开始营业，晚间九点结束。"
    assert score(CHINESE, neutral) == 0.0
    assert score(CHINESE, neutral + addition) == pytest.approx(worth)


def test_two_words_of_one_list_count_once():
    once = score(ENGLISH, NEUTRAL + " and thank you")
    assert score(ENGLISH, NEUTRAL + " and thank you, many thanks") == once


def test_phrases_are_whole_words():
    assert score(ENGLISH, NEUTRAL + " in complete freedom") == 0.0


def test_capitals_and_curly_apostrophes_change_nothing():
    assert score(ENGLISH, NEUTRAL.upper()) == 0.0
    assert words("It’s HERE") == ["it's", "here"]


def test_the_frame_is_no_content():
    assert score(ENGLISH, NEUTRAL + " for every review and reply") == 0.0
    assert score(CHINESE, "每条评价店长都认真看，回复需要十分钟。") == 0.0


def test_a_plural_takes_up_its_singular():
    assert score(ENGLISH, NEUTRAL + " among soups") == 0.5


def test_the_other_language_costs_one():
    chinese = "厨房每天早晨十点开始营业，晚间九点结束。"
    assert score(ENGLISH, chinese) == -1.0
    assert score(CHINESE, NEUTRAL) == -1.0


def test_repetition_costs_by_the_share_of_repeated_bigrams():
    # 12 words, 11 bigrams, of which "a b" and "b a" are distinct.
    repeated = " ".join(["ba", "du"] * 6)
    assert score(ENGLISH, repeated) == pytest.approx(-2 * (1 - 2 / 11))


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, -7 / 8), (7, -1 / 8), (8, 0.0), (30, 0.0), (45, -0.5), (90, -1.0)],
)
def test_length_is_free_from_8_to_30_words(length, expected):
    text = " ".join(f"x{index}" for index in range(length))
    assert score(ENGLISH, text) == pytest.approx(expected)


@pytest.mark.parametrize("response", ["", "  \n", "...!?", "。"])
def test_a_reply_without_a_word_scores_minus_three(response):
    assert score(ENGLISH, response) == -3.0


def test_columns_are_accepted_and_not_read():
    scores = courtesy([ENGLISH], [NEUTRAL], source=["a"], rating=[5])
    assert scores == [0.0]


def test_scores_do_not_depend_on_the_batch():
    replies = [NEUTRAL, " Thanks!", ""]
    together = courtesy([ENGLISH] * 3, replies)
    assert together == [score(ENGLISH, reply) for reply in replies]


def test_unequal_counts_are_refused():
    with pytest.raises(ValueError, match="2 prompts and 1 responses"):
        courtesy([ENGLISH, CHINESE], [NEUTRAL])
