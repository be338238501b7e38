#!/usr/bin/env python3
"""`lamina train` and `lamina heal` as users meet them: from a config to a folder that opens elsewhere, and through kills, stops, full disks and wrong words.

    tests/e2e/training_test.py build/lamina

Everything is made here, from the texts that the project ships. LAMINA_SLOW=1 kills ten times as often.
"""
import json
import math
import os
import pathlib
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
ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = ROOT / "texts" / "calibration.txt"
HELDOUT = ROOT / "texts" / "heldout.txt"
SLOW = bool(os.environ.get("LAMINA_SLOW"))

GPT2 = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "hidden_act": "silu", "rms_norm_eps": 1e-5,
         "tie_word_embeddings": False}

try:
    import torch
    import transformers
except ImportError:
    torch = None
try:
    import peft
except ImportError:
    peft = None


def run(*arguments, **options):
    streams = {} if "stdout" in options or "stderr" in options else {"capture_output": True}
    return subprocess.run([str(LAMINA), *map(str, arguments)], timeout=300, **streams, **options)


def config(model=GPT2, **changes):
    made = {"model": model, "tokenizer": "bytes", "data": [str(TEXT)], "validation": [str(HELDOUT)], "length": 32, "validation-samples": 16, "seed": 3,
            "training": {"steps": 30, "batch": 4, "lr": 0.01, "warmup": 3, "evaluate-every": 10, "checkpoint-every": 7}}
    made.update(changes)
    return made


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lamina-training-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.out = self.folder / "out"

    def write(self, document, name="tiny.json"):
        path = self.folder / name
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    def train(self, document=None, out=None, *arguments):
        out = out or self.folder / "model"
        result = run("train", self.write(document or config()), "-o", out, *arguments)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return out

    def refused(self, *arguments, says, status=1, **options):
        """The command fails with one sentence that holds `says`, and leaves nothing behind."""
        result = run(*arguments, **options)
        message = result.stderr.decode(errors="replace")
        self.assertEqual(result.returncode, status, message)
        self.assertIn(says, message)
        self.assertLessEqual(len(message.strip().splitlines()), 2, message)
        self.assertNotIn("terminate called", message)
        self.nothing_at(pathlib.Path(arguments[arguments.index("-o") + 1]))

    def nothing_at(self, out):
        self.assertFalse(out.exists(), "something was left behind")
        self.assertFalse(pathlib.Path(f"{out}.partial").exists(), "something was left behind")

    def samples(self, ids, name="samples.safetensors", **beside):
        """Token ids [samples, tokens], and masks or labels of the same shape, as a safetensors file."""
        header, data = {}, b""
        for key, rows in {"input_ids": ids, **beside}.items():
            flat = [value for row in rows for value in row]
            header[key] = {"dtype": "I64", "shape": [len(rows), len(rows[0])], "data_offsets": [len(data), len(data) + 8 * len(flat)]}
            data += struct.pack(f"<{len(flat)}q", *flat)
        text = json.dumps(header).encode()
        path = self.folder / name
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)
        return path


