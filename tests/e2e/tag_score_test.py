#!/usr/bin/env python3
"""lamina tag score: tables, JSON, standard input, every scheme, and files that are none.

    tests/e2e/tag_score_test.py build/lamina
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

LAMINA = pathlib.Path(sys.argv.pop() if len(sys.argv) > 1 else "build/lamina").resolve()
WNUT = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "wnut17" / "emerging.dev.conll"
EXAMPLE = """EU NNP B-ORG B-ORG
rejects VBZ O O
German JJ B-MISC B-LOC

Peter NNP B-PER B-PER
Blackburn NNP I-PER O
in IN O B-LOC
New NNP B-LOC B-LOC
York NNP I-LOC I-LOC
"""


def run(*arguments, **options):
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **options.pop("environment", {})}
    return subprocess.run([str(LAMINA), "tag", "score", *map(str, arguments)], capture_output=True, timeout=60, env=environment, **options)


class TagScore(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lamina-e2e-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.file = self.folder / "a.conll"

    def done(self, *arguments, **options):
        result = run(*arguments, **options)
        self.assertEqual(result.returncode, 0, result.stderr.decode(errors="replace"))
        self.assertEqual(result.stderr, b"")
        return result.stdout.decode()

    def of(self, text, *options):
        return json.loads(self.done("-", "--json", *options, input=text.encode() if isinstance(text, str) else text))

    def refused(self, text, *options, says, status=1):
        """One sentence, nothing on the standard output."""
        self.file.write_bytes(text.encode() if isinstance(text, str) else text)
        result = run(self.file, *options)
        message = result.stderr.decode()
        self.assertEqual(result.returncode, status, message)
        self.assertIn(says, message)
        self.assertLessEqual(len(message.strip().splitlines()), 2, message)
        self.assertEqual(result.stdout, b"")

    # ---- what is shown

    def test_help(self):
        text = self.done("--help")
        for word in ("--mode", "--scheme", "--json", "Example", "seqeval"):
            self.assertIn(word, text)
        listed = subprocess.run([str(LAMINA), "--help"], capture_output=True).stdout
        self.assertIn(b"tag score", listed)

    def test_table(self):
        self.file.write_text(EXAMPLE)
        text = self.done(self.file)
        self.assertIn("2 sentences, 8 words; read strictly as IOB2", " ".join(text.split()))
        rows = {}
        for line in text.splitlines():
            cells = line.rsplit(maxsplit=6)
            if len(cells) == 7 and re.fullmatch(r"\d+\.\d\d", cells[1]):
                rows[cells[0].strip()] = cells[1:]
        self.assertEqual(rows["all (micro)"], ["40.00", "50.00", "44.44", "4", "5", "2"])
        self.assertEqual(rows["mean of types (macro)"], ["33.33", "50.00", "37.50", "4", "5", "2"])
        self.assertEqual(rows["LOC"], ["33.33", "100.00", "50.00", "1", "3", "1"])
        self.assertEqual(rows["MISC"], ["0.00", "0.00", "0.00", "1", "0", "0"])
        self.assertEqual([*rows][2:], ["LOC", "MISC", "ORG", "PER"])
        table = text.split("\n\n")[1].splitlines()
        self.assertEqual(len({len(line) for line in table}), 1, "columns are not aligned:\n" + text)
        self.assertIn("0 missed, 1 invented, 1 of another type, 1 with other ends, 0 with both. Tags: 5 of 8 right.",
                      " ".join(text.split()))

    def test_narrow_and_plain(self):
        self.file.write_text("w\tB-a_type_that_is_much_longer_than_any_window_would_ever_be_wide_in_any_terminal\tO\n")
        text = self.done(self.file, environment={"LC_ALL": "C"})
        self.assertTrue(text.isascii())
        self.assertLessEqual(max(map(len, text.splitlines())), 80)
        self.assertNotIn("\x1b", text)

    def test_json(self):
        found = self.of(EXAMPLE)
        self.assertEqual([found[key] for key in ("file", "mode", "scheme")], ["the standard input", "strict", "IOB2"])
        self.assertEqual([found[key] for key in ("gold", "predicted", "correct", "sentences", "words", "words_right")], [4, 5, 2, 2, 8, 5])
        self.assertEqual([found["precision"], found["recall"], found["f1"]], [0.4, 0.5, 2 * 0.4 * 0.5 / (0.4 + 0.5)])
        self.assertEqual(found["types"]["LOC"], {"precision": 1 / 3, "recall": 1.0, "f1": 0.5, "gold": 1, "predicted": 3, "correct": 1})
        self.assertEqual(found["mistakes"], {"missed": 0, "invented": 1, "type": 1, "ends": 1, "type and ends": 0})
        self.assertEqual(found["notes"], [])
        self.assertAlmostEqual(found["macro_f1"], 0.375)

    # ---- how tags are read

    def test_strict_and_default(self):
        text = "a O I-X\nb B-X I-X\nc I-X I-X\nd O O\ne B-X I-X\n"
        self.assertEqual(self.of(text)["predicted"], 0)
        found = self.of(text, "--mode", "default")
        self.assertEqual([found["gold"], found["predicted"], found["correct"], found["scheme"]], [2, 2, 1, None])
        self.assertEqual(self.of(text, "--mode", "strict", "--scheme", "iob1")["predicted"], 2)

    def test_schemes(self):
        for scheme, tags in {"IOB1": "I-X I-X B-X O I-Y", "IOB2": "B-X I-X B-X O B-Y", "BIO": "B-X I-X B-X O B-Y",
                             "IOBES": "B-X E-X S-X O S-Y", "BILOU": "B-X L-X U-X O U-Y"}.items():
            with self.subTest(scheme=scheme):
                found = self.of("".join(f"w\t{tag}\t{tag}\n" for tag in tags.split()), "--scheme", scheme.lower())
                self.assertEqual([found["gold"], found["correct"], found["f1"], found["notes"]], [3, 3, 1.0, []])

    def test_gold_tags_that_break_the_scheme_are_told(self):
        found = self.of("a O O\n\nb I-X I-X\nc B-X B-X\n")
        self.assertEqual(found["gold"], 1)
        self.assertEqual(len(found["notes"]), 1)
        self.assertIn("gold tags break IOB2 in 1 place and are not all read as entities, first in line 3; --scheme IOB1 is theirs", found["notes"][0])
        self.file.write_text("a O O\n\nb I-X I-X\nc B-X B-X\n")
        self.assertIn("--scheme IOB1", " ".join(self.done(self.file).split()))
        # Predictions may break it as they like.
        self.assertEqual(self.of("a O I-X\n")["notes"], [])

    def test_files_as_they_come(self):
        plain = self.of(EXAMPLE)
        for name, text in {"CRLF": EXAMPLE.replace("\n", "\r\n"), "tabs": EXAMPLE.replace(" ", "\t"), "no end": EXAMPLE.rstrip(),
                           "document lines": "-DOCSTART- -X- O O\n\n" + EXAMPLE, "byte order mark": "\ufeff" + EXAMPLE,
                           "empty sentences": "\n\n" + EXAMPLE.replace("\n\n", "\n\n\n\n") + "\n\n\n",
                           "tags alone": "\n".join(" ".join(line.split()[2:]) for line in EXAMPLE.split("\n"))}.items():
            with self.subTest(file=name):
                self.assertEqual(self.of(text), plain)
        found = self.of(EXAMPLE.replace("\n\n", "\n \t \n").encode().replace(b"EU", b"E\xff"))
        self.assertEqual([found["f1"], len(found["notes"])], [plain["f1"], 2])
        self.assertIn("white space alone", found["notes"][0])
        self.assertIn("not UTF-8", found["notes"][1])

    def test_nothing_found_and_nothing_there(self):
        self.assertEqual(self.of("a B-X O\n")["f1"], 0)
        self.assertEqual(self.of("a O B-X\n")["precision"], 0)
        found = self.of("a O O\n")
        self.assertEqual([found["f1"], found["macro_f1"], found["types"]], [0, 0, {}])
        self.file.write_text("a O O\n")
        self.assertIn("all (micro)", self.done(self.file))

    def test_a_very_long_sentence(self):
        found = self.of("".join(f"{i} {'BI'[i % 3 > 0]}-X {'BI'[i % 3 > 0]}-X\n" for i in range(300000)))
        self.assertEqual([found["gold"], found["correct"], found["sentences"]], [100000, 100000, 1])

    @unittest.skipUnless(WNUT.exists(), f"skipped: {WNUT} is not there")
    def test_a_published_file(self):
        lines = WNUT.read_text().split("\n")
        found = self.of("\n".join(f"{line}\t{line.split(chr(9))[1]}" if line.strip() else line for line in lines))
        self.assertEqual([found[key] for key in ("sentences", "words", "gold", "correct", "f1")], [1009, 15733, 836, 836, 1.0])
        self.assertEqual(sorted(found["types"]), ["corporation", "creative-work", "group", "location", "person", "product"])

    # ---- what is refused

    def test_files_that_cannot_be_scored(self):
        for text, says in [("", "holds no sentence"), ("\n \n\n", "holds no sentence"), ("O\nO\n", "has one column"),
                           ("a O O\nb O\n", "line 2 has 2 columns where line 1 has 3"), ("a O O\n\nb c O O\n", "line 3 has 4 columns"),
                           ("a\tO\tO\nb O O\n", "tabs part columns, as in line 1"), ("Peter B-PER\n", '"Peter" in column 1 is no gold tag'),
                           ("a O B-\n", 'the predicted tag "B-" has no type'), ("a B O\n", 'the gold tag "B" has no type'), ("a O per\n", '"per" in column 3 is no predicted tag'),
                           ("a\tO\t\n", "line 1 has no predicted tag in column 3"), ("a O X-PER\n", '"X-PER"'),
                           ("a O O\n".encode("utf-16"), "UTF-16"), ("a O \x1b[2J\n", "\\x1b[2J")]:
            with self.subTest(text=text):
                self.refused(text, says=says)
                self.refused(text, says=str(self.file))

    def test_prefixes_of_another_scheme(self):
        self.refused("a O O\n\nb S-X S-X\n", says='line 3: the gold tag "S-X" has a prefix that IOB2 does not have; --scheme IOBES is theirs')
        self.refused("a B-X U-X\n", says='line 1: the predicted tag "U-X" has a prefix that IOB2 does not have; --scheme BILOU')
        self.refused("a S-X O\nb U-X O\n", "--scheme", "IOBES", says="--mode default reads every prefix")

    def test_wrong_words(self):
        self.refused(EXAMPLE, "--mode", "lenient", says='--mode: "lenient" is neither strict nor default')
        self.refused(EXAMPLE, "--scheme", "IOB", says="IOB2 (or BIO), IOB1, IOBES and BILOU")
        self.refused(EXAMPLE, "--mode", "default", "--scheme", "IOB2", says="leave one of them out")
        self.refused(EXAMPLE, "--sceme", "IOB2", says="--help", status=2)
        for arguments, says in [(["nowhere.conll"], "nowhere.conll"), ([self.folder], str(self.folder))]:
            result = run(*arguments)
            self.assertEqual(result.returncode, 1)
            self.assertIn(says, result.stderr.decode())
        self.assertEqual(run().returncode, 2)
        result = subprocess.run([str(LAMINA), "tag", "scor"], capture_output=True)
        self.assertEqual(result.returncode, 2)
        self.assertIn(b"was tag score meant?", result.stderr)


if __name__ == "__main__":
    unittest.main()
