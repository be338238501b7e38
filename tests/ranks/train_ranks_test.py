#!/usr/bin/env python3
"""Training on several ranks: the losses of one rank, and of the uninterrupted run whoever was killed and however many go on.

Usage: train_ranks_test.py PROGRAM
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from launch import Job, plain_environment

program = sys.argv.pop(1)
PATIENCE = 5


class Training(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        made = subprocess.run([program, "make", cls.folder.name], check=True, capture_output=True, text=True, env=plain_environment())
        cls.models = [pathlib.Path(line) for line in made.stdout.split("\n") if line]
        wanted = ("GPT2LMHeadModel", "LlamaForCausalLM")  # the first with a tied head
        cls.models = [model for model in cls.models if model.name in wanted]
        assert len(cls.models) == 2, made.stdout
        cls.count = 0

    def places(self):
        type(self).count += 1
        folder = pathlib.Path(self.folder.name) / f"run-{self.count}"
        folder.mkdir()
        return folder / "state", folder / "curve"

    def run_on(self, size, model, state, curve, *words, sees="from 0"):
        with Job([program, model, state, curve, *words], size) as job:
            self.assertTrue(job.wait(90), job.said())
            self.assertEqual([rank.status for rank in job.ranks], [0] * size, job.said())
            self.assertIn(f"{sees} on {size} ranks", job.ranks[0].stdout)
            for rank in job.ranks:
                self.assertEqual(rank.stderr, "")
        return [line.split() for line in curve.read_text().splitlines()]

    def close(self, rows, expected, bound, later=1):
        self.assertEqual(len(rows), len(expected))
        self.assertEqual(len([row for row in rows if row[0] != "evaluation"]), 8)
        # Rounding of the first step grows with every update after it.
        for row, want in zip(rows, expected):
            for left, right in zip(row, want):
                if left != right:
                    self.assertLessEqual(abs(float(left) - float(right)) / max(1, abs(float(right))),
                                         bound if row[0] == "1" else bound * later, f"{row} against {want}")
        losses = [float(row[1]) for row in expected if row[0] != "evaluation"]
        self.assertGreater(max(losses) - min(losses), 0.01, "the run moves")

    def test_losses_are_those_of_one_rank(self):
        for model in self.models:
            for words, bound in (((), 1e-12), (("checkpointing",), 1e-12), (("lora",), 1e-12), (("float32",), 1e-6)):
                with self.subTest(model=model.name, words=words):
                    one = self.run_on(1, model, *self.places(), *words)
                    for size in (2, 4):
                        self.close(self.run_on(size, model, *self.places(), *words), one, bound, later=100 if words == ("float32",) else 1)

    def test_killed_and_resumed_with_another_number_of_ranks(self):
        for model in self.models:
            whole = self.run_on(1, model, *self.places())
            for kind, culprit, then in (("kill", 1, 1), ("kill", 0, 4), ("exit3", 1, 2), ("throw", 0, 4)):
                with self.subTest(model=model.name, kind=kind, culprit=culprit, then=then):
                    state, curve = self.places()
                    fault = f"{culprit}:6:{kind}"
                    with Job([program, model, state, curve], 2, LAMINA_FAULT=fault, LAMINA_SECONDS=PATIENCE) as job:
                        self.assertTrue(job.wait(40), job.said())
                        self.assertEqual(job.ranks[1 - culprit].status, 71, job.said())
                        self.assertRegex(job.ranks[1 - culprit].stderr, rf"rank {culprit} .*step 6")
                        self.assertFalse(curve.exists())
                        self.assertEqual(job.left(), [])
                    self.close(self.run_on(then, model, state, curve, "resume", sees="from 4"), whole, 1e-12)

    def test_a_number_of_ranks_that_does_not_divide_the_step(self):
        state, curve = self.places()
        with Job([program, self.models[0], state, curve], 3) as job:
            self.assertTrue(job.wait(40), job.said())
            for rank in job.ranks:
                self.assertNotEqual(rank.status, 0)
                self.assertIn("cannot be dealt evenly to 3 ranks", rank.stderr)

    def test_checkpoints_there_are_not_written_over(self):
        state, curve = self.places()
        self.run_on(2, self.models[0], state, curve)
        with Job([program, self.models[0], state, curve], 2) as job:
            self.assertTrue(job.wait(40), job.said())
            for rank in job.ranks:
                self.assertNotEqual(rank.status, 0)
                self.assertIn("holds the checkpoints of an earlier run", rank.stderr, job.said())


if __name__ == "__main__":
    unittest.main(warnings="ignore")