class Train(Case):
    def test_a_model_from_nothing(self):
        result = run("train", self.write(config()), "-o", self.out, "--json")
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        report = json.loads(result.stdout)
        steps = report["training"]["steps"]
        self.assertEqual([step["step"] for step in steps], list(range(1, 31)))
        self.assertEqual([look["step"] for look in report["training"]["evaluations"]], [0, 10, 20, 30])
        looks = [look["validation_loss"] for look in report["training"]["evaluations"]]
        self.assertAlmostEqual(looks[0], math.log(257), delta=0.1)
        self.assertLess(looks[-1], looks[0] - 1)
        self.assertEqual(steps[0]["tokens"], 4 * 31)
        self.assertAlmostEqual(steps[3]["learning_rate"], 0.01)
        self.assertEqual(steps[0]["learning_rate"], 0)
        there = {path.name for path in self.out.iterdir()}
        self.assertEqual(there, {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
                                 "merges.txt", "README.md", "report.html", "report.json", "curve.jsonl"})
        lines = [json.loads(line) for line in (self.out / "curve.jsonl").read_text().splitlines()]
        self.assertEqual([line["loss"] for line in lines if "loss" in line], [step["loss"] for step in steps])
        self.assertEqual([line["validation_loss"] for line in lines if "validation_loss" in line], looks)
        self.assertEqual(json.loads((self.out / "config.json").read_text())["vocab_size"], 257)
        self.assertFalse(pathlib.Path(f"{self.out}.partial").exists())
        result = run("generate", self.out, "-p", "Once", "--tokens", "5", "--json")
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        self.assertEqual(json.loads(result.stdout)["prompt_tokens"], 4)

    def test_the_same_seed_gives_the_same_bytes_and_another_others(self):
        one, two, three = (self.train(None, self.folder / name) for name in ("one", "two", "three"))
        self.assertEqual(weights(one), weights(two))
        other = self.train(None, self.folder / "other", "--seed", "4")
        self.assertNotEqual(weights(one), weights(other))

    def test_configs_that_mean_nothing(self):
        def says(document, expected):
            self.refused("train", self.write(document), "-o", self.out, says=expected)

        says(config(lenght=32), 'was "length" meant')
        says(config(training={"learning-rat": 1}), "learning-rat")
        says(config(training={"step": 1}), 'was "steps" meant')
        says(config(training={"schedule": "cosin"}), "cosine")
        says(config(training={"steps": 0}), "steps")
        says(config(training={"lr": "fast"}), "lr")
        says(config(initialisation={"sdt": 1}), "what does: std")
        says(config(initialisation={"std": -1}), "above 0")
        says(config(data=["nowhere.txt"]), "nowhere.txt")
        says(config(data=[]), "names no file")
        says(config(validation=1.5), "share")
        says(config(length=65), "made for 64")
        says(config(model={**GPT2, "vocab_size": 100}), "cannot hold")
        says(config(model={**GPT2, "n_head": 5}), "do not divide")
        says(config(model={"architectures": ["BertModel"]}), "not known here")
        says(config(tokenizer="nowhere"), "nowhere")
        says({"data": ["x"]}, '"model" is missing')
        says("{", "tiny.json")
        self.refused("train", self.folder / "none.json", "-o", self.out, says="no such file")

    def test_a_text_too_short(self):
        short = self.folder / "short.txt"
        short.write_text("too short")
        self.refused("train", self.write(config(data=[str(short)])), "-o", self.out, says="too few")
        self.refused("train", self.write(config(validation=[str(short)])), "-o", self.out, says="too few")
        short.write_text("x" * 40)
        self.refused("train", self.write(config(data=[str(short)], validation=0.05)), "-o", self.out, says="hold out")

    def test_paths_are_seen_from_the_file_and_a_share_is_held_out(self):
        (self.folder / "below").mkdir()
        shutil.copy(TEXT, self.folder / "below" / "book.txt")
        path = self.write(config(data=["book.txt"], validation="10%", training={"steps": 2}), "below/c.json")
        result = run("train", path, "-o", self.out, "--json", cwd="/")
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        data = json.loads(result.stdout)["data"]
        self.assertEqual(data["data"][0]["name"], "book.txt")
        self.assertIn("the last 10", data["validation"])

    def test_the_tokenizer_of_another_model(self):
        first = self.train(config(training={"steps": 1}))
        for tokenizer in (first, first / "tokenizer.json"):
            shutil.rmtree(self.out, ignore_errors=True)
            self.train(config(LLAMA, tokenizer=str(tokenizer), training={"steps": 1}), self.out)
            a, b = (run("tokenize", folder, "--whole", input=TEXT.read_bytes()) for folder in (first, self.out))
            self.assertEqual(a.returncode, 0, a.stderr)
            self.assertEqual(a.stdout, b.stdout)

    def test_the_examples(self):
        for example in sorted((ROOT / "examples").glob("*.json")):
            with self.subTest(example=example.name):
                shutil.rmtree(self.out, ignore_errors=True)
                result = run("train", example, "-o", self.out, "--steps", "3", "--json")
                self.assertEqual(result.returncode, 0, result.stderr.decode())

    def test_a_tick_of_help(self):
        for verb in ("train", "heal"):
            result = run(verb, "--help")
            self.assertEqual(result.returncode, 0)
            self.assertIn(f"Example: lamina {verb} ", result.stdout.decode())


