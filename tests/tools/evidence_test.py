#!/usr/bin/env python3
"""What the evidence of the U-Net claims is what its recorded figures say: rows of the READMEs that call themselves reached are, and their tables are made
of results.json.

    tests/tools/evidence_test.py
"""
import importlib.machinery
import importlib.util
import json
import pathlib
import statistics
import sys
import types
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from evidence_pipeline import rank_correlation  # noqa: E402


def tool(name):
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "tools" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def after(run, figure="Distance to the teacher"):
    return run["figures"][figure]["after"]


class Laptop(unittest.TestCase):
    def setUp(self):
        self.results = json.loads((ROOT / "evidence/laptop/results.json").read_text())
        study = self.results["study"]["50 % of the parameters"]
        self.predictors = {row[0]: row[1:] for row in study["tables"][0]["rows"]}
        self.subsets = study["tables"][1]["rows"]
        self.plans = {row[0]: dict(zip(study["plans"]["columns"], row)) for row in study["plans"]["rows"]}

    def test_single_losses_add_up(self):
        correlation, few, some, _ = self.predictors["output"]
        self.assertGreaterEqual(correlation, 0.95)
        for ratio in (few, some):  # up to a quarter of 38 parts
            self.assertTrue(0.8 <= ratio <= 1.25, ratio)

    def test_the_output_loss_ranks_best(self):
        output = self.predictors["output"][0]
        for other in ("magnitude", "taylor"):
            self.assertGreaterEqual(output - self.predictors[other][0], 0.05)
        self.assertLessEqual(abs(output - self.predictors["task"][0]), 0.02)

    def test_the_plan_is_the_best_of_subsets_and_better_than_random_ones(self):
        for _, _, best, _, ours in self.subsets:
            self.assertLessEqual(ours, 1.1 * best)
        random = next(plan for name, plan in self.plans.items() if name.startswith("random, best of"))
        self.assertLess(self.plans["chosen"]["measured loss"], random["measured loss"])

    def test_a_third_of_the_handcrafted_cuts_loss(self):
        loss = lambda name: after(self.results["cuts"][name], "Change of the output")
        for name in ("its parameters", "its multiply-adds", "its milliseconds"):
            self.assertLessEqual(loss(name), loss("bk-base") / 3)

    def test_normalised_maps_teach_more(self):
        ratios = []
        for seed in range(3):
            arm = lambda features, seed=seed: after(self.results["heal"][f"bk-base / {features} / {seed}"])
            for other in ("plain", "plain-equal", "none"):
                self.assertLess(arm("teacher-norm"), arm(other))
            ratios.append(arm("teacher-norm") / arm("plain"))
        self.assertLessEqual(statistics.mean(ratios), 0.97)


    def test_the_last_latents_tell_how_a_plan_draws(self):
        judged, pictures = self.results["judges"], self.results["judged pictures"]
        drawn = [statistics.mean(scorer["all"][0] for scorer in pictures[name]) for name in judged]
        tells = lambda judge: rank_correlation([-plan[judge] for plan in judged.values()], drawn)
        self.assertGreaterEqual(tells("last latents"), 0.9)
        for other in ("measured loss", "clean picture"):
            self.assertLess(tells(other), 0.7)


class Asdm(unittest.TestCase):
    FAST = "after LAPTOP-Diff, by trajectory, repaired"

    def setUp(self):
        self.results = json.loads((ROOT / "evidence/asdm/results.json").read_text())

    def test_time_saved(self):
        for batch in (1, 8):
            with self.subTest(batch):
                found = self.results["speed"][f"batch {batch}, by trajectory"]
                pairs = list(zip(found[self.FAST], found["whole"]))
                self.assertGreaterEqual(len(pairs), 20)
                saved = lambda of, pairs=pairs: 1 - statistics.median(of(one) / of(other) for one, other in pairs)
                self.assertGreaterEqual(saved(lambda one: one["denoiser"]), 0.30)
                self.assertGreaterEqual(saved(lambda one: sum(one.values())), 0.27)

    def test_as_often_right(self):
        for difference, low, _ in self.results["paired"][self.FAST]:
            self.assertGreaterEqual(difference, -0.01)
            self.assertGreaterEqual(low, -0.03)


class Tables(unittest.TestCase):
    def test_are_made_of_the_results(self):
        for name, kind in (("laptop", "Laptop"), ("asdm", "Asdm")):
            with self.subTest(name):
                module, folder = tool(f"evidence_{name}"), ROOT / "evidence" / name
                made = getattr(module, kind).__new__(getattr(module, kind))
                made.results = json.loads((folder / "results.json").read_text())
                made.options = types.SimpleNamespace(**module.DEFAULTS)
                self.assertEqual((folder / "README.md").read_text().split("<!-- tables -->\n")[1], made.text())


if __name__ == "__main__":
    unittest.main(verbosity=0)
