import pytest

from tfrlhf.rewards import Retriever


def test_rare_words_decide_what_is_retrieved():
    known = ["How long is the warranty?", "How long is the way?", "运费多少？"]
    retrieve = Retriever(known)
    assert retrieve("What is the long warranty") == 0
    assert retrieve("The way") == 1
    assert retrieve("要付运费吗") == 2


def test_neighbours_count_too():
    retrieve = Retriever(["dog bites man", "man bites dog"])
    assert retrieve("the man bites") == 1
    assert retrieve("a dog bites") == 0


def test_long_texts_are_no_better_for_being_long():
    retrieve = Retriever(["tea and tea and cups and more cups", "tea"])
    assert retrieve("tea") == 1


@pytest.mark.parametrize("texts", [[], ["tea", "?!"]])
def test_texts_that_nothing_is_like(texts):
    with pytest.raises(ValueError, match="at least one text, and a word"):
        Retriever(texts)
