import pytest

from tfrlhf.data import DataError
from tfrlhf.data import split_by_prompt

RECORDS = [{"prompt": f"p{n % 30}", "number": n} for n in range(60)]


def test_a_prompt_is_on_one_side_with_all_its_records():
    train, held_out = split_by_prompt(RECORDS, seed=3)
    assert (len(train), len(held_out)) == (48, 12)
    assert not {r["prompt"] for r in train} & {r["prompt"] for r in held_out}
    numbers = [r["number"] for r in train]
    assert numbers == sorted(numbers)
    assert split_by_prompt(RECORDS, seed=3) == (train, held_out)
    assert split_by_prompt(RECORDS, seed=4) != (train, held_out)


@pytest.mark.parametrize(
    ("share", "most", "prompts"), [(0.5, 200, 15), (0.5, 7, 7), (0.01, 200, 2)]
)
def test_how_many_are_held_out(share, most, prompts):
    _, held_out = split_by_prompt(RECORDS, 0, share, most)
    assert len({r["prompt"] for r in held_out}) == prompts


def test_too_few_prompts():
    with pytest.raises(DataError, match="has 3 different prompts: at least 4"):
        split_by_prompt([{"prompt": str(n % 3)} for n in range(9)])
