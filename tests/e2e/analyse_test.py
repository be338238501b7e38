#!/usr/bin/env python3
"""lamina analyse: one model, several side by side, a model whose last norm is gone, and what cannot be.

    tests/e2e/analyse_test.py build/lamina

Runs on stories260K from ../shared; without it every test skips, with a sentence.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

LAMINA = pathlib.Path(sys.argv.pop() if len(sys.argv) > 1 else "build/lamina").resolve()
SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
MODEL = SHARED / "weights" / "stories260K" / "stories260K.gguf"
TEXT = SHARED / "text" / "tinystories_sample.txt"
FAST = ["--text", str(TEXT), "--samples", "3", "--length", "64", "--pairs", "2"]


def run(*arguments):
    return subprocess.run([str(LAMINA), *map(str, arguments)], capture_output=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})


@unittest.skipUnless(MODEL.exists(), f"skipped: {MODEL} is not there")
class Analyse(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lamina-e2e-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.out = self.folder / "out"

    def done(self, *arguments):
        result = run(*arguments)
        self.assertEqual(result.returncode, 0, result.stderr.decode(errors="replace"))
        self.assertEqual(result.stderr, b"")
        return result.stdout.decode()

    def refused(self, *arguments, says, status=1):
        result = run("analyse", *arguments)
        message = result.stderr.decode(errors="replace")
        self.assertEqual(result.returncode, status, message)
        self.assertIn(says, message)
        self.assertLessEqual(len(message.strip().splitlines()), 2, message)
        self.assertEqual(result.stdout, b"")
        self.assertFalse(self.out.exists())
        self.assertFalse(pathlib.Path(f"{self.out}.partial").exists())

    def frozen(self, edits, name):
        plan = self.folder / f"{name}.json"
        plan.write_text(json.dumps({"lamina_plan": 1, "edits": edits}))
        self.done("apply", MODEL, plan, "-o", self.folder / name)
        return self.folder / name

    def without_last_norm(self):
        return self.frozen([{"edit": "freeze_norm", "site": "model.norm", "reader": "final", "scale": 5.0}], "norm-free")

    def test_help(self):
        text = self.done("analyse", "--help")
        for word in ("--text", "--ood", "--json", "--target", "--pairs", "Example"):
            self.assertIn(word, text)
        self.assertIn("analyse", self.done("--help"))

    def test_one_model(self):
        text = self.done("analyse", MODEL, *FAST)
        for word in ("Identities", "Findings", "Largest losses", "stories260K", "tinystories_sample.txt"):
            self.assertIn(word, text)
        self.assertLessEqual(max(len(line) for line in text.splitlines()), 120)

    def test_json_is_one_object_and_the_same_every_time(self):
        first = self.done("analyse", MODEL, *FAST, "--json")
        record = json.loads(first)
        self.assertEqual(first, self.done("analyse", MODEL, *FAST, "--json"))
        self.assertEqual((record["samples"], record["length"], len(record["prompts"])), (3, 64, 2))
        model, = record["models"]
        self.assertEqual(model["name"], "stories260K")
        self.assertEqual(set(model), {"name", "model", "calibration", "losses", "attribution", "neurons", "sinks", "patching"})
        self.assertEqual(set(model["losses"]), {"text", "out_of_domain", "unseen_tokens"})
        self.assertEqual(len(model["attribution"]["heads"]), 5 * 8)
        self.assertGreater(model["attribution"]["nmae_head_mean"], 0.05)
        self.assertEqual(model["calibration"]["tokens"], 3 * 63)

    def test_a_model_without_its_last_norm_beside_the_original(self):
        bare = self.without_last_norm()
        text = self.done("analyse", MODEL, bare, *FAST, "--names", "original,norm-free", "--dtype", "float64", "-o", self.out)
        self.assertIn("norm-free", text)
        self.assertEqual(sorted(path.name for path in self.out.iterdir()), ["analyses.json", "report.html", "report.json"])
        with_norm, without = json.loads((self.out / "analyses.json").read_text())["models"]
        self.assertLess(without["attribution"]["nmae_head_mean"], 1e-10)
        self.assertGreater(with_norm["attribution"]["nmae_head_mean"], 0.05)
        for neuron in without["neurons"]["neurons"]:
            self.assertEqual(neuron["total"], neuron["frozen"])
        for neuron in with_norm["neurons"]["neurons"]:
            self.assertNotEqual(neuron["total"], neuron["frozen"])
        report = json.loads((self.out / "report.json").read_text())
        self.assertIn("Identities", [section["title"] for section in report["sections"]])
        self.assertIn("norm-free against original", report["verdict"]["sentence"])
        self.assertIn("norm-free", (self.out / "report.html").read_text())
        # A tail ten times as long must not be overlooked.
        loud = self.frozen([{"edit": "freeze_norm", "site": "model.norm", "reader": "final", "scale": 0.01}], "loud")
        text = self.done("analyse", MODEL, loud, *FAST)
        self.assertIn("warning: loud", text)

    def test_target(self):
        record = json.loads(self.done("analyse", MODEL, *FAST, "--target", "last-input", "--json"))
        self.assertEqual(record["models"][0]["attribution"]["target"], "last-input")

    def test_own_text_out_of_domain(self):
        other = self.folder / "other.txt"
        other.write_text("\f\f\t\t\t 0123456789 " * 40)
        record = json.loads(self.done("analyse", MODEL, *FAST, "--ood", other, "--json"))
        self.assertEqual(record["out_of_domain"], "other.txt")

    def test_what_cannot_be(self):
        nowhere, empty = self.folder / "nowhere", self.folder / "empty.txt"
        empty.write_text("")
        self.refused(nowhere, *FAST, "-o", self.out, says="no such file")
        self.refused(MODEL, "--text", nowhere, "-o", self.out, says="cannot be opened")
        self.refused(MODEL, *FAST, "--ood", nowhere, "-o", self.out, says="cannot be opened")
        self.refused(MODEL, "--text", empty, "-o", self.out, says="fewer than two tokens")
        self.refused(MODEL, *FAST, "--names", "a,b", says="2 names for 1 models")
        self.refused(MODEL, MODEL, *FAST, "--names", "a,a", says="a name of its own")
        self.refused(MODEL, *FAST, "--dtype", "int8", says="float32 and float64")
        self.refused(MODEL, *FAST, "--target", "none", says="--target", status=2)
        self.refused(says="MODEL", status=2)
        kept = self.folder / "kept"
        kept.mkdir()
        (kept / "mine.txt").write_text("keep me")
        self.refused(MODEL, *FAST, "-o", kept, says="exists already")
        self.assertEqual((kept / "mine.txt").read_text(), "keep me")


if __name__ == "__main__":
    unittest.main()
