import tensorflow as tf

from tfrlhf.export.requests import BLANK


def test_blank_text_is_what_python_finds_blank():
    characters = [chr(i) for i in range(0x10000) if not 0xD800 <= i < 0xE000]
    blank = tf.strings.regex_full_match(characters, BLANK).numpy()
    assert blank.tolist() == [not text.strip() for text in characters]
