#!/usr/bin/env python3
"""Every command of the README's code blocks parses: in an empty folder it ends on the first input that is not there, and not on its flags.

    tests/e2e/readme_test.py build/lamina
"""
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import unittest

LAMINA = pathlib.Path(sys.argv.pop() if len(sys.argv) > 1 else "build/lamina").resolve()
README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
MISSING = re.compile(r"no such (file|folder)|cannot be opened|no plan\.json stands|has no (scheduler|component)")
# prune and heal read other flags where they are given a pipeline: such a command finds a folder that is named like one.
OF_PIPELINES = {"PIPELINE", "CUT", "--pictures", "--params"}


def code(text):
    """Lines of code blocks, indented or fenced, those that end in a backslash joined with the next."""
    fenced, kept = False, []
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            kept.append(line.strip())
    return "\n".join(kept).replace("\\\n", " ").splitlines()


def commands(text):
    """What follows the word lamina in each command, up to what the shell takes for itself."""
    found = []
    for line in code(text):
        if not re.search(r"(^|[\s/])lamina ", line):
            continue
        reader = shlex.shlex(line, posix=True, punctuation_chars=";|<>&")
        reader.whitespace_split = True
        try:
            words = list(reader)
        except ValueError:  # a line of output with a lone quote
            continue
        for at, word in enumerate(words):
            if word in ("lamina", "build/lamina"):
                rest = words[at + 1:]
                end = next((i for i, other in enumerate(rest) if set(other) <= set(";|<>&")), len(rest))
                found.append(rest[:end])
    return found


class Readme(unittest.TestCase):
    def ends_on_an_input(self, command):
        environment = {key: value for key, value in os.environ.items() if key != "HOME"} | {"OMP_NUM_THREADS": "1"}
        with tempfile.TemporaryDirectory(prefix="lamina-readme-") as name:
            folder = pathlib.Path(name)
            if OF_PIPELINES & set(command) and command[0] in ("prune", "heal"):
                (folder / command[1]).mkdir(parents=True)
                (folder / command[1] / "model_index.json").write_text("{}", encoding="utf-8")
            before = sorted(folder.rglob("*"))
            done = subprocess.run([str(LAMINA), *command], cwd=folder, stdin=subprocess.DEVNULL, timeout=60, capture_output=True, text=True, env=environment)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertRegex(done.stderr, MISSING)
            self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
            self.assertEqual(sorted(folder.rglob("*")), before)

    def test_commands_are_found(self):
        text = "Text: lamina none\n\n    lamina a b --flag  # lamina none\n    x | build/lamina c < d ; lamina e \"f g\" \\\n      -h\n\n```\n$ lamina i\n```\n"
        self.assertEqual(commands(text), [["a", "b", "--flag"], ["c"], ["e", "f g", "-h"], ["i"]])
        self.assertGreater(len(commands(README.read_text(encoding="utf-8"))), 40)

    def test_every_command_parses(self):
        for command in commands(README.read_text(encoding="utf-8")):
            with self.subTest(command=shlex.join(command)):
                self.ends_on_an_input(command)


if __name__ == "__main__":
    unittest.main()
