import doctest

import pytest

from tfrlhf.data import DataError
from tfrlhf.data import click_preferences
from tfrlhf.data import clicks

SESSION = {
    "prompt": "Enjoys maps.",
    "responses": [" a", " b", " c", " d", " e"],
    "clicks": [0, 1, 0, 1, 0],
}


@pytest.mark.parametrize(
    ("compare", "rivals", "expected"),
    [
        ("skipped", 3, [[" b", " a"], [" d", " c", " a"]]),
        ("skipped", 1, [[" b", " a"], [" d", " c"]]),
        ("all", 3, [[" b", " a", " c", " e"], [" d", " c", " e", " a"]]),
    ],
)
def test_lists_from_clicks(compare, rivals, expected):
    found = click_preferences([SESSION], compare, rivals)
    assert [x["responses"] for x in found] == expected
    for each in found:
        assert each["ranks"] == [0] + [1] * (len(each["responses"]) - 1)


def test_the_same_item_is_no_rival_of_itself():
    session = {"prompt": "", "responses": ["a", "b", "b", "a"]}
    (found,) = click_preferences([session | {"clicks": [0, 0, 0, 1]}])
    assert found["responses"] == ["a", "b"]


def test_clicks_that_say_nothing():
    with pytest.raises(DataError, match="No session has a click below"):
        click_preferences([SESSION | {"clicks": [1, 0, 0, 0, 0]}])
    with pytest.raises(ValueError, match="compare='none'"):
        click_preferences([SESSION], "none")


def test_the_example_in_the_docstring_holds():
    failed, attempted = doctest.testmod(clicks)
    assert attempted > 0
    assert failed == 0
