#!/usr/bin/env python3
"""The command line as users meet it: wrong words, missing files, stops, full disks, and outputs that appear whole or not at all.

    tests/e2e/cli_test.py build/lamina

Runs on stories260K from ../shared; without it every test skips, with a sentence.
"""
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

LAMINA = pathlib.Path(sys.argv.pop() if len(sys.argv) > 1 else "build/lamina").resolve()
SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
MODEL = SHARED / "weights" / "stories260K" / "stories260K.gguf"
TEXT = SHARED / "text" / "tinystories_sample.txt"
FAST = ["--samples", "2", "--length", "32", "--baselines", "none", "--calibration", str(TEXT), "--heldout", str(TEXT)]


def run(*arguments, **options):
    return subprocess.run([str(LAMINA), *map(str, arguments)], capture_output=True, timeout=120, **options)


@unittest.skipUnless(MODEL.exists(), f"skipped: {MODEL} is not there")
class CommandLine(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lamina-e2e-"))
        self.out = self.folder / "out"

    def tearDown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def refused(self, *arguments, says, status=1, **options):
        """The command fails with one sentence that holds `says`, and leaves nothing behind."""
        result = run(*arguments, **options)
        message = result.stderr.decode(errors="replace")
        self.assertEqual(result.returncode, status, message)
        self.assertIn(says, message)
        self.assertLessEqual(len(message.strip().splitlines()), 2, message)
        self.assertNotIn("terminate called", message)
        self.assertFalse(self.out.exists(), "something was left behind")

    def test_lists_that_mean_nothing(self):
        for text, says in [("7-3", "names block 7"), ("3-1", "backwards"), ("0-999", "blocks 0 to 4"), ("a", "no block"),
                           ("", "either a plan"), ("1,1", "twice"), ("attention:1,attention:1", "twice"), ("0-4", "at least one"),
                           ("attention", "no block"), ("heads:1", "no kind of part"), ("1-", "no block"), ("-1", "no block"), ("1,,2", "no block")]:
            with self.subTest(list=text):
                self.refused("apply", MODEL, f"--drop={text}", "-o", self.out, says=says)

    def test_outputs_that_cannot_be(self):
        self.refused("apply", self.folder / "nowhere", "--drop=1", "-o", self.out, says="no such file")
        file = self.folder / "file"
        file.write_text("x")
        result = run("apply", MODEL, "--drop=1", "-o", file)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"is a file", result.stderr)
        full = self.folder / "full"
        full.mkdir()
        (full / "mine.txt").write_text("keep me")
        result = run("apply", MODEL, "--drop=1", "-o", full)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"exists already", result.stderr)
        self.assertEqual((full / "mine.txt").read_text(), "keep me")
        self.refused("apply", MODEL, "--drop=1", "-o", file / "below", says="cannot be made")

    def test_output_is_the_input(self):
        first = self.folder / "model"
        self.assertEqual(run("apply", MODEL, "--drop=1", "-o", first, "--export", "hf-compact").returncode, 0)
        before = (first / "model.safetensors").read_bytes()
        result = run("apply", first, "--drop=1", "-o", first, "--force")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"is the input", result.stderr)
        self.assertEqual((first / "model.safetensors").read_bytes(), before)

    def test_unknown_words(self):
        self.refused("prone", says="prune", status=2)
        self.refused("apply", MODEL, "--dorp", "1", "-o", self.out, says="--help", status=2)
        self.refused("prune", MODEL, "-o", self.out, "--method", "finecut", says="finercut")
        self.refused("prune", MODEL, "-o", self.out, "--metric", "jsx", says="jsd")
        self.refused("prune", MODEL, "-o", self.out, "--remove", "99", *FAST, says="can go")
        self.refused("prune", MODEL, "-o", self.out, "--remove", "0", *FAST, says="--remove")
        self.refused("apply", MODEL, "--drop=1", "-o", self.out, "--export", "hf-compct", says="hf-compact")
        self.refused("apply", MODEL, "--drop=attention:1", "-o", self.out, "--export", "hf-compact", says="hf-zeroed")
        result = subprocess.run([bytes(LAMINA), b"\xff\xfe"], capture_output=True, timeout=60)
        self.assertEqual(result.returncode, 2)
        self.assertIn(b"\\xff\\xfe", result.stderr)

    def test_broken_models(self):
        data = MODEL.read_bytes()
        cut = self.folder / "cut.gguf"
        cut.write_bytes(data[: len(data) // 2])
        self.refused("inspect", cut, says="cut")
        pointer = self.folder / "pointer.gguf"
        pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        self.refused("inspect", pointer, says="pointer")
        page = self.folder / "page.gguf"
        page.write_text("<!DOCTYPE html><html></html>")
        self.refused("inspect", page, says="HTML")
        empty = self.folder / "empty.gguf"
        empty.write_bytes(b"")
        self.refused("inspect", empty, says="empty")

    def test_full_disk_leaves_nothing(self):
        for size in (1000, 200_000, 900_000):
            with self.subTest(limit=size):
                def limit(bytes=size):
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, bytes))
                result = run("apply", MODEL, "--drop=1", "-o", self.out, "--export", "hf-compact", preexec_fn=limit)
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertIn(b"nothing was replaced", result.stderr)
                self.assertFalse(self.out.exists())
                self.assertFalse(pathlib.Path(f"{self.out}.partial").exists())

    def test_killed_while_writing(self):
        """After any kill the output is whole or absent, and the next run succeeds."""
        for delay in (0.0, 0.005, 0.01, 0.02, 0.03):
            with subprocess.Popen([str(LAMINA), "apply", str(MODEL), "--drop=1", "-o", str(self.out), "--export", "hf-compact,gguf", "--force"],
                                  stdout=subprocess.DEVNULL) as process:
                time.sleep(delay)
                process.kill()
            if self.out.exists():
                self.assertEqual(run("verify", self.out).returncode, 0)
        self.assertEqual(run("apply", MODEL, "--drop=1", "-o", self.out, "--export", "hf-compact", "--force").returncode, 0)
        self.assertFalse(pathlib.Path(f"{self.out}.partial").exists())

    def test_stopped_search_resumes_to_the_same_plan(self):
        arguments = ["prune", str(MODEL), "--remove", "6", "--search", "naive", "--plan-only", "--samples", "8", "--length", "64", "--baselines", "none",
                     "--calibration", str(TEXT), "--heldout", str(TEXT)]
        whole = self.folder / "whole"
        self.assertEqual(run(*arguments, "-o", whole).returncode, 0)
        with subprocess.Popen([str(LAMINA), *arguments, "-o", str(self.out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            journal = pathlib.Path(f"{self.out}.partial") / "search.jsonl"
            for _ in range(2000):
                if journal.exists() and journal.read_text().count("\n") >= 3:
                    break
                time.sleep(0.005)
            process.kill()
        self.assertFalse(self.out.exists())
        result = run(*arguments, "-o", self.out, "--resume", "--remove", "5")
        self.assertNotEqual(result.returncode, 0, "a resumed search with other options must be refused")
        self.assertEqual(run(*arguments, "-o", self.out, "--resume").returncode, 0)
        edits = [json.loads((folder / "plan.json").read_text())["edits"] for folder in (whole, self.out)]
        self.assertEqual(edits[0], edits[1])

    def test_ctrl_c(self):
        with subprocess.Popen([str(LAMINA), "prune", str(MODEL), "-o", str(self.out), "--remove", "6", "--search", "naive", "--samples", "10", "--length", "64",
                               "--calibration", str(TEXT), "--heldout", str(TEXT), "--baselines", "all"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            time.sleep(1.0)
            process.send_signal(signal.SIGINT)
            _, message = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, message)
        self.assertFalse(self.out.exists())

    def test_a_reader_that_goes_away(self):
        result = subprocess.run(f"'{LAMINA}' inspect '{MODEL}' --json | head -n 1; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash", capture_output=True, timeout=60)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_two_runs_into_one_folder(self):
        partial = pathlib.Path(f"{self.out}.partial")
        partial.mkdir()
        import fcntl
        with open(partial / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            result = run("apply", MODEL, "--drop=1", "-o", self.out)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"another run", result.stderr)

    def test_plain_surroundings(self):
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TERM": "dumb"}
        result = run("inspect", MODEL, env=environment)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(b"292,800", result.stdout)

    def test_a_plan_for_another_model(self):
        self.assertEqual(run("apply", MODEL, "--drop=1", "-o", self.out, "--export", "hf-compact").returncode, 0)
        plan = self.folder / "plan.json"
        document = json.loads((self.out / "plan.json").read_text())
        document["model"] = {"name": "other", "sha256": "0" * 64}
        plan.write_text(json.dumps(document))
        result = run("apply", MODEL, plan, "-o", self.folder / "again")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"--other-model", result.stderr)
        self.assertEqual(run("apply", MODEL, plan, "-o", self.folder / "again", "--other-model").returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