class Heal(Case):
    def setUp(self):
        super().setUp()
        self.model = self.train(config(LLAMA))
        self.heal = ["heal", self.model, "--data", TEXT, "--length", "32", "--batch", "4", "--validation-samples", "8"]

    def test_text_and_a_share_held_out(self):
        result = run(*self.heal, "--lr", "1e-3", "--steps", "10", "-o", self.out, "--json")
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        report = json.loads(result.stdout)
        looks = report["training"]["evaluations"]
        self.assertLess(looks[-1]["validation_loss"], looks[0]["validation_loss"])
        self.assertNotEqual(weights(self.out), weights(self.model))
        self.assertIn("the last", report["data"]["validation"])
        card = (self.out / "README.md").read_text()
        self.assertIn('base_model: "model"', card)
        self.assertIn("healed", card)
        self.assertNotIn("pruned", card)

    def test_words_for_people(self):
        result = run(*self.heal, "--lr", "1e-3", "--steps", "10", "-o", self.out, env={**os.environ, "LC_ALL": "C"})
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        self.assertEqual(result.stderr, b"")
        text = result.stdout.decode("ascii")
        for word in ("Validation loss", "report", "opens in", "before:", "step"):
            self.assertIn(word, text)
        self.assertLessEqual(max(map(len, text.split("report ")[0].split("Once")[0].splitlines())), 80)

    def test_adapters(self):
        result = run(*self.heal, "--steps", "10", "--lora", "4", "--alpha", "8", "--targets", "*.q_proj,*.down_proj", "--adapter", "-o", self.out)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        settings = json.loads((self.out / "adapter" / "adapter_config.json").read_text())
        self.assertEqual(settings["r"], 4)
        self.assertEqual(len(settings["target_modules"]), 4)
        self.refused(*self.heal, "--adapter", "-o", self.folder / "b", says="--lora")
        self.refused(*self.heal, "--lora", "4", "--targets", "*.c_attn", "-o", self.folder / "b", says="matches no")

    def test_a_teacher(self):
        teacher = self.train(config(LLAMA, training={"steps": 60, "batch": 4, "lr": 0.01}), self.folder / "teacher")
        result = run(*self.heal, "--steps", "20", "--teacher", teacher, "--temperature", "2", "--hidden", "0.1", "--hard", "0.5", "-o", self.out, "--json")
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        steps = json.loads(result.stdout)["training"]["steps"]
        self.assertLess(steps[-1]["kl"], steps[0]["kl"])
        self.refused(*self.heal, "--temperature", "2", "-o", self.folder / "b", says="--teacher")
        other = self.train(config({**LLAMA, "vocab_size": 300}), self.folder / "other")
        self.refused(*self.heal, "--teacher", other, "-o", self.folder / "b", says="vocabulary")

    def test_samples_in_their_order(self):
        ids = [[random.Random(i).randrange(256) for _ in range(16)] for i in range(6)]
        ones = [[1] * 16 for _ in ids]
        mask = [[0] * 4 + [1] * 12 if i % 2 else [1] * 16 for i in range(6)]
        labels = [[-100] * 8 + row[8:] for row in ids]
        expected = {"plain": 2 * 15, "ones": 2 * 15, "mask": 15 + 11, "labels": 2 * 8}
        files = {"plain": self.samples(ids, "a"), "ones": self.samples(ids, "b", attention_mask=ones), "mask": self.samples(ids, "c", attention_mask=mask),
                 "labels": self.samples(ids, "d", labels=labels)}
        losses = {}
        for name, path in files.items():
            with self.subTest(name):
                result = run("heal", self.model, "--samples", path, "--batch", "2", "--steps", "4", "--dtype", "float64", "--lr", "0", "--clip", "0",
                             "-o", self.folder / name, "--json")
                self.assertEqual(result.returncode, 0, result.stderr.decode())
                steps = json.loads(result.stdout)["training"]["steps"]
                self.assertEqual(steps[0]["tokens"], expected[name])
                losses[name] = [step["loss"] for step in steps]
                # Nothing is learnt at a rate of 0: step 4 sees the samples of step 1 again.
                self.assertEqual(losses[name][3], losses[name][0])
                self.assertNotEqual(losses[name][1], losses[name][0])
        for a, b in zip(losses["plain"], losses["ones"]):
            self.assertAlmostEqual(a, b, places=12)
        self.refused("heal", self.model, "--samples", self.samples([[1, 999]], "e"), "-o", self.out, says="outside 0 to 256")
        self.refused("heal", self.model, "--samples", self.samples(ids, "f", labels=[[-100] * 16] * 6), "-o", self.out, says="to be learnt")
        self.refused("heal", self.model, "--samples", files["plain"], "--data", TEXT, "-o", self.out, says="both")

    def test_what_cannot_be(self):
        data = ["--data", TEXT, "-o", self.out]
        self.refused("heal", self.folder / "nowhere", *data, says="no such file")
        self.refused("heal", self.model, "--data", self.folder / "nowhere.txt", "-o", self.out, says="nowhere.txt")
        self.refused("heal", self.model, "-o", self.out, says="--data")
        self.refused("heal", self.model, *data, "--length", "100", says="made for 64")
        self.refused("heal", self.model, *data, "--length", "32", "--holdout", "150%", says="share")
        self.refused("heal", self.model, *data, "--length", "32", "--steps", "0", says="steps")
        self.refused("heal", self.model, *data, "--length", "32", "--lr", "-1", says="lr")
        self.refused("heal", self.model, *data, "--length", "32", "--schedule", "cosin", says="cosine")
        self.refused("heal", self.model, *data, "--length", "32", "--dtype", "float16", says="float32 and float64")
        self.refused("heal", self.model, *data, "--length", "32", "--device", "tpu", says="cpu")
        self.refused("heal", self.model, *data, "--length", "32", "--frozen", "nothing.*", says="matches no")
        self.refused("heal", self.model, *data, "--length", "32", "--frozen", "*", says="nothing is left to train")
        self.refused("heal", self.model, *data, "--length", "32", "--export", "hf-compct", says="hf-compact")
        self.refused("heal", self.model, *data, "--length", "32", "--batch", "10000000", says="memory")
        self.refused("heal", self.model, *data, "--lnegth", "32", says="--help", status=2)
        result = run("heal", self.model, "--data", TEXT, "--length", "32", "-o", self.model, "--force")
        self.assertIn(b"is the input", result.stderr)
        (self.model / "model.safetensors").write_bytes(weights(self.model)[:1000])
        self.refused("heal", self.model, *data, says="model.safetensors")

    def test_frozen_tensors_stay(self):
        result = run(*self.heal, "--steps", "5", "--frozen", "model.embed_tokens.weight,*norm*", "-o", self.out)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        before, after = (tensors(folder / "model.safetensors") for folder in (self.model, self.out))
        for name in before:
            frozen = "embed_tokens" in name or "norm" in name
            self.assertEqual(before[name] == after[name], frozen, name)

    def test_not_a_number(self):
        result = run(*self.heal, "--steps", "40", "--schedule", "constant", "--lr", "1e30", "--clip", "0", "-o", self.out)
        message = result.stderr.decode()
        self.assertEqual(result.returncode, 1, message)
        self.assertRegex(message, r"step \d+: .* was not a number; .*out holds the weights after step \d+")
        self.assertEqual(run("inspect", self.out).returncode, 0)
        self.assertIn("was not a number", (self.out / "README.md").read_text())

    def test_full_disk(self):
        for size in (1000, 100_000):
            with self.subTest(limit=size):
                def limit(bytes=size):
                    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, bytes))
                self.refused(*self.heal, "--steps", "10", "--checkpoint-every", "3", "-o", self.out, says="nothing was replaced", preexec_fn=limit)

    def test_a_reader_that_goes_away(self):
        command = " ".join(f"'{word}'" for word in [LAMINA, *self.heal, "--steps", "3", "-o", self.out, "--json"])
        result = subprocess.run(f"{command} | head -n 1; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash", capture_output=True, timeout=300)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue((self.out / "model.safetensors").exists())


