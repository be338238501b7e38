#!/usr/bin/env python3
"""lamina neurons find, show, compare and export, on atlases that this test writes by itself from lamina/atlas/schema.md.

    tests/e2e/neurons_test.py build/lamina
"""
import csv
import io
import json
import math
import os
import pathlib
import pty
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import unittest

LAMINA = pathlib.Path(sys.argv.pop() if len(sys.argv) > 1 else "build/lamina").resolve()
SCHEMA = pathlib.Path(__file__).resolve().parents[2] / "lamina" / "atlas" / "schema.md"
# The last but one moves the cursor in a terminal that obeys it, the one before writes a line of its own.
TEXTS = ["<s>", " dog", "Dog", "DOG", "dogma", "a,\"b\"", "new\nline", "\x1b[2J", "\u009b2J", " \u00c9t\u00e9"]
BLOCKS, NEURONS, TOP = 2, 3, 4


def scores(seed):
    """[rows][block][neuron][token]: a rule, so that both sides of a comparison are known."""
    return {rows: [[[math.sin(1 + seed * (b == 1) + 7 * b + 3 * n + token * (2 + n) + 11 * r) * 3 for token in range(len(TEXTS))]
                    for n in range(NEURONS)] for b in range(BLOCKS)] for r, rows in enumerate(["up", "gate", "down", "random"])}


def softmax(row, sign=1):
    total = sum(math.exp(sign * s) for s in row)
    return [math.exp(sign * s) / total for s in row]


def write(path, seed=0, heads=("own",), sets=("up", "gate", "down", "random"), **header):
    statements = SCHEMA.read_text().split("```sql\n")[1].split("```")[0].strip().split("\n")
    database = sqlite3.connect(path)
    for statement in ["PRAGMA application_id = 0x6C41746C", "PRAGMA user_version = 1", *statements]:
        database.execute(statement)
    header = {"model": f"toy\x1b[31m{seed}", "model_path": "/toy", "model_sha256": f"sha{seed}", "head_model": "", "head_sha256": "", "lens": "unembed",
              "norm": "none", "lamina": "0.1.0", "width": 4, "neurons": NEURONS, "vocabulary": len(TEXTS), "blocks": BLOCKS, "top": TOP,
              "random": NEURONS, "seed": 1, "decoded_blocks": "[0,1]", "more": "{}", "tokens_sha256": "t", "plain_tokens": len(TEXTS) - 1, **header}
    database.executemany("INSERT INTO header VALUES(?, ?)", header.items())
    database.executemany("INSERT INTO tokens VALUES(?, ?, ?, ?)",
                         [(i, text, text.strip().casefold(), int(i == 0)) for i, text in enumerate(TEXTS)])
    number = 0
    for head in heads:
        for rows, blocks in scores(seed if head == "own" else 0).items():
            if rows not in sets or (head == "other" and rows == "random"):
                continue
            database.execute("INSERT INTO sets VALUES(?, ?, ?)", (number, rows, head))
            best = {}
            for block, neurons in enumerate(blocks[:1] if rows == "random" else blocks):
                for neuron, row in enumerate(neurons):
                    key = (number * BLOCKS + block) * NEURONS + neuron
                    mean = sum(row) / len(row)
                    second, fourth = (sum((s - mean) ** k for s in row) / len(row) for k in (2, 4))
                    log_sums = [math.log(sum(math.exp(sign * s) for s in row)) for sign in (1, -1)]
                    database.execute("INSERT INTO neurons VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                                     (key, number, block, neuron, 1.5, mean, second ** 0.5, fourth / second ** 2, *log_sums))
                    for pole, sign in enumerate((1, -1)):
                        p = softmax(row, sign)
                        order = sorted(range(len(row)), key=lambda t: -p[t])[:TOP]
                        database.executemany("INSERT INTO labels VALUES(?, ?, ?, ?, ?, ?)",
                                             [(key, pole, rank + 1, t, row[t], p[t]) for rank, t in enumerate(order)])
                        for t in range(len(row)):
                            if (pole, t) not in best or math.log(p[t]) > best[pole, t][3]:
                                best[pole, t] = (block, neuron, row[t], math.log(p[t]))
            for (pole, t), entry in best.items():
                below = sum(other[3] < entry[3] for (q, u), other in best.items() if q == pole and u != 0)
                database.execute("INSERT INTO best VALUES(?, ?, ?, ?, ?, ?, ?, ?)", (number, pole, t, *entry, below))
            number += 1
    database.executemany("INSERT INTO angles VALUES(?, ?, ?, 0.5, -0.25, NULL)", [(i, *divmod(i, NEURONS)) for i in range(BLOCKS * NEURONS)])
    database.commit()
    database.close()


def run(*arguments, **options):
    return subprocess.run([LAMINA, "neurons", *map(str, arguments)], capture_output=True, text=True, timeout=60, **options)


def write_model(folder, vocabulary=9, width=4, neurons=5, blocks=2):
    """A Llama of small numbers."""
    folder.mkdir()
    shapes = {"model.embed_tokens": (vocabulary, width), "lm_head": (vocabulary, width), "model.norm": (width,)}
    for b in range(blocks):
        shapes |= {f"model.layers.{b}.{name}": shape for name, shape in {
            "input_layernorm": (width,), "post_attention_layernorm": (width,), **{f"self_attn.{p}_proj": (width, width) for p in "qkvo"},
            "mlp.gate_proj": (neurons, width), "mlp.up_proj": (neurons, width), "mlp.down_proj": (width, neurons)}.items()}
    header, data = {}, b""
    for name, shape in shapes.items():
        count = math.prod(shape)
        header[name + ".weight"] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * count]}
        data += struct.pack(f"<{count}f", *(math.sin(len(data) + i) for i in range(count)))
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": vocabulary, "hidden_size": width, "intermediate_size": neurons,
        "num_hidden_layers": blocks, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 2, "max_position_embeddings": 32,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False}))
    return folder


