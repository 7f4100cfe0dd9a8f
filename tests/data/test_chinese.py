from tfrlhf.data import characters_apart
from tfrlhf.data import is_chinese


def test_a_text_is_chinese_by_its_characters():
    assert is_chinese("ABC公司") and is_chinese("㐀")
    assert not is_chinese("Café, 12 €. ひらがな") and not is_chinese("")


def test_characters_stand_apart_and_the_rest_stays():
    assert characters_apart("Hi 你好。") == "Hi \n你\n\n好\n。"
    assert characters_apart("Hi you.") == "Hi you."
