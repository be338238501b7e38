"""Scores of entities against the seqeval package: `lamina tag score` on 2,000 sentences of random tags, each looked at alone and in
groups, in the default mode and strictly in IOB1, IOB2, IOBES and BILOU; equal to the last bit."""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
LAMINA = pathlib.Path(os.environ.get("LAMINA", SOURCE / "build" / "lamina")).resolve()
WNUT = SOURCE.parent / "shared" / "data" / "wnut17" / "emerging.dev.conll"

try:
    from seqeval import scheme
    from seqeval.metrics import f1_score, precision_score, recall_score
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support as default_scores
    from seqeval.metrics.v1 import precision_recall_fscore_support as strict_scores
except ImportError as error:
    print(f"skipped: the Python package {error.name} is missing; `make parity` installs what parity is measured against")
    sys.exit(77)

PREFIXES = {"IOB1": "BI", "IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU", "default": "BIESLU"}
SENTENCES = 2000
GROUP = 20


# ---- tags


def at_random(choose, prefixes, words, types):
    return ["O" if prefix == "O" else f"{prefix}-{choose.choice(types)}" for prefix in choose.choices(["O", *prefixes], k=words)]


def written_rightly(choose, name, words, types):
    """Entities at random, as tags of the scheme; for the default mode in any of them."""
    if name == "default":
        name = choose.choice([*PREFIXES][:4])
    alone, last = {"IOBES": ("S", "E"), "BILOU": ("U", "L")}.get(name, ("B", "I"))
    tags = []
    while len(tags) < words:
        if choose.random() < 0.4:
            tags.append("O")
            continue
        kind, length = choose.choice(types), choose.choice([1, 1, 2, 3, 4])
        first = "B"
        if name == "IOB1" and not (tags and tags[-1].endswith(f"-{kind}")):
            first = "I"
        prefixes = [alone if name != "IOB1" else first] if length == 1 else [first, *"I" * (length - 2), last]
        tags += [f"{prefix}-{kind}" for prefix in prefixes]
    return tags[:words]  # what is cut off here may break the scheme: good


def disturbed(choose, tags, prefixes, types):
    """Some tags changed a little, as a tagger errs."""
    out = list(tags)
    for i in range(len(out)):
        draw = choose.random()
        if draw < 0.1:
            out[i] = "O"
        elif draw < 0.2:
            out[i] = f"{choose.choice(prefixes)}-{choose.choice(types)}"
        elif draw < 0.3 and out[i] != "O":
            out[i] = choose.choice(prefixes) + out[i][1:]
    return out


def pairs(name, seed):
    """Gold and predicted tags of every sentence."""
    choose = random.Random(seed)
    types, out = ["PER", "LOC", "creative-work"], []
    for _ in range(SENTENCES):
        words = choose.randint(1, 12)
        gold = written_rightly(choose, name, words, types) if choose.random() < 0.6 else at_random(choose, PREFIXES[name], words, types)
        predicted = disturbed(choose, gold, PREFIXES[name], types) if choose.random() < 0.6 else at_random(choose, PREFIXES[name], words, types)
        out.append((gold, predicted))
    return out


# ---- the two sides


def ours(sides, name):
    text = "".join("".join(f"w\t{a}\t{b}\n" for a, b in zip(gold, predicted, strict=True)) + "\n" for gold, predicted in sides)
    options = ["--mode", "default"] if name == "default" else ["--mode", "strict", "--scheme", name]
    done = subprocess.run([str(LAMINA), "tag", "score", "-", "--json", *options], input=text.encode(), capture_output=True)
    if done.returncode != 0:
        raise AssertionError(done.stderr.decode(errors="replace"))
    return json.loads(done.stdout)


def theirs(sides, name, average):
    gold, predicted = [side[0] for side in sides], [side[1] for side in sides]
    if name == "default":
        return default_scores(gold, predicted, average=average)
    return strict_scores(gold, predicted, average=average, scheme=getattr(scheme, name))


