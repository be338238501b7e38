#!/usr/bin/env python3
"""The README's way to train on several ranks, with the program itself: `torchrun --no-python --standalone ... lamina train`.

Usage: verbs_ranks_test.py LAMINA TORCHRUN
"""
import json
import os
import pathlib
import signal
import sys
import tempfile
import time
import unittest
import uuid

from launch import Process, marked, plain_environment

lamina, torchrun = sys.argv.pop(1), pathlib.Path(sys.argv.pop(1))
root = pathlib.Path(__file__).resolve().parent.parent.parent


@unittest.skipUnless(torchrun.exists(), f"there is no {torchrun}; tools/setup makes it")
class Verbs(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        config = json.loads((root / "examples" / "tiny-gpt2.json").read_text())
        config["data"], config["validation"] = ([str(root / "texts" / f"{name}.txt")] for name in ("calibration", "heldout"))
        config["training"].update({"steps": 30, "batch": 2, "accumulate": 4, "warmup": 3, "evaluate-every": 15, "checkpoint-every": 5})
        config["dtype"] = "float64"
        self.config = self.folder / "tiny.json"
        self.config.write_text(json.dumps(config))
        self.mark = f"LAMINA_MARK={uuid.uuid4()}"

    def tearDown(self):
        for pid in marked(self.mark):
            os.kill(pid, signal.SIGKILL)

    def start(self, ranks, *words):
        launcher = [torchrun, "--no-python", "--standalone", "--nproc-per-node", ranks] if ranks else []
        return Process([*launcher, lamina, "train", *words], plain_environment(LAMINA_MARK=self.mark.partition("=")[2]))

    def run_on(self, ranks, out, *words):
        process = self.start(ranks, self.config, "-o", out, *words)
        process.process.wait(120)
        process.poll()
        self.assertEqual(process.status, 0, process.said())
        self.assertEqual(process.stdout.count("steps over"), 1, process.said())
        self.assertEqual(marked(self.mark), [])
        return [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]

    def close(self, rows, expected):
        rows, expected = ([row for row in of if "lr" in row or "learning_rate" in row] for of in (rows, expected))
        self.assertEqual(len(rows), 30)
        for row, want in zip(rows, expected):
            self.assertEqual(row["step"], want["step"])
            self.assertLessEqual(abs(row["loss"] - want["loss"]), 1e-12 * abs(want["loss"]), f"{row} against {want}")

    def test_as_one_process_and_after_the_launcher_was_killed(self):
        one = self.run_on(0, self.folder / "one")
        self.close(self.run_on(2, self.folder / "two"), one)

        out = self.folder / "killed"
        agent = self.start(2, self.config, "-o", out)
        end = time.monotonic() + 60
        log = self.folder / "killed.partial"
        while time.monotonic() < end and not list(log.rglob("step-5")):
            time.sleep(0.01)
        os.kill(agent.pid, signal.SIGKILL)
        agent.process.wait()
        end = time.monotonic() + 5
        while marked(self.mark) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(marked(self.mark), [], "workers without their agent")
        self.assertFalse(out.exists(), "killed in the middle")
        self.close(self.run_on(4, out, "--resume"), one)

    def test_errors_say_which_rank(self):
        process = self.start(2, self.folder / "missing.json", "-o", self.folder / "out")
        process.process.wait(60)
        said = [line for line in process.stderr.splitlines() if line.startswith("lamina: ")]
        self.assertTrue(said, process.said())
        for line in said:
            self.assertRegex(line, r"lamina: rank [01]: .*missing\.json")


if __name__ == "__main__":
    unittest.main(warnings="ignore")
