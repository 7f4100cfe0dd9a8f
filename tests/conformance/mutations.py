"""One-line faults, each of which some test must notice: `make mutants`."""

import ast
import pathlib
from typing import NamedTuple

from tests.conformance import faults_in_checks
from tests.conformance import faults_in_imitation
from tests.conformance import faults_in_models
from tests.conformance import faults_in_numbers
from tests.conformance import faults_in_preferences
from tests.conformance import faults_in_rewards
from tests.conformance import faults_in_training


class Mutant(NamedTuple):
    """A fault, and the tests of which one must turn red.

    Attributes:
        name: unique.
        file: relative to the project.
        before: text that stands once in the file.
        after: what the fault makes of it.
        tests: paths or node ids for pytest.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def applied(self, root: pathlib.Path) -> str:
        """Returns the file with the fault in it.

        Raises:
            ValueError: the text stands there not once.
        """
        source = (root / self.file).read_text("utf-8")
        count = source.count(self.before)
        if count != 1:
            raise ValueError(
                f"Mutant {self.name!r}: its text stands {count} times in "
                f"{self.file}, not once. Write it anew: {self.before!r}"
            )
        return source.replace(self.before, self.after)

    def place(self, root: pathlib.Path) -> str:
        """Returns the function that the fault is in, as `Class.function`."""
        source = (root / self.file).read_text("utf-8")
        indentation = len(self.before) - len(self.before.lstrip())
        start = source.find(self.before) + indentation
        line = source.count("\n", 0, start) + 1
        names = []
        nodes = ast.parse(source).body
        while nodes:
            inside = [
                node
                for node in nodes
                if isinstance(node, (ast.FunctionDef, ast.ClassDef))
                and node.lineno <= line <= (node.end_lineno or 0)
            ]
            names += [node.name for node in inside]
            nodes = [child for node in inside for child in node.body]
        return ".".join(names)


def mutants_of(faults):
    """Turns (file, tests, {name: (before, after)}) into mutants.

    Tests are one path or several with a space between; a third text beside
    before and after stands for others.
    """
    return [
        Mutant(name, file, before, after, tuple((*own, tests)[0].split()))
        for file, tests, changes in faults
        for name, (before, after, *own) in changes.items()
    ]


MUTANTS = tuple(
    mutants_of(
        faults_in_numbers.FAULTS
        + faults_in_models.FAULTS
        + faults_in_training.FAULTS
        + faults_in_imitation.FAULTS
        + faults_in_preferences.FAULTS
        + faults_in_checks.FAULTS
        + faults_in_rewards.FAULTS
    )
)