def figures(counts):
    return [counts["precision"], counts["recall"], counts["f1"]]


class Seqeval(unittest.TestCase):
    def test_every_sentence_alone(self):
        """Types that belong to one sentence make one run say what it makes of each."""
        for name in PREFIXES:
            with self.subTest(mode=name):
                sides = [tuple([tag if tag == "O" else f"{tag}.{number}" for tag in side] for side in pair)
                         for number, pair in enumerate(pairs(name, seed=1))]
                found = ours(sides, name)["types"]
                expected = {}
                for number, pair in enumerate(sides):
                    columns = theirs([pair], name, average=None)
                    types = sorted({tag[2:] for side in pair for tag in side if tag != "O"})
                    types = [kind for kind in types if kind in found]
                    self.assertEqual(len(types), len(columns[0]), (number, pair))
                    expected |= {kind: [float(value) for value in row] for kind, row in zip(types, zip(*columns), strict=True)}
                self.assertEqual({kind: [*figures(counts), float(counts["gold"])] for kind, counts in found.items()}, expected)
                self.assertGreater(len(expected), SENTENCES)
                self.assertGreater(sum(0 < row[2] < 1 for row in expected.values()), SENTENCES // 20)

    def test_groups(self):
        for name in PREFIXES:
            sides = pairs(name, seed=2)
            for at in range(0, SENTENCES, GROUP):
                group = sides[at : at + GROUP]
                with self.subTest(mode=name, first=at):
                    found = ours(group, name)
                    self.assertEqual(figures(found), [float(value) for value in theirs(group, name, "micro")[:3]])
                    for value, other in zip((found[f"macro_{key}"] for key in ("precision", "recall", "f1")), theirs(group, name, "macro")):
                        self.assertAlmostEqual(value, float(other), delta=1e-15)
                    columns = [column.tolist() for column in theirs(group, name, None)]
                    self.assertEqual([figures(counts) + [counts["gold"]] for _, counts in sorted(found["types"].items())],
                                     [list(row) for row in zip(*columns)])

    def test_the_functions_that_papers_call(self):
        for name in PREFIXES:
            sides = pairs(name, seed=3)
            gold, predicted = [side[0] for side in sides], [side[1] for side in sides]
            options = {} if name == "default" else {"mode": "strict", "scheme": getattr(scheme, name)}
            with self.subTest(mode=name):
                self.assertEqual(figures(ours(sides, name)),
                                 [float(measure(gold, predicted, **options)) for measure in (precision_score, recall_score, f1_score)])

    def test_what_a_strict_reading_refuses(self):
        for name, prefixes in PREFIXES.items():
            for prefix in set("BIESLU") - set(prefixes):
                sides = [(["O", f"{prefix}-X"], ["O", "O"])]
                with self.subTest(scheme=name, prefix=prefix):
                    with self.assertRaises(ValueError):
                        theirs(sides, name, "micro")
                    with self.assertRaisesRegex(AssertionError, f"line 2: the gold tag .* that {name} does not have"):
                        ours(sides, name)

    @unittest.skipUnless(WNUT.exists(), "skipped: ../shared/data/wnut17 is not there")
    def test_a_published_file(self):
        choose = random.Random(4)
        blocks = [block for block in WNUT.read_text().split("\n\n") if block.strip()]
        gold = [[line.split("\t")[1] for line in block.split("\n") if line.strip()] for block in blocks]
        types = sorted({tag[2:] for tags in gold for tag in tags if tag != "O"})
        sides = [(tags, disturbed(choose, tags, "BI", types)) for tags in gold]
        for name in ("IOB1", "IOB2", "default"):
            with self.subTest(mode=name):
                self.assertEqual(figures(ours(sides, name)), [float(value) for value in theirs(sides, name, "micro")[:3]])


if __name__ == "__main__":
    if not LAMINA.exists():
        print(f"skipped: {LAMINA} is not built")
        sys.exit(77)
    unittest.main(warnings="ignore")  # seqeval warns of each L and U
