#!/usr/bin/env python3
"""The command line as users meet it: wrong words, missing files, stops, full disks, and outputs that appear whole or not at all.

    tests/e2e/cli_test.py build/lamina

Runs on stories260K from ../shared; without it every test skips, with a sentence. LAMINA_SLOW=1 kills ten times as often.
"""
import fcntl
import json
import os
import pathlib
import pty
import random
import resource
import shutil
import signal
import struct
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


SLOW = bool(os.environ.get("LAMINA_SLOW"))


def run(*arguments, **options):
    streams = {} if "stdout" in options or "stderr" in options else {"capture_output": True}
    return subprocess.run([bytes(LAMINA), *map(os.fsencode, map(as_argument, arguments))], timeout=120, **streams, **options)


def as_argument(argument):
    return argument if isinstance(argument, (bytes, os.PathLike)) else str(argument)


@unittest.skipUnless(MODEL.exists(), f"skipped: {MODEL} is not there")
class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lamina-e2e-"))
        self.out = self.folder / "out"
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)  # after small disks are unmounted

    def left(self, folder=None):
        """What lies in a folder, by name."""
        return sorted(path.name for path in (folder or self.folder).iterdir())

    def one_sentence(self, result, says="", status=1):
        message = result.stderr.decode(errors="replace")
        self.assertEqual(result.returncode, status, message)
        self.assertIn(says, message)
        self.assertLessEqual(len(message.strip().splitlines()), 2, message)
        self.assertNotIn("terminate called", message)
        self.assertNotIn("exception", message)

    def inputs(self):
        """Eight token ids as a safetensors file, for `forward`."""
        path = self.folder / "in.safetensors"
        header = b'{"input_ids":{"dtype":"I64","shape":[1,8],"data_offsets":[0,64]}}'
        path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<8q", *range(1, 9)))
        return path


