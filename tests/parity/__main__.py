"""Compares every family with transformers on PyTorch, there and back.

It needs an environment with torch and transformers 4, which `make peers` makes.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TRANSFORMERS_VERBOSITY": "error"}

ROOT = pathlib.Path(__file__).parents[2]
TORCH_SIDE = pathlib.Path(__file__).with_name("torch_side.py")
GOLDEN = ROOT / "tests" / "golden" / "models"
DATA = pathlib.Path(os.environ.get("TFRLHF_TEST_DATA", ROOT.parent / "shared"))
LIMIT = 1e-4
COLUMNS = (
    "logits",
    "greedy",
    "clone",
    "preset",
    "written",
    "written greedy",
    "reward",
    "adapter",
    "adapter reward",
    "peft",
    "field",
)


def main(python, directory, stories, golden):
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    arguments = [directory]
    if stories.is_dir():
        arguments += [stories.absolute(), directory / "ids.json"]
        arguments[-1].write_text(json.dumps(story_ids(stories)))
    run = [str(python), str(TORCH_SIDE)]
    subprocess.run([*run, "make", *map(str, arguments)], check=True)
    import tensorflow as tf

    from tests.parity import cases

    # Every policy is traced anew, on purpose.
    tf.get_logger().setLevel("ERROR")
    rows = {case: compare(case, directory) for case in cases.CASES}
    subprocess.run([*run, "read", str(directory)], check=True)
    for case, row in rows.items():
        row |= read_back(case, directory)
    effects = json.loads((directory / "effects.json").read_text())
    for case, row in rows.items():
        row["field"] = min(effects[case].values())
    story = compare_story(stories, directory) if stories.is_dir() else None
    if golden:
        write_golden(directory)
    return 0 if report(rows, story, directory) else 1


def story_ids(stories):
    from tests.parity import cases
    from tfrlhf import Tokenizer

    return Tokenizer.from_directory(stories).encode(cases.STORY)


def compare(case, directory):
    """Loads, decodes, clones, saves and writes one checkpoint."""
    import numpy as np

    import tfrlhf
    from tests.parity import cases
    from tests.parity import checks

    here = directory / cases.slug(case)
    checks.tokenizer(here / "theirs")
    theirs = np.load(here / "theirs.npz")
    policy = tfrlhf.Policy.from_preset(here / "theirs")
    ours = checks.logits(policy)
    continued = checks.greedy(policy, cases.prompts(), cases.NEW_TOKENS)
    saved = checks.through_preset(policy, here / "preset")
    checks.write_quietly(policy, here / "ours")
    reward = checks.reward_model(policy)
    checks.write_quietly(reward, here / "reward")
    np.save(here / "expected.npy", checks.scores_to_expect(reward))
    copy = tfrlhf.frozen_copy(policy)
    adapted = tfrlhf.frozen_copy(policy)
    adapted.load_adapter(here / "peft")
    checks.write_adapters(policy, adapted.adapter.targets, here)
    return {
        "logits": checks.difference(ours, theirs["logits"]),
        "greedy": agreeing(continued, theirs["greedy"]),
        "clone": checks.difference(ours, checks.logits(copy)),
        "preset": checks.difference(ours, checks.logits(saved)),
        "peft": checks.difference(checks.logits(adapted), theirs["adapted"]),
    }


def read_back(case, directory):
    """Compares what PyTorch made of the directories written here."""
    import numpy as np

    from tests.parity import cases
    from tests.parity import checks

    here = directory / cases.slug(case)
    theirs, ours = np.load(here / "theirs.npz"), np.load(here / "ours.npz")
    scores = np.load(here / "reward.npy") - np.load(here / "expected.npy")
    ours_adapted = np.load(here / "adapted.npz")
    theirs_adapted = np.load(here / "adapter.npz")
    adapted_scores = ours_adapted["scores"] - theirs_adapted["scores"]
    return {
        "written": checks.difference(ours["logits"], theirs["logits"]),
        "written greedy": agreeing(ours["greedy"], theirs["greedy"]),
        "reward": float(np.abs(scores).max()),
        "adapter": checks.difference(
            ours_adapted["logits"], theirs_adapted["logits"]
        ),
        "adapter reward": float(np.abs(adapted_scores).max()),
    }


def compare_story(stories, directory):
    """How many of the tokens that go on with a story agree."""
    import tfrlhf
    from tests.parity import cases
    from tests.parity import checks

    theirs = json.loads((directory / "story.json").read_text())
    policy = tfrlhf.Policy.from_preset(stories)
    ours = checks.greedy(policy, [story_ids(stories)], cases.STORY_TOKENS)
    return agreeing(ours, [theirs])


def agreeing(ours, theirs):
    """For every row how many tokens agree before the first that does not."""
    counts = []
    for left, right in zip(ours, theirs, strict=True):
        same = [a == b for a, b in zip(left, right, strict=True)]
        counts.append(same.index(False) if False in same else len(same))
    return counts


def write_golden(directory):
    """Keeps a few numbers of every case."""
    import numpy as np

    from tests.parity import cases

    GOLDEN.mkdir(parents=True, exist_ok=True)
    for case in cases.CASES:
        theirs = np.load(directory / cases.slug(case) / "theirs.npz")
        np.savez_compressed(
            GOLDEN / f"{cases.slug(case)}.npz",
            config=theirs["config"],
            tensors=theirs["tensors"],
            logits=theirs["logits"][cases.KEPT],
            greedy=theirs["greedy"].astype("int16"),
        )
    story = directory / "story.json"
    if story.exists():
        (GOLDEN / "story.json").write_text(story.read_text())


def report(rows, story, directory):
    """Prints the table; returns whether everything agrees."""
    from tests.parity import cases

    versions = json.loads((directory / "versions.json").read_text())
    print("compared with", ", ".join(f"{k} {v}" for k, v in versions.items()))
    print()
    print("| checkpoint |", " | ".join(COLUMNS), "|")
    print("|---" * (len(COLUMNS) + 1) + "|")
    passed = story in (None, [cases.STORY_TOKENS])
    for case, row in rows.items():
        cells = []
        for column in COLUMNS:
            value = row[column]
            if isinstance(value, list):
                passed &= value == [cases.NEW_TOKENS] * len(value)
                cells.append("/".join(map(str, value)))
            else:
                passed &= value > LIMIT if column == "field" else value < LIMIT
                cells.append(f"{value:.0e}" if value else "0")
        print(f"| {case} |", " | ".join(cells), "|")
    print()
    if story:
        print(f"stories260K: {story[0]} of {cases.STORY_TOKENS} tokens agree")
    print("PASS" if passed else "FAIL")
    return passed


def parsed():
    parser = argparse.ArgumentParser(description=__doc__)
    peers = ROOT / ".venv-peers" / "bin" / "python"
    parser.add_argument("--python", default=peers, help="of the environment")
    parser.add_argument(
        "--directory",
        type=pathlib.Path,
        default=ROOT / "build" / "parity",
        help="takes the checkpoints",
    )
    parser.add_argument(
        "--stories",
        type=pathlib.Path,
        default=DATA / "checkpoints" / "stories260K",
        help="a real checkpoint, left out where there is none",
    )
    parser.add_argument(
        "--golden",
        action="store_true",
        help="write what `make test` compares with",
    )
    return vars(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main(**parsed()))