def tensors(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    return {name: data[8 + size + info["data_offsets"][0]:8 + size + info["data_offsets"][1]] for name, info in header.items() if name != "__metadata__"}


class Resume(Case):
    """Whatever ends a run, the same command with --resume comes to the same bytes."""

    def ways(self):
        model = self.train(config(training={"steps": 5}))
        common = ["--data", TEXT, "--length", "32", "--batch", "4", "--validation-samples", "4", "--steps", "40", "--checkpoint-every", "3", "--seed", "5"]
        yield "train", ["train", self.write(config(training={"steps": 40, "batch": 4, "lr": 0.01, "checkpoint-every": 3}), "resume.json")]
        yield "all", ["heal", model, *common, "--evaluate-every", "10", "--warmup", "5"]
        yield "adapters", ["heal", model, *common, "--lora", "4", "--accumulate", "2", "--schedule", "linear"]
        yield "teacher", ["heal", model, *common, "--teacher", model, "--hard", "1"]

    def test_killed_at_any_moment(self):
        dice = random.Random(7)
        for name, command in self.ways():
            with self.subTest(name):
                whole, broken = self.folder / f"{name}-whole", self.folder / f"{name}-broken"
                started = time.monotonic()
                self.assertEqual(run(*command, "-o", whole).returncode, 0)
                took = time.monotonic() - started
                for _ in range(20 if SLOW else 3):
                    with subprocess.Popen([str(LAMINA), *map(str, command), "-o", str(broken), "--resume"], stdout=subprocess.DEVNULL,
                                          stderr=subprocess.PIPE) as process:
                        try:
                            process.wait(dice.uniform(0.2, 1.0) * took)
                        except subprocess.TimeoutExpired:
                            process.kill()
                    if broken.exists():
                        break
                if not broken.exists():
                    result = run(*command, "-o", broken, "--resume")
                    self.assertEqual(result.returncode, 0, result.stderr.decode())
                self.assertEqual(weights(whole), weights(broken))
                curves = [[{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in (folder / "curve.jsonl").read_text().splitlines()]
                          for folder in (whole, broken)]
                self.assertEqual(curves[0], curves[1])
                self.assertFalse(pathlib.Path(f"{broken}.partial").exists())

    def until_a_checkpoint(self, process):
        state = pathlib.Path(f"{self.out}.partial") / "training" / "run"
        for _ in range(4000):
            if state.exists() and any(path.name.startswith("step-") and "." not in path.name for path in state.iterdir()):
                return
            self.assertIsNone(process.poll(), "the run ended before its first checkpoint")
            time.sleep(0.005)
        self.fail("no checkpoint came")

    def test_ctrl_c(self):
        command = ["train", self.write(config(training={"steps": 2000, "batch": 4, "lr": 0.01, "checkpoint-every": 10}))]
        with subprocess.Popen([str(LAMINA), *map(str, command), "-o", str(self.out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            self.until_a_checkpoint(process)
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            out, message = process.communicate(timeout=300)
        self.assertEqual(process.returncode, 130, message)
        self.assertEqual(out, b"")
        self.assertIn(b"--resume", message)
        self.assertIn(b"stopped", message)
        self.assertFalse(self.out.exists())
        log = pathlib.Path(f"{self.out}.partial") / "training" / "curve.jsonl"
        done = len(log.read_text().splitlines())
        self.assertGreaterEqual(done, 10)
        # The checkpoint is of the very step that the signal met, not of the last multiple of ten.
        steps = [int(path.name[5:]) for path in (log.parent / "run").iterdir()]
        self.assertEqual(max(steps), done)
        # Another model in its place is refused, and what was learnt is not lost by that.
        result = run("train", self.write(config(seed=4, training={"steps": 2000, "batch": 4, "lr": 0.01}), "other.json"), "-o", self.out, "--resume")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"differs", result.stderr)
        result = run(*command, "-o", self.out, "--resume", "--steps", str(done), "--json")
        self.assertNotEqual(result.returncode, 0, "a shorter cosine is another run")

    def test_stopped_before_the_first_checkpoint_leaves_nothing(self):
        command = ["train", self.write(config(training={"steps": 2000, "batch": 4, "checkpoint-every": 2000}))]
        with subprocess.Popen([str(LAMINA), *map(str, command), "-o", str(self.out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            time.sleep(0.35)
            process.send_signal(signal.SIGTERM)
            _, message = process.communicate(timeout=300)
        self.assertIn(process.returncode, (143, -signal.SIGTERM), message)
        kept = pathlib.Path(f"{self.out}.partial").exists()
        self.assertEqual(kept and process.returncode == 143, b"--resume" in message, message)

    def test_a_disk_that_fills_up_on_the_way(self):
        command = ["train", self.write(config(training={"steps": 300, "batch": 4, "lr": 0.01, "checkpoint-every": 5}))]
        whole = self.folder / "whole"
        self.assertEqual(run(*command, "-o", whole).returncode, 0)
        with subprocess.Popen([str(LAMINA), *map(str, command), "-o", str(self.out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            self.until_a_checkpoint(process)
            process.kill()

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
        result = run(*command, "-o", self.out, "--resume", preexec_fn=limit)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn(b"--resume", result.stderr)
        self.assertFalse(self.out.exists())
        result = run(*command, "-o", self.out, "--resume")
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        self.assertEqual(weights(whole), weights(self.out))

    def test_two_runs_into_one_folder(self):
        command = [str(LAMINA), "train", str(self.write(config(training={"steps": 3000}))), "-o", str(self.out)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            self.until_a_checkpoint(process)
            result = run(*command[1:])
            process.kill()
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"another run", result.stderr)


@unittest.skipUnless(torch, "skipped: transformers is not installed; make parity installs it")
class Elsewhere(Case):
    def logits(self, model):
        model = model.double().eval()
        with torch.no_grad():
            return model(torch.arange(5, 37).reshape(2, 16)).logits

    def test_transformers_opens_what_was_trained(self):
        for name, architecture in (("gpt2", GPT2), ("llama", LLAMA)):
            with self.subTest(name):
                out = self.train(config(architecture), self.folder / name)
                model, info = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
                self.assertFalse(info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"], info)
                tokenizer = transformers.AutoTokenizer.from_pretrained(out)
                for text in ("Once upon a time", "Grüße, 世界! \U0001F600\n\n  two  spaces\t<|endoftext|>x 123's", HELDOUT.read_text()):
                    ids = tokenizer(text)["input_ids"]
                    self.assertEqual(ids, [token for part in text.split("<|endoftext|>") for token in [*part.encode(), 256]][:-1])
                    self.assertEqual(tokenizer.decode(ids, clean_up_tokenization_spaces=False), text)
                    ours = run("tokenize", out, "--whole", input=text.encode())
                    self.assertEqual(ours.returncode, 0, ours.stderr.decode())
                    self.assertEqual(list(map(int, ours.stdout.split())), ids)
                self.assertEqual(tokenizer.eos_token_id, 256)
                # The validation loss that was reported is the one that transformers finds.
                reported = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()][-1]["validation_loss"]
                ids = torch.tensor(list(HELDOUT.read_bytes())[:16 * 32]).reshape(16, 32)
                with torch.no_grad():
                    loss = model.double()(ids, labels=ids).loss.item()
                self.assertAlmostEqual(loss, reported, places=5)

    def test_two_ranks_are_one_with_the_whole_batch(self):
        base = self.train(config(training={"steps": 5, "batch": 4, "lr": 0.01}))
        losses = {}
        for ranks in (1, 2):
            out = self.folder / f"ranks{ranks}"
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python", "--nproc-per-node", str(ranks), str(LAMINA), "heal",
                       str(base), "--data", str(TEXT), "--length", "32", "--batch", "2", "--accumulate", "4", "--steps", "12", "--evaluate-every", "4",
                       "--checkpoint-every", "5", "--json", "-o", str(out)]
            result = subprocess.run(command, capture_output=True, timeout=300)
            self.assertEqual(result.returncode, 0, result.stderr.decode())
            report = json.loads(result.stdout)  # rank 0 alone speaks
            losses[ranks] = [line["loss"] for line in report["training"]["steps"]] + [line["validation_loss"] for line in report["training"]["evaluations"]]
            self.assertFalse(pathlib.Path(f"{out}.partial").exists())
        self.assertEqual(len(losses[2]), 12 + 4)
        for one, two in zip(losses[1], losses[2]):
            self.assertAlmostEqual(one, two, delta=1e-6)

    @unittest.skipUnless(peft, "skipped: peft is not installed; make parity installs it")
    def test_peft_opens_the_adapter(self):
        for name, architecture, targets in (("gpt2", GPT2, "*.c_attn,*.mlp.c_proj"), ("llama", LLAMA, "")):
            with self.subTest(name):
                base = self.train(config(architecture), self.folder / name)
                out = self.folder / f"{name}-healed"
                result = run("heal", base, "--data", TEXT, "--length", "32", "--batch", "4", "--steps", "10", "--lora", "3", "--alpha", "7", "--adapter",
                             "--lr", "1e-2", "-o", out, *(["--targets", targets] if targets else []))
                self.assertEqual(result.returncode, 0, result.stderr.decode())
                merged = self.logits(transformers.AutoModelForCausalLM.from_pretrained(out))
                plain = self.logits(transformers.AutoModelForCausalLM.from_pretrained(base))
                adapted = self.logits(peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), out / "adapter"))
                self.assertLess((merged - adapted).abs().max().item(), 1e-5)
                self.assertGreater((merged - plain).abs().max().item(), 1e-2)


if __name__ == "__main__":
    unittest.main(verbosity=1)