class CommandLine(Case):
    def refused(self, *arguments, says, status=1, **options):
        """The command fails with one sentence that holds `says`, and leaves nothing behind."""
        self.one_sentence(run(*arguments, **options), says, status)
        self.assertFalse(self.out.exists(), "something was left behind")
        self.assertFalse(pathlib.Path(f"{self.out}.partial").exists(), "something was left behind")

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

    def test_options_that_would_not_be_used(self):
        self.refused("prune", MODEL, "-o", self.out, "--method", "sleb", "--metric", "kl", *FAST, says="its own score")
        self.refused("prune", MODEL, "-o", self.out, "--method", "sleb", "--units", "attention", *FAST, says="cuts blocks")
        self.refused("prune", MODEL, "-o", self.out, "--method", "blockpruner", "--freeze", "40%", *FAST, says="closed front")
        self.refused("prune", MODEL, "-o", self.out, "--units", "block", "--remove", "5", *FAST, says="ask for 1 to 4")
        self.refused("prune", MODEL, "-o", self.out, "--samples", "2", "--length", "3000", says="made for")
        self.refused("eval", MODEL, "--length", "100000", says="made for")

    def test_forms_that_cannot_be_are_not_chosen(self):
        self.refused("apply", MODEL, "--drop", "attention:0-4", "-o", self.out, "--export", "gguf", says="no attention is left")
        self.assertEqual(run("apply", MODEL, "--drop", "attention:0-4", "-o", self.out).returncode, 0)
        # This model's tokenizer has byte fallback, which is read from a GGUF but not written to one.
        folder = self.folder / "model"
        self.assertEqual(run("apply", MODEL, "--drop", "0", "-o", folder, "--export", "hf-compact").returncode, 0)
        shutil.rmtree(self.out)
        self.refused("apply", folder, "--drop", "attention:1", "-o", self.out, "--export", "gguf", says="byte-level BPE")
        self.assertEqual(run("apply", folder, "--drop", "attention:1", "-o", self.out).returncode, 0)
        self.assertTrue((self.out / "config.json").exists())

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
                    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, bytes))
                result = run("apply", MODEL, "--drop=1", "-o", self.out, "--export", "hf-compact", preexec_fn=limit)
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertIn(b"nothing was replaced", result.stderr)
                self.assertFalse(self.out.exists())
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
        self.assertTrue(journal.exists(), "a refused run must not lose the work of the one before")
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

    def test_numbers_that_mean_nothing(self):
        for verb, *arguments in [("eval", MODEL, "--text", TEXT, "--length", "0"), ("eval", MODEL, "--text", TEXT, "--stride", "-1"),
                                 ("eval", MODEL, "--text", TEXT, "--tokens", "1"), ("eval", MODEL, "--skip", "0-99"),
                                 ("generate", MODEL, "-p", "a", "--temperature", "nan"), ("generate", MODEL, "-p", "a", "--temperature", "-1"),
                                 ("generate", MODEL, "-p", "a", "--temperature", "inf"), ("generate", MODEL, "-p", "a", "--top-p", "nan"),
                                 ("generate", MODEL, "-p", "a", "--top-p", "0"), ("generate", MODEL, "-p", "a", "--top-k", "-1"),
                                 ("prune", MODEL, "-o", self.out, "--remove", "nan"), ("prune", MODEL, "-o", self.out, "--remove", "1e30"),
                                 ("prune", MODEL, "-o", self.out, "--remove", "200%"), ("prune", MODEL, "-o", self.out, "--freeze", "nan"),
                                 ("prune", MODEL, "-o", self.out, "--calibration", "/dev/null")]:
            with self.subTest(verb=verb, arguments=arguments[1:]):
                self.refused(verb, *arguments, says="lamina: ")

    def test_bytes_that_are_no_text(self):
        model = os.fsencode(self.folder) + b"/m\xff.gguf"
        shutil.copyfile(MODEL, model)
        for arguments in (["inspect", model, "--json"], ["eval", model, "--text", TEXT, "--json"],
                          ["prune", model, "-o", self.out, "--json", "--remove", "2", *FAST]):
            result = run(*arguments)
            self.assertEqual(result.returncode, 0, result.stderr)
            json.loads(result.stdout.decode())
        self.one_sentence(run("inspect", os.fsencode(self.folder) + b"/none\xff"), "no such file")
        result = run("generate", MODEL, "-p", "-", "--tokens", "3", input=b"Once\xff\x00upon")
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_lines_of_tokenize(self):
        self.one_sentence(run("tokenize", MODEL, "--json", input=b'"a"\n5\n'), "line 2: is")
        self.one_sentence(run("tokenize", MODEL, "--decode", input=b"1\n2 x\n"), "line 2: ")
        folder = os.open(self.folder, os.O_RDONLY)
        self.addCleanup(os.close, folder)
        self.one_sentence(run("tokenize", MODEL, stdin=folder), "cannot be read")
        long = run("tokenize", MODEL, input=b"once upon a time " * (6_000_000 if SLOW else 60_000) + b"\n")
        self.assertEqual(long.returncode, 0, long.stderr)

    def test_pipes_and_folders_where_files_belong(self):
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        self.refused("inspect", pipe, says="is a pipe")
        self.refused("apply", MODEL, pipe, "-o", self.out, says="is a pipe")
        self.refused("eval", MODEL, "--text", self.folder, says="is a folder")
        self.refused("forward", MODEL, "--inputs", self.folder, "-o", self.out, says="is a folder")
        self.assertEqual(run("apply", MODEL, "--drop=1", "-o", self.folder / "model", "--export", "hf-compact").returncode, 0)
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            broken = self.folder / "broken"
            shutil.copytree(self.folder / "model", broken)
            (broken / name).unlink()
            (broken / name).mkdir()
            with self.subTest(folder=name):
                self.refused("generate", broken, "-p", "a", says=name)
            shutil.rmtree(broken)

    def test_links(self):
        """A link to a folder is followed, one that leads nowhere is refused before the work, and both stay."""
        there, link, nowhere = self.folder / "there", self.folder / "link", self.folder / "nowhere"
        there.mkdir()
        link.symlink_to("there")
        nowhere.symlink_to("gone")
        for force in ([], ["--force"]):
            self.assertEqual(run("apply", MODEL, "--drop=1", "-o", link, *force).returncode, 0)
            self.assertTrue(link.is_symlink() and (there / "plan.json").exists())
        self.one_sentence(run("apply", MODEL, "--drop=1", "-o", nowhere), "leads nowhere")
        self.one_sentence(run("forward", MODEL, "--inputs", self.inputs(), "-o", nowhere), "leads nowhere")
        self.assertEqual(self.left(), ["in.safetensors", "link", "nowhere", "there"])

    def test_an_output_that_would_destroy_the_input(self):
        models = self.folder / "models"
        models.mkdir()
        model = models / "m.gguf"
        shutil.copyfile(MODEL, model)
        for arguments in (["apply", model, "--drop=1"], ["prune", model, *FAST]):
            self.one_sentence(run(*arguments, "-o", models, "--force"), "holds the input")
        inputs = self.inputs()
        for target in (model, inputs):
            self.one_sentence(run("forward", model, "--inputs", inputs, "-o", target), "belongs to the input")
        for device in ("/dev/null", "/dev/full"):
            self.one_sentence(run("forward", model, "--inputs", inputs, "-o", device), "is a pipe or a device")
            self.assertTrue(pathlib.Path(device).is_char_device())
        self.assertEqual(model.read_bytes(), MODEL.read_bytes())
        # Inside the input's folder there is room, and what is there is left alone.
        self.assertEqual(run("apply", model, "--drop=1", "-o", models / "new/out").returncode, 0)
        self.assertEqual(run("apply", models / "new/out", "--drop=1", "-o", models / "new/out/smaller").returncode, 0)
        self.assertEqual(run("verify", models / "new/out/smaller").returncode, 0)
        self.assertEqual(model.read_bytes(), MODEL.read_bytes())

    def test_no_colours_on_a_dumb_terminal(self):
        ours, theirs = pty.openpty()
        environment = {"PATH": os.environ["PATH"], "TERM": "dumb"}
        result = run("prune", MODEL, "-o", self.out, "--remove", "2", *FAST, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            shown += piece
        os.close(ours)
        self.assertEqual(result.returncode, 0, shown)
        self.assertNotIn(b"\x1b", shown)

    def test_threads_do_not_change_the_result(self):
        plans, values = [], []
        for threads in ("1", "2"):
            out = self.folder / threads
            self.assertEqual(run("prune", MODEL, "-o", out, "--plan-only", "--remove", "3", "--threads", threads, *FAST).returncode, 0)
            plans.append(json.loads((out / "plan.json").read_text())["edits"])
            values.append(json.loads(run("eval", MODEL, "--text", TEXT, "--json", "--threads", threads).stdout)["nll"])
        self.assertEqual(plans[0], plans[1])
        self.assertAlmostEqual(values[0], values[1], places=6)


# Makes the nth call of one function of the C library fail with EIO.
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
static int fails(const char* name) {
  static int calls;
  const char *which = getenv("SHIM_CALL"), *number = getenv("SHIM_NUMBER");
  if (!which || strcmp(which, name) || ++calls != atoi(number)) return 0;
  errno = EIO;
  return 1;
}
ssize_t write(int d, const void* p, size_t n) {
  static ssize_t (*real)(int, const void*, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "write");
  return d > 2 && fails("write") ? -1 : real(d, p, n);
}
int fsync(int d) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  return fails("fsync") ? -1 : real(d);
}
int rename(const char* a, const char* b) {
  static int (*real)(const char*, const char*);
  if (!real) real = dlsym(RTLD_NEXT, "rename");
  return fails("rename") ? -1 : real(a, b);
}
int renameat2(int d, const char* a, int e, const char* b, unsigned f) {
  static int (*real)(int, const char*, int, const char*, unsigned);
  if (!real) real = dlsym(RTLD_NEXT, "renameat2");
  return fails("renameat2") ? -1 : real(d, a, e, b, f);
}
"""


class Faults(Case):
    def tmpfs(self, size):
        """A small disk of its own."""
        disk = self.folder / f"disk{size}"
        disk.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "lamina-e2e", str(disk)], capture_output=True)
        if made.returncode != 0:
            self.skipTest(f"skipped: a small disk cannot be mounted here ({made.stderr.decode().strip()})")
        self.addCleanup(subprocess.run, ["umount", "-l", str(disk)])
        return disk

    def writers(self, out):
        """Every verb that writes files, with what it writes to."""
        return [["apply", MODEL, "--drop=1", "-o", out, "--export", "hf-compact,gguf"],
                ["apply", MODEL, "--drop=attention:1,mlp:3", "-o", out, "--export", "hf-zeroed,hf-perlayer,gguf:f16"],
                ["prune", MODEL, "-o", out, "--remove", "2", *FAST],
                ["forward", MODEL, "--inputs", self.inputs(), "-o", out, "--tap", "all,end"]]

    def assert_whole_or_absent(self, out, writer):
        if not out.exists():
            return
        if writer[0] == "forward":
            data = out.read_bytes()
            header = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
            self.assertEqual(max(entry["data_offsets"][1] for entry in header.values()), len(data) - 8 - struct.unpack("<Q", data[:8])[0])
        else:
            models = [path.parent for path in out.rglob("config.json")] + list(out.rglob("*.gguf"))
            for model in models:
                result = run("inspect", model)
                self.assertEqual(result.returncode, 0, result.stderr)
            self.assertTrue(models)
            json.loads((out / "plan.json").read_text())

    def test_full_disks(self):
        for size in ("4k", "64k", "600k"):
            disk = self.tmpfs(size)
            for writer in self.writers(disk / "out"):
                with self.subTest(size=size, verb=writer[0]):
                    result = run(*writer)
                    if result.returncode == 0:  # it fits
                        self.assert_whole_or_absent(disk / "out", writer)
                        shutil.rmtree(disk / "out") if (disk / "out").is_dir() else (disk / "out").unlink()
                        continue
                    self.one_sentence(result)
                    # A search that had begun can be resumed; nothing else is left.
                    left = self.left(disk)
                    self.assertIn(left, [[], ["out.partial"]])
                    if left:
                        self.assertEqual(writer[0], "prune")
                        self.assertLessEqual(set(self.left(disk / "out.partial")), {".lock", "search.jsonl"})
                        shutil.rmtree(disk / "out.partial")
        text = TEXT.read_bytes() * 400
        with open(disk / "ids", "wb") as full:
            self.one_sentence(run("tokenize", MODEL, input=text, stdout=full, stderr=subprocess.PIPE), "could not be written")

    def test_read_only_places(self):
        disk = self.tmpfs("8M")
        shutil.copyfile(MODEL, disk / "m.gguf")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for writer in self.writers(disk / "out"):
            self.one_sentence(run(*writer), "Read-only file system")
        self.assertEqual(run("inspect", disk / "m.gguf").returncode, 0)
        self.assertEqual(run("apply", disk / "m.gguf", "--drop=1", "-o", self.out).returncode, 0)

    def test_force_keeps_the_old_folder_when_the_new_run_fails(self):
        self.assertEqual(run("apply", MODEL, "--drop=1", "-o", self.out, "--export", "hf-compact").returncode, 0)
        before = {path.name: path.read_bytes() for path in self.out.iterdir()}
        bad = self.folder / "bad.json"
        bad.write_text('{"edits": [{"cut": "model.layers.99.mlp"}]}')
        limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))}
        for arguments, options in ((["apply", MODEL, "--drop=2", "--export", "hf-compact"], limit), (["apply", MODEL, "--drop=2", "--export", "gguf"], limit),
                                   (["apply", MODEL, "--drop=attention:2", "--export", "hf-compact"], {}), (["apply", MODEL, bad], {}),
                                   (["prune", MODEL, "--remove", "2", *FAST], limit), (["prune", MODEL, "--remove", "99", *FAST], {})):
            with self.subTest(arguments=arguments):
                self.one_sentence(run(*arguments, "-o", self.out, "--force", **options))
                self.assertEqual({path.name: path.read_bytes() for path in self.out.iterdir()}, before)
        shutil.rmtree(f"{self.out}.partial", ignore_errors=True)  # of the search that can be resumed
        self.assertEqual(self.left(), ["bad.json", "out"])

    def test_killed_at_any_time(self):
        """After any kill the output is whole or absent; with --force it is the old one or the new one; the next run succeeds."""
        seed = int(os.environ.get("LAMINA_SEED", "7"))
        dice = random.Random(seed)
        for force in (False, True):
            for writer in self.writers(self.out):
                if writer[0] == "forward" and force:
                    continue
                started = time.monotonic()
                self.assertEqual(run(*writer).returncode, 0)
                whole = time.monotonic() - started
                if not force:
                    shutil.rmtree(self.out) if self.out.is_dir() else self.out.unlink()
                for _ in range(40 if SLOW else 4):
                    with subprocess.Popen([str(LAMINA), *map(str, writer), *(["--force"] if force else [])],
                                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                        time.sleep(whole * dice.random() * 1.1)
                        process.kill()
                    with self.subTest(verb=writer[0], force=force, seed=seed):
                        self.assertTrue(self.out.exists() or not force, "the old folder is gone")
                        self.assert_whole_or_absent(self.out, writer)
                    if not force and self.out.exists():
                        shutil.rmtree(self.out) if self.out.is_dir() else self.out.unlink()
                result = run(*writer, *(["--force"] if force else []))
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertEqual([name for name in self.left() if name != "in.safetensors"], ["out"])
                shutil.rmtree(self.out) if self.out.is_dir() else self.out.unlink()

    def test_every_call_that_fails(self):
        """Each write, fsync and rename in turn fails once, as a dying disk lets it: an error, and what was there stays."""
        compiler = shutil.which("cc") or shutil.which("clang-19") or shutil.which("gcc")
        if not compiler:
            self.skipTest("skipped: needs a C compiler")
        source, shim = self.folder / "shim.c", self.folder / "shim.so"
        source.write_text(SHIM)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(shim), str(source), "-ldl"], check=True)
        for writer in (self.writers(self.out)[0], self.writers(self.out)[3]):
            force = ["--force"] if writer[0] == "apply" else []
            self.assertEqual(run(*writer).returncode, 0)
            for call in ("write", "fsync", "rename", "renameat2"):
                failed = 0
                for number in range(1, 200):  # until no call is left to fail
                    result = run(*writer, *force, env={**os.environ, "LD_PRELOAD": str(shim), "SHIM_CALL": call, "SHIM_NUMBER": str(number)})
                    with self.subTest(verb=writer[0], call=call, number=number):
                        if result.returncode != 0:
                            failed += 1
                            self.one_sentence(result, "Input/output error")
                        self.assertTrue(self.out.exists(), result.stderr)
                        self.assert_whole_or_absent(self.out, writer)
                    shutil.rmtree(f"{self.out}.partial", ignore_errors=True)  # kept where the very last step failed
                    if result.returncode == 0 and number > failed + 3:
                        break
                self.assertTrue(failed or call == "renameat2", f"no {call} was seen")
            shutil.rmtree(self.out) if self.out.is_dir() else self.out.unlink()

    def test_sigterm(self):
        with subprocess.Popen([str(LAMINA), "prune", str(MODEL), "-o", str(self.out), "--remove", "6", "--search", "naive", "--samples", "10", "--length", "64",
                               "--calibration", str(TEXT), "--heldout", str(TEXT), "--baselines", "all"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            time.sleep(1.0)
            process.terminate()
            _, message = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 143, message)
        self.assertFalse(self.out.exists())

    def test_little_address_space(self):
        """Wherever memory ends, it ends in a sentence."""
        for verb in (["inspect", MODEL], ["apply", MODEL, "--drop=1", "-o", self.out, "--force"], ["tokenize", MODEL]):
            for megabytes in (16, 24, 32, 48, 64, 128):
                limit = megabytes << 20
                result = run(*verb, input=b"a\n", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
                with self.subTest(verb=verb[0], megabytes=megabytes):
                    if result.returncode == 127:
                        continue  # the system could not even load the program
                    self.assertIn(result.returncode, (0, 1), result.stderr)
                    if result.returncode == 1:
                        self.one_sentence(result)

    def test_an_allocation_that_is_too_large(self):
        """libtorch says no to one tensor, in its own words; ours say what to do."""
        limit = 6 << 30
        result = run("eval", MODEL, "--text", TEXT, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
        if result.returncode != 0:
            self.skipTest("skipped: libtorch itself needs more address space here")
        header = (b'{"input_ids":{"dtype":"I64","shape":[1,60000],"data_offsets":[0,480000]},'
                  b'"attention_mask":{"dtype":"I64","shape":[1,60000],"data_offsets":[480000,960000]}}')
        inputs = self.folder / "long.safetensors"
        inputs.write_bytes(struct.pack("<Q", len(header)) + header + bytes(960_000))
        result = run("forward", MODEL, "--inputs", inputs, "-o", self.out, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
        self.one_sentence(result, "out of memory")
        self.assertEqual(self.left(), ["long.safetensors"])

    def test_two_real_runs_at_once(self):
        for _ in range(20 if SLOW else 4):
            arguments = [str(LAMINA), "apply", str(MODEL), "--drop=1", "-o", str(self.out), "--export", "hf-compact,gguf", "--force"]
            both = [subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
            said = [process.communicate(timeout=60)[1] for process in both]
            self.assertIn(0, [process.returncode for process in both], said)
            for process, message in zip(both, said):
                if process.returncode != 0:
                    self.assertIn(b"another run", message)
            self.assertEqual(run("verify", self.out).returncode, 0)
            self.assertEqual(self.left(), ["out"])
        target = self.folder / "logits"
        both = [subprocess.Popen([str(LAMINA), "forward", str(MODEL), "--inputs", str(self.inputs()), "-o", str(target)], stderr=subprocess.PIPE) for _ in range(2)]
        said = [process.communicate(timeout=60)[1] for process in both]
        self.assertIn(0, [process.returncode for process in both], said)
        self.assert_whole_or_absent(target, ["forward"])

    def test_a_model_that_changed_after_its_plan(self):
        model = self.folder / "m.gguf"
        shutil.copyfile(MODEL, model)
        self.assertEqual(run("prune", model, "-o", self.out, "--plan-only", "--remove", "2", *FAST).returncode, 0)
        self.assertEqual(run("apply", model, self.out / "plan.json", "-o", self.folder / "good").returncode, 0)
        with open(model, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))
        self.one_sentence(run("apply", model, self.out / "plan.json", "-o", self.folder / "bad"), "--other-model")
        self.assertEqual(self.left(), ["good", "m.gguf", "out"])

    def test_streams_that_end(self):
        """A full stdout is an error; a reader that has seen enough is none; a full stderr changes nothing."""
        verbs = [["--help"], ["--version"], ["inspect", MODEL], ["inspect", MODEL, "--json"], ["tokenize", MODEL], ["apply", MODEL, "--drop=1", "-o", self.out, "--force"],
                 ["eval", MODEL, "--text", TEXT], ["generate", MODEL, "-p", "Once", "--tokens", "5"], ["verify", self.out], ["prune", "--help"]]
        for verb in verbs:
            with self.subTest(verb=verb[0]), open("/dev/full", "wb") as full:
                self.one_sentence(run(*verb, input=b"a\n", stdout=full, stderr=subprocess.PIPE), "could not be written")
                result = run(*verb, input=b"a\n", stdout=subprocess.PIPE, stderr=full)
                self.assertEqual(result.returncode, 0)
        with open("/dev/full", "wb") as full:
            self.assertEqual(run("inspect", self.folder / "none", stdout=subprocess.PIPE, stderr=full).returncode, 1)
            self.assertEqual(run("prone", stdout=subprocess.PIPE, stderr=full).returncode, 2)
            self.assertEqual(run("apply", "--dorp", stdout=subprocess.PIPE, stderr=full).returncode, 2)
        for verb in (f"tokenize '{MODEL}' < '{TEXT}'", f"generate '{MODEL}' -p Once --tokens 200", f"inspect '{MODEL}' --json", "--help"):
            result = subprocess.run(f"'{LAMINA}' {verb} | head -c 1; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash", capture_output=True, timeout=60)
            self.assertEqual((result.returncode, result.stderr), (0, b""), verb)


if __name__ == "__main__":
    unittest.main(verbosity=2)
