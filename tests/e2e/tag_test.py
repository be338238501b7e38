#!/usr/bin/env python3
"""`lamina tag train`, `eval` and `predict` as users meet them: from sentences with tags to a tagger that opens again, through searches, kills, pipes and wrong words.

    tests/e2e/tag_test.py build/lamina

Everything is made here: small models from the texts that the project ships, and sentences whose entities can be told by their letters.
"""
import collections
import json
import os
import pathlib
import random
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

GPT2 = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "hidden_act": "silu", "rms_norm_eps": 1e-5,
         "tie_word_embeddings": True}
PEOPLE, PLACES = ["Ada", "Bob", "Cleo"], ["Rome", "Oslo", "Lima"]
PLAIN = ["saw", "the", "old", "ship", "and", "went", "home", "with", "her", "dog"]

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


def sentences(count, seed):
    dice = random.Random(seed)
    made = []
    for _ in range(count):
        words = []
        for _ in range(dice.randint(3, 7)):
            chance = dice.random()
            if words and words[-1][1] != "O":  # two entities side by side could not be told from one
                words.append((dice.choice(PLAIN), "O"))
            elif chance < 0.2:
                words.append((dice.choice(PEOPLE), "B-PER"))
                if dice.random() < 0.4:
                    words.append((dice.choice(PEOPLE), "I-PER"))
            elif chance < 0.4:
                words.append((dice.choice(PLACES), "B-LOC"))
            else:
                words.append((dice.choice(PLAIN), "O"))
        made.append(words)
    return made


def conll(rows, separator="\t"):
    return "".join("".join(f"{word}{separator}{tag}\n" for word, tag in sentence) + "\n" for sentence in rows)


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


class Shared:
    """Models that all tests start from, made once."""
    folder = None

    @classmethod
    def model(cls, name="llama", config=LLAMA, seed=3):
        if cls.folder is None:
            cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="lamina-tag-"))
        out = cls.folder / name
        if not out.exists():
            document = cls.folder / f"{name}.json"
            document.write_text(json.dumps({"model": config, "tokenizer": "bytes", "data": [str(TEXT)], "length": 64, "seed": seed,
                                            "training": {"steps": 5, "batch": 4, "lr": 0.01}}))
            result = run("train", document, "-o", out)
            assert result.returncode == 0, result.stderr.decode()
        return out


def tearDownModule():
    if Shared.folder:
        shutil.rmtree(Shared.folder, ignore_errors=True)


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lamina-tag-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.out = self.folder / "out"
        self.model = Shared.model()
        self.files = {}
        for name, count in (("train", 160), ("dev", 40), ("test", 60)):
            self.files[name] = self.folder / f"{name}.conll"
            self.files[name].write_text(conll(sentences(count, name)))

    def data(self, *names):
        return [part for name in names or ("train", "dev", "test") for part in (f"--{name}", self.files[name])]

    def command(self, defaults, arguments):
        """What `arguments` says overrules the defaults; of a None nothing is left."""
        said = {str(part) for part in arguments}
        flags = [part for flag, value in defaults.items() if flag not in said and value is not None for part in (flag, value) if part != ""]
        return ["tag", "train", self.model, *self.data(), *flags, *arguments]

    # Tokens are bytes and a word begins with its space: the last byte knows the word.
    QUICK = {"--full": "", "--lr": "5e-3", "--steps": "60", "--length": "64", "--answer": "last"}

    def quick(self, *arguments):
        """A run that learns what there is to learn in a second."""
        return self.command({**self.QUICK, **({"--full": None} if {"--lora", "--from-scratch"} & set(arguments) else {})}, arguments)

    def train(self, *arguments, out=None):
        result = run(*self.quick(*arguments), "-o", out or self.out, "--json")
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return json.loads(result.stdout)

    def adapter(self, *arguments, out=None):
        result = run(*self.command({**self.QUICK, "--full": None, "--lora": "8", "--lr": "2e-2", "--steps": "100"}, arguments), "-o", out or self.out,
                     "--json")
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return json.loads(result.stdout)

    def eval(self, *arguments, data=None):
        result = run("tag", "eval", *arguments, "--data", data or self.files["test"], "--json", "--quiet")
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return json.loads(result.stdout)

    def predict(self, *arguments, text):
        result = run("tag", "predict", *arguments, "--quiet", input=text if isinstance(text, bytes) else text.encode())
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return result.stdout.decode()

    def refused(self, *arguments, says, status=1, **options):
        result = run(*arguments, **options)
        message = result.stderr.decode(errors="replace")
        self.assertEqual(result.returncode, status, message)
        self.assertIn(says, message)
        self.assertLessEqual(len(message.strip().splitlines()), 2, message)
        self.assertNotIn("terminate called", message)
        if "-o" in arguments:
            out = pathlib.Path(arguments[arguments.index("-o") + 1])
            self.assertFalse(out.exists() or pathlib.Path(f"{out}.partial").exists(), "something was left behind")