def write_tokenizer(folder):
    """A token a byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "vocab": {letter: byte for byte, letter in enumerate(letters)}, "merges": []}}))
    return folder


class Neurons(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.path = pathlib.Path(cls.folder.name)
        cls.atlas = cls.path / "a.sqlite"
        write(cls.atlas)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def answer(self, *arguments):
        done = run(*arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def refusal(self, *arguments, status=1):
        done = run(*arguments)
        self.assertEqual((done.returncode, done.stdout), (status, ""), done)
        if status == 1:
            self.assertRegex(done.stderr, r"\Alamina: [^\n\x00-\x1f\x7f-\x9f]+\n\Z")
        return done.stderr

    def assert_clean(self, text):
        self.assertNotRegex(text, r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
        self.assertLessEqual(max(map(len, text.split("\n"))), 80)

    def test_find_agrees_with_a_softmax_made_here(self):
        found = json.loads(self.answer("find", self.atlas, "dog", "--json", "--top", "1000"))
        self.assertEqual([s["token"] for s in found["spellings"]], [" dog", "Dog", "DOG"])
        expected = []
        for rows in ("up", "gate", "down"):
            for block, neurons in enumerate(scores(0)[rows]):
                for neuron, row in enumerate(neurons):
                    for pole, sign in (("top", 1), ("bottom", -1)):
                        p = softmax(row, sign)
                        order = sorted(range(len(row)), key=lambda t: -p[t])[:TOP]
                        expected += [(p[t], f"{block}.{neuron}", rows, pole, order.index(t) + 1, t) for t in (1, 2, 3) if t in order]
        expected.sort(reverse=True)
        self.assertEqual([(h["neuron"], h["rows"], h["pole"], h["rank"], h["id"]) for h in found["hits"]], [e[1:] for e in expected])
        for hit, entry in zip(found["hits"], expected):
            self.assertAlmostEqual(hit["p_pole"], entry[0], delta=1e-9)
            block, neuron = map(int, hit["neuron"].split("."))
            self.assertAlmostEqual(hit["p"], softmax(scores(0)[hit["rows"]][block][neuron])[hit["id"]], delta=1e-9)
        self.assertEqual(len(found["controls"]), 3 * 3 * 2)
        for control in found["controls"]:
            sign = 1 if control["pole"] == "top" else -1
            for which, rows in (("best", control["rows"]), ("random", "random")):
                blocks = scores(0)[rows][:1 if rows == "random" else BLOCKS]
                most = {t: max(softmax(row, sign)[t] for neurons in blocks for row in neurons) for t in range(len(TEXTS))}
                self.assertAlmostEqual(control[which]["p"], most[control["id"]], delta=1e-9)
                if which == "best":
                    below = sum(most[t] < most[control["id"]] - 1e-12 for t in range(1, len(TEXTS)))
                    self.assertAlmostEqual(control["above_tokens"], below / (len(TEXTS) - 2))
        few = json.loads(self.answer("find", self.atlas, " DOG ", "--json", "--top", "2", "--rows", "gate,up"))
        self.assertEqual([h["neuron"] for h in few["hits"]], [h["neuron"] for h in found["hits"] if h["rows"] != "down"][:2])

    def test_find_for_people_and_as_csv(self):
        text = self.answer("find", self.atlas, "dog")
        self.assert_clean(text)
        self.assertRegex(text, r"neuron +rows +pole +token +rank +p +score +kurtosis +first label")
        self.assertRegex(text, r"(?s)up: the likeliest for .* random\s+directions of the same norms gives")
        self.assertRegex(text, r"(?s)of the other\s+tokens have a best\s+neuron\s+with a smaller p")
        rows = list(csv.DictReader(io.StringIO(self.answer("find", self.atlas, "dog", "--csv"))))
        self.assertIn(rows[0]["token"], (" dog", "Dog", "DOG"))
        self.assertIn("\"dogma\"", self.refusal("find", self.atlas, "dogmatic"))
        self.assertIn("no single token", self.refusal("find", self.atlas, "\x1b[2Jq\u009bq"))
        self.assertIn("sideways", self.refusal("find", self.atlas, "dog", "--rows", "up,sideways"))
        self.refusal("find", self.atlas, "dog", "--json", "--csv", status=2)
        self.refusal("find", self.atlas, "dog", "--top", "0", status=2)

    def test_no_token_moves_the_cursor(self):
        for word in ("\x1b[2j", "\u009b2j", "new\nline", "a,\"b\"", "\u00e9t\u00e9"):
            self.assert_clean(self.answer("find", self.atlas, word))
        for block in range(BLOCKS):
            for neuron in range(NEURONS):
                self.assert_clean(self.answer("show", self.atlas, f"{block}.{neuron}"))

    def test_show(self):
        shown = json.loads(self.answer("show", self.atlas, "1.2", "--json"))
        self.assertEqual(list(shown), ["up", "gate", "down", "cosines"])
        self.assertEqual(shown["cosines"], {"gate_up": 0.5, "up_down": -0.25, "gate_down": None})
        for rows in ("up", "gate", "down"):
            p = softmax(scores(0)[rows][1][2])
            opposite = softmax(scores(0)[rows][1][2], -1)
            order = sorted(range(len(p)), key=lambda t: -p[t])
            self.assertEqual([r["id"] for r in shown[rows]["top"]], order[:TOP])
            self.assertEqual([r["id"] for r in shown[rows]["bottom"]], order[::-1][:TOP])
            for reading in shown[rows]["top"]:
                self.assertEqual(set(reading), {"id", "token", "p", "score"})
                self.assertEqual(reading["token"], TEXTS[reading["id"]])
                self.assertAlmostEqual(reading["p"], p[reading["id"]], delta=1e-9)
            for reading in shown[rows]["bottom"]:
                self.assertEqual(set(reading), {"id", "token", "p", "score", "p_pole"})
                self.assertAlmostEqual(reading["p"], p[reading["id"]], delta=1e-9)
                self.assertAlmostEqual(reading["p_pole"], opposite[reading["id"]], delta=1e-9)
            ranks = sorted((json.loads(self.answer("show", self.atlas, f"{b}.{n}", "--json"))[rows]["kurtosis"] for b in range(BLOCKS)
                            for n in range(NEURONS)), reverse=True)
            self.assertEqual(shown[rows]["kurtosis_rank"], 1 + ranks.index(shown[rows]["kurtosis"]))
            self.assertEqual((shown[rows]["of"], shown[rows]["norm"]), (6, 1.5))
        self.assertIn("up and down -0.25, gate and down none", self.answer("show", self.atlas, "1.2"))
        self.assertIn("2 blocks of 3 neurons", self.refusal("show", self.atlas, "2.0"))
        self.assertIn("BLOCK.NEURON", self.refusal("show", self.atlas, "1"))

    def test_compare(self):
        write(self.path / "b.sqlite", seed=1)
        compared = json.loads(self.answer("compare", self.atlas, self.path / "b.sqlite", "--json"))
        self.assertEqual(compared["paper"]["share"], 0.754)
        self.assertEqual([c["rows"] for c in compared["comparisons"]], ["up", "gate", "down"])
        for comparison in compared["comparisons"]:
            same, overlap = 0, 0
            for one, two in zip(sum(scores(0)[comparison["rows"]], []), sum(scores(1)[comparison["rows"]], [])):
                tops = [sorted(range(len(row)), key=lambda t: -row[t])[:TOP] for row in (one, two)]
                same += tops[0][0] == tops[1][0]
                overlap += len(set(tops[0]) & set(tops[1])) / len(set(tops[0]) | set(tops[1])) / 6
            self.assertEqual((comparison["neurons"], comparison["same"]), (6, same))
            self.assertAlmostEqual(comparison["overlap"], overlap)
            self.assertEqual(comparison["blocks"][0]["share"], 1)
            self.assertLess(comparison["blocks"][1]["share"], 1)
        text = self.answer("compare", self.atlas, self.path / "b.sqlite")
        self.assert_clean(text)
        self.assertIn("75.4 %", text)
        self.assertIn("--head MODEL1", text)
        write(self.path / "c.sqlite", seed=1, heads=("own", "other"), head_sha256="sha0")
        both = json.loads(self.answer("compare", self.atlas, self.path / "c.sqlite", "--json"))["comparisons"]
        self.assertEqual([(c["rows"], c["heads"], c["same"]) for c in both if c["heads"] != "each its own"],
                         [(rows, "the first one's for both", 6) for rows in ("up", "gate", "down")])
        self.assertNotIn("--head MODEL1", self.answer("compare", self.atlas, self.path / "c.sqlite"))
        write(self.path / "d.sqlite", norm="fold")
        self.assertIn("--norm fold", self.refusal("compare", self.atlas, self.path / "d.sqlite"))

    def test_export(self):
        self.answer("export", self.atlas, "-o", self.path / "a.csv")
        with open(self.path / "a.csv", newline="") as file:
            lines = list(csv.DictReader(file))
        self.assertEqual(len(lines), (3 * BLOCKS * NEURONS + NEURONS) * 2 * TOP)
        for line in lines:
            row = scores(0)[line["rows"]][int(line["block"])][int(line["neuron"])]
            self.assertEqual(line["text"], TEXTS[int(line["token"])])
            self.assertAlmostEqual(float(line["p"]), softmax(row)[int(line["token"])], delta=1e-9)
        self.answer("export", self.atlas, "-o", self.path / "a.json")
        exported = json.loads((self.path / "a.json").read_text())
        self.assertEqual(len(exported["neurons"]), 3 * BLOCKS * NEURONS + NEURONS)
        self.assertIn(".csv or .json", self.refusal("export", self.atlas, "-o", self.path / "a.txt"))
        config = self.path / "config.json"
        config.write_text("{}")
        self.assertIn("--force", self.refusal("export", self.atlas, "-o", config))
        self.assertEqual(config.read_text(), "{}")
        self.answer("export", self.atlas, "-o", config, "--force")
        self.assertIn("No such file", self.refusal("export", self.atlas, "-o", self.path / "none" / "a.csv"))
        os.link(self.atlas, self.path / "same.json")
        self.assertIn("the atlas itself", self.refusal("export", self.atlas, "-o", self.path / "same.json"))

    def test_what_is_no_atlas(self):
        for verb in (["find", "{}", "dog"], ["show", "{}", "0.0"], ["compare", "{}", self.atlas], ["compare", self.atlas, "{}"],
                     ["export", "{}", "-o", self.path / "x.csv"]):
            def refused(path):
                return self.refusal(*[path if word == "{}" else word for word in verb])
            self.assertIn("No such file", refused(self.path / "none"))
            self.assertIn("folder", refused(self.path))
            (self.path / "text").write_text("not a database " * 100)
            self.assertIn("no atlas", refused(self.path / "text"))
            (self.path / "cut").write_bytes(self.atlas.read_bytes()[:-4000])
            self.assertIn("is damaged", refused(self.path / "cut"))
        self.assertEqual(list(self.path.glob("*-journal")) + list(self.path.glob("*-wal")), [])

    def test_reading_leaves_no_trace_and_needs_no_right_to_write(self):
        folder = self.path / "readonly"
        folder.mkdir()
        write(folder / "a.sqlite")
        before = (folder / "a.sqlite").read_bytes()
        (folder / "a.sqlite").chmod(0o444)
        folder.chmod(0o555)
        self.answer("find", folder / "a.sqlite", "dog")
        folder.chmod(0o755)
        self.assertEqual([p.name for p in folder.iterdir()], ["a.sqlite"])
        self.assertEqual((folder / "a.sqlite").read_bytes(), before)

    def test_a_reader_that_goes_away(self):
        done = subprocess.run(f"{LAMINA} neurons find {self.atlas} dog | head -n 1; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash",
                              capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(len(done.stdout.split("\n")), 2)

    def test_map_replaces_nothing_but_an_atlas(self):
        model = write_model(self.path / "mapped")
        before = {path.name: path.read_bytes() for path in model.iterdir()}
        for name in before:
            self.assertIn("is no atlas", self.refusal("map", model, "-o", model / name, "--force"))
        self.assertEqual({path.name: path.read_bytes() for path in model.iterdir()}, before)
        self.answer("map", model, "-o", self.path / "m.sqlite", "-q")
        self.assertIn("1 block read", self.answer("map", model, "-o", self.path / "m.sqlite", "-q", "--force", "--blocks", "1"))
        self.assertIn("neurons, 10", self.refusal("map", model, "-o", self.path / "n.sqlite", "--random", "11"))

    def test_apply_says_what_a_plan_did(self):
        model = write_model(self.path / "applied")
        clamps = [{"edit": "clamp", "site": "model.layers.0.mlp", "neuron": n, "place": "post", "mode": "scale", "value": 0.5} for n in (1, 3)]
        replaced = {"edit": "replace", "site": "model.layers.0.mlp", "neuron": 2, "vector": "up", "values": [1, 2, 3, 4]}
        cut = {"edit": "cut", "site": "model.layers.1.mlp"}
        for number, (edits, said) in enumerate([(clamps, "2 neurons clamped"), (clamps[:1] + [replaced], "1 neuron clamped, 1 row of neurons replaced"),
                                                ([cut] + clamps, "1 of 4 parts cut, 2 neurons clamped")]):
            (self.path / "plan.json").write_text(json.dumps({"edits": edits}))
            out = self.path / f"out{number}"
            done = subprocess.run([LAMINA, "apply", model, self.path / "plan.json", "-o", out, "-q"], capture_output=True, text=True, timeout=60)
            self.assertEqual((done.returncode, done.stdout.split("\n")[0]), (0, said + "."), done.stderr)
            card = (out / "README.md").read_text()
            self.assertIn(said + ". What that does", card)
            self.assertIn("AutoModelForCausalLM", card)
            self.assertEqual("sub-layers" in card.split("\n# ")[1].split("\n")[0], number == 2)

    def test_the_card_of_a_folder_that_lamina_alone_opens(self):
        model = write_model(self.path / "held")
        (self.path / "plan.json").write_text(json.dumps({"edits": [
            {"edit": "clamp", "site": "model.layers.0.mlp", "neuron": 1, "place": "post", "mode": "max", "value": 2}]}))
        out = self.path / "alone"
        done = subprocess.run([LAMINA, "apply", model, self.path / "plan.json", "-o", out, "-q"], capture_output=True, text=True, timeout=60)
        self.assertIn("lamina alone", done.stdout, done.stderr)
        card = (out / "README.md").read_text()
        self.assertNotIn("AutoModelForCausalLM", card)
        self.assertNotIn("library_name", card)
        self.assertIn("lamina generate", card)

    def test_a_tokenizer_of_another_model_is_refused(self):
        model = write_tokenizer(write_model(self.path / "fewer"))
        for arguments in (["clamp", model, "--set", "0.1=3", "-p", "a"], ["clamp", model, "--set", "0.1=3", "--bake", "-o", self.path / "x"],
                          ["erase", model, "a", "-o", self.path / "x"]):
            self.assertIn("none of the model's 9", self.refusal(*arguments))
        done = subprocess.run([LAMINA, "generate", model, "-p", "hello"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("tokenizer of another model", done.stderr)

    def test_one_interrupt_ends_an_answer(self):
        model = write_tokenizer(write_model(self.path / "spoken", vocabulary=256))
        running = subprocess.Popen([LAMINA, "neurons", "clamp", model, "--set", "0.1=3", "-p", "a", "--tokens", "65536", "--no-sweep", "--json"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(2)
        running.send_signal(signal.SIGINT)
        try:
            self.assertEqual((*running.communicate(timeout=10), running.returncode), ("", "lamina: stopped\n", 130))
        finally:
            running.kill()

    def test_help(self):
        for verb in ("find", "show", "compare", "export"):
            self.assertIn("Example: lamina neurons " + verb, self.answer(verb, "--help"))
            self.refusal(verb, status=2)

    def test_on_a_terminal(self):
        master, slave = pty.openpty()
        done = subprocess.run([LAMINA, "neurons", "find", self.atlas, "dog"], stdout=slave, stderr=subprocess.PIPE, timeout=60,
                              env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"})
        os.close(slave)
        text = os.read(master, 1 << 16).decode()
        os.close(master)
        self.assertEqual(done.returncode, 0)
        self.assertIn("first label", text)


if __name__ == "__main__":
    unittest.main()
