#!/usr/bin/env python3
"""lamina prune of a pipeline that is killed on the way: the same command with --resume goes on from its journal.

    tests/e2e/prune_pipeline_test.py build/lamina
"""
import json
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import scenes_test
from scenes_test import ROOT, run

PIPELINE = ROOT / "examples/scenes/pipeline"
FLAGS = ["--params", "50%", "--macs", "90%", "--pictures", "scenes", "--samples", 12, "--batch", 2, "--heldout", 4, "--rerank", 4, "--refine", 4,
         "--repeats", 1, "--random-plans", 2, "--trajectory", 1, "--trajectory-steps", 2, "-q"]


class Resume(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name)

    def killed(self, name, lines):
        """Once its journal has so many lines; the path of the journal."""
        journal = self.folder / f"{name}.partial/search/journal.jsonl"
        process = subprocess.Popen([str(scenes_test.LAMINA), *map(str, ["prune", PIPELINE, "-o", self.folder / name, *FLAGS])],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline and not (journal.exists() and journal.read_bytes().count(b"\n") >= lines):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertFalse((self.folder / name).exists(), "it was done before it could be killed")
        return journal

    def finish(self, name, *flags):
        done = run("prune", PIPELINE, "-o", self.folder / name, *FLAGS, *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        folder = self.folder / name
        return {"edits": json.loads((folder / "plan.json").read_text())["edits"], "scores": (folder / "scores.csv").read_bytes(),
                "weights": (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes()}

    def test_killed_and_resumed(self):
        whole = self.finish("whole")
        for lines in (3, 9):  # among the scores, and among the plans
            with self.subTest(lines):
                name = f"halves-{lines}"
                self.killed(name, lines)
                self.assertEqual(self.finish(name, "--resume"), whole)
                self.assertFalse((self.folder / f"{name}.partial").exists())

    def test_what_the_journal_holds_is_not_measured_again(self):
        journal = self.killed("touched", 3)
        lines = journal.read_text().splitlines()
        piece = next(i for i, line in enumerate(lines) if '"scores 0"' in line)
        entry = json.loads(lines[piece])
        entry["value"]["scores"]["output"][0] = [7.0] * len(entry["value"]["scores"]["output"][0])
        lines[piece] = json.dumps(entry)
        journal.write_text("\n".join(lines) + "\n")
        touched = self.finish("touched", "--resume")
        first = touched["scores"].decode().splitlines()[1].split(",")
        self.assertGreater(float(first[4]), 7 * 2 / 12 * 0.99)
        # Another run than that which was stopped.
        self.killed("other", 3)
        refused = run("prune", PIPELINE, "-o", self.folder / "other", *FLAGS, "--seed", 5, "--resume")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("seed", refused.stderr)

    def test_nothing_is_kept_where_nothing_was_done(self):
        done = run("prune", PIPELINE, "-o", self.folder / "none", "--pictures", self.folder / "nowhere", "-q")
        self.assertEqual(done.returncode, 1)
        self.assertNotIn("--resume", done.stderr)
        self.assertEqual(list(self.folder.iterdir()), [])


class Kept(unittest.TestCase):
    """What is read is not written over."""
    QUICK = ["--method", "magnitude", "--params", "90%", "--samples", 2, "--heldout", 1, "--rerank", 0, "--refine", 0, "--repeats", 1, "--compare", "none",
             "--trajectory", 0, "-q", "--force"]

    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name)

    def refused(self, *arguments, says, **options):
        done = run(*arguments, **options)
        self.assertEqual((done.returncode, says in done.stderr), (1, True), done.stderr)

    def test_inputs(self):
        own = self.folder / "own"
        shutil.copytree(PIPELINE, own)
        before = sorted((path, path.read_bytes()) for path in own.rglob("*") if path.is_file())
        self.refused("prune", own, *self.QUICK, "--pictures", "scenes", "-o", own / "unet", says="is a part of the input")
        pictures = self.folder / "pictures"
        pictures.mkdir()
        (pictures / "a.txt").write_text("a red ring")
        for verb in (["prune", own, *self.QUICK], ["repair", own, own, "--force", "-q"]):
            self.refused(*verb, "--pictures", pictures, "-o", pictures, says="is the input")
        cut = self.folder / "cut"
        self.assertEqual(run("prune", own, *self.QUICK, "--pictures", "scenes", "-o", cut).returncode, 0)
        self.refused("apply", own, cut / "plan.json", "-o", cut, "--force", says="holds the input")
        self.refused("repair", own, own, "--pictures", "scenes", "-o", self.folder / "x", "-q", says="nothing was cut")
        self.assertEqual(sorted((path, path.read_bytes()) for path in own.rglob("*") if path.is_file()), before)
        self.assertEqual((pictures / "a.txt").read_text(), "a red ring")

    def test_nothing_to_do_is_done(self):
        done = run("prune", PIPELINE, "--params", "100%", "--pictures", "scenes", "--samples", 2, "--heldout", 1, "--rerank", 2, "--refine", 0, "--repeats", 1,
                   "--random-plans", 1, "--trajectory", 0, "-q", "-o", self.folder / "same")
        self.assertEqual(done.returncode, 0, done.stderr)
        proof = self.folder / "proof"
        self.assertEqual(run("apply", PIPELINE, "--drop", "d2.a1,mid", "--export", "proof", "-o", proof).returncode, 0)
        done = run("prune", proof, "--params", "90%", "--pictures", "scenes", "--samples", 2, "--heldout", 1, "--rerank", 2, "--refine", 0, "--repeats", 1,
                   "--random-plans", 1, "--trajectory", 0, "-q", "-o", self.folder / "again")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_prompt_is_utf8(self):
        done = subprocess.run([str(scenes_test.LAMINA).encode(), b"draw", str(PIPELINE).encode(), b"\xff red", b"-o", b"x.png"], capture_output=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"UTF-8", done.stderr)


class ByPictures(unittest.TestCase):
    """Parts, windows and plans judged by the pictures that they lead to."""
    QUICK = ["--pictures", "scenes", "--samples", 4, "--batch", 2, "--heldout", 2, "--rerank", 3, "--refine", 0, "--repeats", 1, "--compare", "none",
             "--scored-pictures", 2, "--trajectory", 1, "--trajectory-steps", 2, "-q", "--plan-only", "--criterion", "trajectory"]

    def test_laptop_and_asdm(self):
        with tempfile.TemporaryDirectory() as temporary:
            out = pathlib.Path(temporary) / "out"
            for flags in (["--macs", "90%"], ["--method", "asdm", "--macs", "90%", "--outer", 9, "--regional-side", 16, "--window", 8, "--cell", 4]):
                done = run("prune", PIPELINE, "-o", out, "--force", *flags, *self.QUICK)
                self.assertEqual(done.returncode, 0, done.stderr)
                scores = [line.split(",") for line in (out / "scores.csv").read_text().splitlines()]
                self.assertEqual(scores[0][-1], "criterion_trajectory")
                self.assertTrue(all(float(line[-1]) >= 0 for line in scores[1:]))
                # What no part changes is no judgement.
                self.assertGreater(len({line[-1] for line in scores[1:]}), 30)

    def test_wants_the_whole_pipeline(self):
        with tempfile.TemporaryDirectory() as temporary:
            done = run("prune", PIPELINE / "unet", "-o", pathlib.Path(temporary) / "out", "--criterion", "trajectory", "-q")
            self.assertEqual(done.returncode, 1)
            self.assertIn("give the whole pipeline", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=0)