class Train(Case):
    def test_from_sentences_to_a_tagger(self):
        answer = self.train("--mask", "0011", "--steps", "150")
        arm, = answer["arms"]
        self.assertEqual(arm["name"], "0011")
        there = {path.name for path in self.out.iterdir()}
        self.assertLessEqual({"config.json", "model.safetensors", "tokenizer.json", "README.md", "report.html", "report.json", "results.json", "curves"},
                             there)
        self.assertNotIn("training", there)
        self.assertFalse(pathlib.Path(f"{self.out}.partial").exists())
        config = json.loads((self.out / "config.json").read_text())
        self.assertEqual(config["lamina_unmasked"], [2, 3])
        self.assertEqual(config["id2label"], {"0": "O", "1": "B-LOC", "2": "I-LOC", "3": "B-PER", "4": "I-PER"})
        curve = [json.loads(line) for line in (self.out / "curves" / "0011-seed0.jsonl").read_text().splitlines()]
        self.assertEqual([line["step"] for line in curve], list(range(1, 151)))
        self.assertLess(curve[-1]["loss"], curve[0]["loss"] / 2)
        score = self.eval(self.out)
        self.assertGreater(score["f1"], 0.8)
        self.assertEqual(score["mask"], {"plan": "0011", "unmasked": [2, 3]})
        self.assertEqual(score["split_sentences"], 0)
        self.assertEqual(set(score["types"]), {"PER", "LOC"})
        # What was reported is what the folder gives.
        results = json.loads((self.out / "results.json").read_text())
        self.assertEqual(results["score"]["f1"], score["f1"])
        self.assertEqual(results["arms"][0]["runs"][0]["test"]["f1"], score["f1"])
        card = (self.out / "README.md").read_text()
        self.assertIn("mask plan 0011: blocks 2-3 look right", card)
        self.assertIn("token-classification", card)
        self.assertIn('base_model: "llama"', card)
        # `tag score` counts the same from what predict writes.
        tagged = self.predict(self.out, self.files["test"], text="")
        counted = run("tag", "score", "-", "--json", input=tagged.encode())
        self.assertEqual(counted.returncode, 0, counted.stderr.decode())
        self.assertEqual(json.loads(counted.stdout)["f1"], score["f1"])

    def test_words_for_people(self):
        result = run(*self.quick("--mask", "none", "--mask", "all", "--seeds", "2"), "-o", self.out, env={**os.environ, "LC_ALL": "C"})
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        self.assertEqual(result.stderr, b"")
        text = result.stdout.decode("ascii")
        for word in ("none", "all", "seed 0", "seed 1", "dev F1", "test F1", "left", "report", "lamina tag predict"):
            self.assertIn(word, text)
        result = run("tag", "eval", self.out, "--data", self.files["test"], env={**os.environ, "LC_ALL": "C"})
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        self.assertIn(b"self-test passed", result.stderr)
        self.assertIn("precision", result.stdout.decode("ascii"))
        for verb in ("train", "eval", "predict"):
            result = run("tag", verb, "--help")
            self.assertEqual(result.returncode, 0)
            self.assertIn(f"Example: lamina tag {verb} ", result.stdout.decode())

    def test_the_plan_is_told(self):
        self.train("--mask", "0011")
        for verb in (["eval", self.out, "--data", self.files["dev"]], ["predict", self.out]):
            result = run("tag", *verb, input=b"Ada")
            self.assertIn(b"mask plan 0011 (blocks 2-3 look right), self-test passed", result.stderr)
        # A model that looks right is no language model any more.
        self.refused("generate", self.out, "-p", "x", says="classif")

    def test_the_same_seed_gives_the_same_bytes(self):
        for name in ("one", "two"):
            self.train("--mask", "01", out=self.folder / name)
        self.assertEqual(weights(self.folder / "one"), weights(self.folder / "two"))
        self.train("--mask", "01", "--seed", "1", out=self.folder / "three")
        self.assertNotEqual(weights(self.folder / "one"), weights(self.folder / "three"))

    def test_a_search_with_a_probe(self):
        answer = self.train("--search", "2", "--probe", "--seeds", "2", "--steps", "25")
        arms = {arm["name"]: arm for arm in answer["arms"]}
        self.assertEqual(set(arms), {"00", "01", "10", "11", "probe"})
        means = {name: sum(run["dev"]["f1"] for run in arm["runs"]) / len(arm["runs"]) for name, arm in arms.items()}
        del means["probe"]
        self.assertEqual(answer["chosen"]["arm"], max(means, key=means.get))
        self.assertEqual(len(list((self.out / "curves").iterdir())), 10)
        found = self.eval(self.out, data=self.files["dev"])
        best = max(run["dev"]["f1"] for run in arms[max(means, key=means.get)]["runs"])
        self.assertAlmostEqual(found["f1"], best, places=9)

    def test_other_ways_to_learn(self):
        for name, flags in {"repeat": ["--mask", "none", "--repeat", "1", "--length", "48"], "scratch": ["--from-scratch"], "first": ["--answer", "first"],
                            "adapt": ["--adapt", "mntp:5", "--mask-token", "_"], "causal": ["--adapt", "causal:5"], "best": ["--best-epoch"],
                            "types": ["--weights", "bfloat16"], "double": ["--dtype", "float64"]}.items():
            with self.subTest(name):
                out = self.folder / name
                result = run(*self.quick(*flags, "--steps", "10"), "-o", out, "--json")
                self.assertEqual(result.returncode, 0, result.stderr.decode())
                self.eval(out)
        config = json.loads((self.folder / "repeat" / "config.json").read_text())
        self.assertEqual(config["lamina_tagger"]["repeat"], 1)
        self.assertNotIn("lamina_unmasked", config)
        self.assertLess(len(weights(self.folder / "types")), 0.6 * len(weights(self.folder / "first")))

    def test_gpt2_and_other_schemes(self):
        self.model = Shared.model("gpt2", GPT2)
        # The same entities with another scheme's tags, columns parted by spaces and one more between.
        for name in self.files:
            rows = []
            for sentence in sentences(120, name):
                tags = [tag for _, tag in sentence] + ["O"]
                out = []
                for i, (word, tag) in enumerate(sentence):
                    ends = not tags[i + 1].startswith("I-")
                    out.append((f"{word} X", tag if tag == "O" else {("B", True): "S", ("B", False): "B", ("I", True): "E", ("I", False): "I"}[tag[0], ends] + tag[1:]))
                rows.append(out)
            self.files[name].write_text(conll(rows, " "))
        answer = self.train("--mask", "01", "--steps", "100")
        self.assertEqual(answer["data"]["labels"], ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"])
        self.assertGreater(self.eval(self.out)["f1"], 0.5)

    def test_long_sentences_are_split_and_counted(self):
        long = [[pair for sentence in sentences(8, seed) for pair in sentence] for seed in range(30)]
        self.files["train"].write_text(conll(long + sentences(100, "more")))
        self.files["test"].write_text(conll(long[:5]))
        self.train()
        score = self.eval(self.out)
        self.assertEqual(score["split_sentences"], 5)
        self.assertEqual(score["words"], sum(map(len, long[:5])))


class Adapters(Case):
    def test_merged_and_beside(self):
        self.adapter("--mask", "0011", "--alpha", "16", "--targets", "*.q_proj,*.v_proj,*.down_proj")
        whole = self.eval(self.out)
        self.assertGreater(whole["f1"], 0.3)
        folder = self.out / "adapter"
        self.assertEqual({path.name for path in folder.iterdir()}, {"adapter_config.json", "adapter_model.safetensors", "lamina_tagger.json"})
        settings = json.loads((folder / "adapter_config.json").read_text())
        self.assertEqual((settings["task_type"], settings["modules_to_save"], settings["r"], settings["lora_alpha"]), ("TOKEN_CLS", ["score"], 8, 16))
        beside = self.eval(folder, "--model", self.model)
        self.assertEqual(beside["mask"], {"plan": "0011", "unmasked": [2, 3]})
        self.assertEqual((beside["f1"], beside["words_right"]), (whole["f1"], whole["words_right"]))
        # Where the base is still where it was, nobody need name it.
        self.assertEqual(self.eval(folder)["f1"], whole["f1"])
        text = "Ada saw Rome"
        self.assertEqual(self.predict(self.out, text=text), self.predict(folder, "--model", self.model, text=text))

    def test_the_adapter_alone(self):
        self.adapter("--adapter-only", "--mask", "01", "--probe")
        there = {path.name for path in self.out.iterdir()}
        self.assertEqual(there, {"adapter_config.json", "adapter_model.safetensors", "lamina_tagger.json", "README.md", "report.html", "report.json",
                                 "results.json", "curves"})
        self.assertIn('library_name: "peft"', (self.out / "README.md").read_text())
        self.eval(self.out, "--model", self.model)

    def test_the_wrong_base(self):
        self.adapter("--adapter-only", "--steps", "5")
        test = ["--data", self.files["test"]]
        other = Shared.model("other", LLAMA, seed=4)
        self.refused("tag", "eval", self.out, "--model", other, *test, says="--any-base")
        self.eval(self.out, "--model", other, "--any-base")
        self.refused("tag", "eval", self.out, "--model", Shared.model("gpt2", GPT2), "--any-base", *test, says="blocks")
        self.refused("tag", "eval", self.out, "--model", self.folder / "nowhere", *test, says="nowhere")
        self.train(out=self.folder / "tagger")
        self.refused("tag", "eval", self.out, "--model", self.folder / "tagger", *test, says="is a token classifier")
        self.refused("tag", "eval", self.folder / "tagger", "--model", self.model, *test, says="is a whole model")
        settings = json.loads((self.out / "adapter_config.json").read_text())
        settings["base_model_name_or_path"] = "some/where"
        (self.out / "adapter_config.json").write_text(json.dumps(settings))
        self.refused("tag", "predict", self.out, says="--model", input=b"")

    def test_damaged_folders(self):
        self.adapter("--adapter-only", "--steps", "5")
        whole = {path.name: path.read_bytes() for path in self.out.iterdir() if path.is_file()}

        def says(name, content, expected):
            for file, data in whole.items():
                (self.out / file).write_bytes(data)
            if content is None:
                (self.out / name).unlink()
            else:
                (self.out / name).write_bytes(content if isinstance(content, bytes) else content.encode())
            self.refused("tag", "eval", self.out, "--model", self.model, "--data", self.files["test"], says=expected)

        note = json.loads(whole["lamina_tagger.json"])
        says("lamina_tagger.json", None, "no such file")
        says("lamina_tagger.json", "{", "lamina_tagger.json")
        says("lamina_tagger.json", "[]", "not a JSON object")
        says("lamina_tagger.json", json.dumps({**note, "lamina_tagger_adapter": 9}), "version 9")
        says("lamina_tagger.json", json.dumps({**note, "labels": []}), "labels")
        says("lamina_tagger.json", json.dumps({**note, "labels": ["O", 3]}), "labels")
        says("lamina_tagger.json", json.dumps({**note, "labels": ["O"]}), "shape")
        says("lamina_tagger.json", json.dumps({**note, "blocks": 5}), "has 4 blocks")
        says("lamina_tagger.json", json.dumps({**note, "lamina_unmasked": [9]}), "lamina_unmasked")
        says("lamina_tagger.json", json.dumps({**note, "lamina_tagger": {"length": 1}}), "length")
        says("adapter_config.json", "{\"peft_type\": \"IA3\"}", "LORA is read here")
        says("adapter_config.json", "", "adapter_config.json")
        tensors = whole["adapter_model.safetensors"]
        says("adapter_model.safetensors", tensors[:len(tensors) // 2], "adapter_model.safetensors")
        says("adapter_model.safetensors", None, "adapter_model.safetensors")
        size = struct.unpack("<Q", tensors[:8])[0]
        header = json.loads(tensors[8:8 + size])
        lost = json.dumps({("base_model.model.scores.weight" if name.endswith(".score.weight") else name): info for name, info in header.items()}).encode()
        says("adapter_model.safetensors", struct.pack("<Q", len(lost)) + lost + tensors[8 + size:], "no classifier")


class Resume(Case):
    def flags(self, *arguments):
        steps = [] if "--checkpoint-every" in arguments else ["--checkpoint-every", "5"]
        return self.quick("--mask", "none", "--mask", "0011", "--mask", "all", "--seeds", "2", "--steps", "60", *steps, *arguments)

    def results(self, folder):
        def tidy(json):
            if isinstance(json, dict):
                return {key: tidy(value) for key, value in json.items() if "second" not in key and "time" not in key and key not in ("command", "settings", "verdict")}
            return [tidy(value) for value in json] if isinstance(json, list) else json
        return tidy(json.loads((folder / "results.json").read_text()))

    def test_killed_at_any_moment(self):
        dice = random.Random(11)
        for name, more in (("full", []), ("adapters", ["--lora", "4"])):
            with self.subTest(name):
                command = self.flags(*more)
                whole, broken = self.folder / f"{name}-whole", self.folder / f"{name}-broken"
                started = time.monotonic()
                self.assertEqual(run(*command, "-o", whole).returncode, 0)
                took = time.monotonic() - started
                for _ in range(4):
                    with subprocess.Popen([str(LAMINA), *map(str, command), "-o", str(broken), "--resume"], stdout=subprocess.DEVNULL,
                                          stderr=subprocess.PIPE) as process:
                        try:
                            process.wait(dice.uniform(0.15, 0.5) * took)
                        except subprocess.TimeoutExpired:
                            process.kill()
                    if broken.exists():
                        break
                if not broken.exists():
                    result = run(*command, "-o", broken, "--resume")
                    self.assertEqual(result.returncode, 0, result.stderr.decode())
                self.assertEqual(weights(whole), weights(broken))
                self.assertEqual(self.results(whole), self.results(broken))
                self.assertEqual({path.name for path in (whole / "curves").iterdir()}, {path.name for path in (broken / "curves").iterdir()})
                self.assertFalse(pathlib.Path(f"{broken}.partial").exists())

    def until_a_run(self, process):
        runs = pathlib.Path(f"{self.out}.partial") / "training" / "runs"
        for _ in range(6000):
            if runs.exists() and any(path.suffix == ".json" for path in runs.iterdir()):
                return
            self.assertIsNone(process.poll(), "it ended before its first run was done")
            time.sleep(0.005)
        self.fail("no run was done")

    def test_ctrl_c_keeps_what_is_done(self):
        command = self.flags("--checkpoint-every", "1000")
        with subprocess.Popen([str(LAMINA), *map(str, command), "-o", str(self.out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            self.until_a_run(process)
            process.send_signal(signal.SIGINT)
            _, message = process.communicate(timeout=300)
        self.assertEqual(process.returncode, 130, message)
        self.assertIn(b"--resume", message)
        # Other data in its place is refused, and nothing is lost by that.
        self.files["dev"].write_text(conll(sentences(40, "other")))
        result = run(*command, "-o", self.out, "--resume")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"another --dev", result.stderr)
        result = run(*command, "--dropout", "0.2", "-o", self.out, "--resume")
        self.assertIn(b"dropout was 0.1 and is 0.2", result.stderr)
        self.files["dev"].write_text(conll(sentences(40, "dev")))
        result = run(*command, "-o", self.out, "--resume")
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        self.assertIn(b"done before", result.stdout)
        # More seeds go on from what is there, if it is still there.
        self.assertTrue((self.out / "model.safetensors").exists())

    def test_a_damaged_record_is_made_again(self):
        whole = self.folder / "whole"
        command = self.flags()
        self.assertEqual(run(*command, "-o", whole).returncode, 0)
        with subprocess.Popen([str(LAMINA), *map(str, command), "-o", str(self.out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            self.until_a_run(process)
            process.kill()
        runs = pathlib.Path(f"{self.out}.partial") / "training" / "runs"
        for path in list(runs.glob("*.json")):
            path.write_bytes(path.read_bytes()[:100])
        for path in list(runs.glob("*.kept")):
            shutil.rmtree(path)
        result = run(*command, "-o", self.out, "--resume")
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        self.assertEqual(weights(whole), weights(self.out))


class Refused(Case):
    def test_files(self):
        def says(name, content, expected):
            path = self.folder / f"bad-{name}.conll"
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            flags = dict(self.files, **{name: path})
            self.refused("tag", "train", self.model, "--train", flags["train"], "--dev", flags["dev"], "--test", flags["test"], "-o", self.out, says=expected)

        says("train", "Ada\nsaw\nRome\n", "tag")
        says("train", "Ada\tO\nsaw\tO\n\n", "no entity")
        says("train", "", "no sentence")
        says("train", "Ada\tB-\n", "no type")
        says("train", "Ada\tperson\n", "is no tag")
        says("train", "Ada\tB-PER\nsaw\n", "line 2")
        says("dev", "Ada\tNNP\tB-PER\n", "columns")
        says("test", b"\xff\xfeA\x00", "UTF-16")
        self.refused("tag", "train", self.model, "--train", self.folder / "none", "--dev", self.files["dev"], "-o", self.out, says="none")
        self.refused("tag", "train", self.model, *self.data(), "--scheme", "BILUO", "-o", self.out, says="IOBES")
        self.refused("tag", "train", self.model, *self.data(), "--tag-column", "5", "-o", self.out, says="column")

    def test_flags(self):
        def says(flags, expected, status=1):
            self.refused("tag", "train", self.model, *self.data(), *flags, "-o", self.out, says=expected, status=status)

        says(["--mask", "00110"], "groups")
        says(["--mask", "0021"], "no mask plan")
        says(["--mask", "from:4"], "block")
        says(["--mask", "blocks:3-1"], "backwards")
        says(["--mask", "0011", "--mask", "from:2"], "one plan")
        says(["--mask", "0011", "--search"], "--search")
        says(["--search", "5"], "blocks")
        says(["--search", "9"], "--search", status=2)
        says(["--repeat", "1", "--repeat", "1"], "twice")
        says(["--full", "--lora", "4"], "adapters")
        says(["--full", "--adapter-only"], "adapters")
        says(["--targets", "*.c_attn"], "matches no")
        says(["--adapt", "mlm:5"], "mntp:STEPS")
        says(["--adapt", "mntp"], "mntp:STEPS")
        says(["--adapt", "mntp:0"], "mntp:STEPS")
        says(["--adapt", "mntp:5", "--mask-token", "<nothing>"], "no such token")
        says(["--adapt", "mntp:5", "--adapter-only"], "--adapter-only")
        says(["--mask-token", "_"], "--adapt")
        says(["--length", "200"], "made for 128")
        says(["--repeat", "3", "--length", "64"], "made for 128")
        says(["--answer", "middle"], "first and last")
        says(["--evaluate-every", "5"], "development set")
        says(["--steps", "5", "--epochs", "2"], "--epochs")
        says(["--weights", "int8"], "--weights")
        says(["--probe", "--from-scratch"], "probe")
        says(["--batch", "0"], "--batch")
        self.refused("tag", "train", self.model, *self.data("train"), "-o", self.out, says="--dev", status=2)

    def test_models(self):
        self.train("--mask", "none", "--steps", "2")
        out = self.folder / "other"
        self.refused("tag", "train", self.out, *self.data(), "-o", out, says="is a tagger already")
        self.refused("tag", "train", self.folder, *self.data(), "-o", out, says="config.json")
        self.refused("tag", "eval", self.model, "--data", self.files["test"], says="train a tagger with lamina tag train")
        self.refused("tag", "predict", self.model, says="train a tagger with lamina tag train", input=b"")
        self.refused("tag", "eval", self.folder / "nowhere", "--data", self.files["test"], says="nowhere")
        self.refused("tag", "eval", self.out, "--data", self.files["test"], "--mode", "loose", says="strict")
        config = json.loads((self.out / "config.json").read_text())
        config["lamina_unmasked"] = [7]
        (self.out / "config.json").write_text(json.dumps(config))
        self.refused("tag", "eval", self.out, "--data", self.files["test"], says="lamina_unmasked")
        exists = self.folder / "exists"
        exists.mkdir()
        (exists / "file").write_text("x")
        result = run(*self.quick(), "-o", exists)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"--force", result.stderr)

    def test_types_that_were_not_learnt(self):
        self.files["test"].write_text("Ada\tB-PER\nsaw\tO\nsomething\tB-THING\n\n")
        result = run(*self.quick("--steps", "2"), "-o", self.out)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        self.assertIn("THING", result.stdout.decode())
        score = self.eval(self.out)
        self.assertIn("THING", " ".join(score["notes"]))
        self.assertEqual(score["types"]["THING"]["recall"], 0)


class Predict(Case):
    tagger = None

    def setUp(self):
        super().setUp()
        if Predict.tagger is None:
            Shared.model()
            Predict.tagger = Shared.folder / "tagger"
            self.train("--mask", "0011", "--steps", "150", out=Predict.tagger)
        self.tagger = Predict.tagger

    def entities(self, text, *arguments):
        return [json.loads(line) for line in self.predict(self.tagger, *arguments, text=text).splitlines()]

    def test_text_to_json(self):
        first, second, third = self.entities("Ada saw the dog, and Rome.\n\nBob Cleo went home\r\n")
        self.assertEqual(first["text"], "Ada saw the dog, and Rome.")
        self.assertEqual(second, {"text": "", "entities": []})
        self.assertEqual(third["text"], "Bob Cleo went home")
        self.assertEqual([(e["type"], e["text"]) for e in first["entities"]], [("PER", "Ada"), ("LOC", "Rome")])
        for line in (first, third):
            for entity in line["entities"]:
                self.assertEqual(line["text"][entity["start"]:entity["end"]], entity["text"])
                self.assertTrue(0 < entity["confidence"] <= 1)

    def test_places_are_counted_in_characters(self):
        line, = self.entities("\U0001F600 é世 Ada saw Rome \U0001F468‍\U0001F469 Bob")
        self.assertGreaterEqual(len(line["entities"]), 1)
        for entity in line["entities"]:
            self.assertEqual(line["text"][entity["start"]:entity["end"]], entity["text"])

    def test_formats(self):
        text = self.predict(self.tagger, "--format", "text", text="Ada saw Rome\n\x1b[31mdog\n")
        self.assertEqual(text.splitlines()[0], "[PER Ada] saw [LOC Rome]")
        self.assertNotIn("\x1b", text)
        tagged = self.predict(self.tagger, "--format", "conll", text="Ada saw Rome\nthe dog\n")
        self.assertEqual(tagged, "Ada\tB-PER\nsaw\tO\nRome\tB-LOC\n\nthe\tO\ndog\tO\n\n")
        for scheme, ada in (("IOB1", "I-PER"), ("IOBES", "S-PER"), ("bilou", "U-PER")):
            tagged = self.predict(self.tagger, "--format", "conll", "--scheme", scheme, text="Ada saw\n")
            self.assertEqual(tagged, f"Ada\t{ada}\nsaw\tO\n\n")
        # CoNLL in: a column more, whatever there was.
        tagged = self.predict(self.tagger, text="Ada\tx\tB-PER\nsaw\ty\tO\n\n-DOCSTART-\tx\tO\n\nRome\tz\tB-LOC")
        self.assertEqual(tagged, "Ada\tx\tB-PER\tB-PER\nsaw\ty\tO\tO\n\nRome\tz\tB-LOC\tB-LOC\n\n")
        tagged = self.predict(self.tagger, "--input", "conll", text="Ada\nsaw\n\n\nRome\n")
        self.assertEqual(tagged, "Ada\tB-PER\nsaw\tO\n\nRome\tB-LOC\n\n")
        line, = self.entities("Ada\tO\nsaw\tO\n", "--format", "json")
        self.assertEqual((line["text"], line["entities"][0]["end"]), ("Ada saw", 3))
        # Text with tabs is text where that is said.
        self.assertEqual(len(self.entities("Ada\tsaw\n", "--input", "text")), 1)

    def test_odd_bytes(self):
        self.assertEqual(self.predict(self.tagger, text=""), "")
        self.assertEqual(self.predict(self.tagger, text="\n\n", ), '{"text":"","entities":[]}\n' * 2)
        line, = self.entities(b"\xef\xbb\xbfAda \xff saw")
        self.assertEqual((line["text"], line["entities"][0]["start"]), ("Ada � saw", 0))
        self.assertEqual(len(self.entities("Ada saw Rome")), 1)  # no line end
        result = run("tag", "predict", self.tagger, "--input", "conll", "-q", input=b"Ada\tO\nsaw\tO\n\n" * 400 + b"Bob\n")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"column", result.stderr)
        result = run("tag", "predict", self.tagger, self.folder / "nowhere")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"nowhere", result.stderr)
        result = run("tag", "predict", self.tagger, self.folder)
        self.assertEqual(result.returncode, 1)

    def test_many_lines_and_a_long_one(self):
        lines = [" ".join(word for word, _ in sentence) for sentence in sentences(1500, "lines")]
        found = self.entities("\n".join(lines) + "\n")
        self.assertEqual([line["text"] for line in found], lines)
        # The same whatever stands beside it.
        self.assertEqual(self.entities(lines[700]), [found[700]])
        long = " ".join(lines)
        line, = self.entities(long)
        self.assertEqual(line["text"], long)
        self.assertGreater(len(line["entities"]), 1000)

    def test_answers_come_as_the_lines_do(self):
        with subprocess.Popen([str(LAMINA), "tag", "predict", str(self.tagger), "-q"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            for text in ("Ada saw Rome", "the dog", "Bob"):
                process.stdin.write(text.encode() + b"\n")
                process.stdin.flush()
                self.assertEqual(json.loads(process.stdout.readline())["text"], text)
            process.stdin.close()
            self.assertEqual(process.wait(60), 0)

    def test_a_reader_that_goes_away(self):
        many = self.folder / "many.txt"
        many.write_text("Ada saw Rome\n" * 20000)
        result = subprocess.run(f"'{LAMINA}' tag predict '{self.tagger}' -q < '{many}' | head -n 1; exit ${{PIPESTATUS[0]}}", shell=True,
                                executable="/bin/bash", capture_output=True, timeout=300)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(len(result.stdout.splitlines()), 1)


@unittest.skipUnless(torch, "skipped: transformers is not installed; make parity installs it")
class Elsewhere(Case):
    def tags(self, net, tokenizer, labels):
        """Of the test file: each word's last token, a space in front of every word."""
        said = []
        for block in self.files["test"].read_text().strip().split("\n\n"):
            ids, at = [], []
            for line in block.splitlines():
                ids += tokenizer(" " + line.split("\t")[0], add_special_tokens=False)["input_ids"]
                at.append(len(ids) - 1)
            with torch.no_grad():
                logits = net(torch.tensor([ids])).logits[0]
            said.append([labels[logits[place].argmax().item()] for place in at])
        return said

    def ours(self, *folder):
        text = self.predict(*folder, self.files["test"], text="")
        return [[line.split("\t")[-1] for line in block.splitlines()] for block in text.strip().split("\n\n")]

    def test_transformers_opens_a_causal_tagger(self):
        for name, config in (("llama", LLAMA), ("gpt2", GPT2)):
            with self.subTest(name):
                self.model = Shared.model(name, config)
                out = self.folder / name
                self.train("--mask", "none", out=out)
                net, info = transformers.AutoModelForTokenClassification.from_pretrained(out, output_loading_info=True)
                self.assertFalse(info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"], info)
                labels = [net.config.id2label[i] for i in range(5)]
                self.assertEqual(labels, ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"])
                said, tokenizer = self.ours(out), transformers.AutoTokenizer.from_pretrained(out)
                self.assertEqual(self.tags(net.eval(), tokenizer, labels), said)
                self.assertGreater(len(collections.Counter(tag for row in said for tag in row)), 2)
        # One that looks right is refused there, and not run as if it did not.
        self.train("--mask", "all", out=self.out)
        with self.assertRaises((ValueError, KeyError)):
            transformers.AutoModelForTokenClassification.from_pretrained(self.out)

    def test_two_ranks_are_one_with_the_whole_batch(self):
        scores = {}
        for ranks in (1, 2):
            out = self.folder / f"ranks{ranks}"
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python", "--nproc-per-node", str(ranks), str(LAMINA),
                       *self.quick("--mask", "none", "--mask", "all", "--seeds", "2", "--batch", "8", "--accumulate", "2", "--steps", "40"), "--json", "-o", out]
            result = subprocess.run([str(part) for part in command], capture_output=True, timeout=300)
            self.assertEqual(result.returncode, 0, result.stderr.decode())
            arms = json.loads(result.stdout)["arms"]  # rank 0 alone speaks
            scores[ranks] = [(run["seed"], loss) for arm in arms for run in arm["runs"] for _, loss in run["curve"][:10]]
            self.assertFalse(pathlib.Path(f"{out}.partial").exists())
            self.eval(out)
        self.assertEqual(len(scores[1]), 2 * 2 * 10)
        for (seed, one), (other, two) in zip(scores[1], scores[2]):
            self.assertEqual(seed, other)
            self.assertAlmostEqual(one, two, delta=1e-4)

    @unittest.skipUnless(peft, "skipped: peft is not installed; make parity installs it")
    def test_peft_opens_the_adapter(self):
        for name, config in (("llama", LLAMA), ("gpt2", GPT2)):
            with self.subTest(name):
                self.model = Shared.model(name, config)
                out = self.folder / name
                self.adapter("--mask", "none", "--adapter-only", "--lr", "1e-2", out=out)
                base = transformers.AutoModelForTokenClassification.from_pretrained(self.model, num_labels=5)
                net = peft.PeftModel.from_pretrained(base, out).eval()
                labels = json.loads((out / "lamina_tagger.json").read_text())["labels"]
                said = self.ours(out, "--model", self.model)
                self.assertEqual(self.tags(net, transformers.AutoTokenizer.from_pretrained(self.model), labels), said)
                self.assertGreater(len(collections.Counter(tag for row in said for tag in row)), 1)


if __name__ == "__main__":
    unittest.main(verbosity=1)
