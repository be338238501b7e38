"""Sentences with gold and predicted tags, and what the `seqeval` package makes of them: entities, precision, recall and F1, in
its default mode and in mode="strict" with each of four schemes. Writes seqeval_cases.json.

Run in an environment that has seqeval:  python tests/golden/seqeval_cases.py
"""

import json
import pathlib
import warnings

import numpy
from seqeval import scheme
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support as default_scores
from seqeval.metrics.v1 import precision_recall_fscore_support as strict_scores

SCHEMES = {"IOB1": scheme.IOB1, "IOB2": scheme.IOB2, "IOBES": scheme.IOBES, "BILOU": scheme.BILOU}
warnings.simplefilter("ignore")

# Name, gold, predicted; "|" parts sentences.
CASES = [
    # ---- IOB2
    ("right", "B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC"),
    ("nothing found", "B-PER I-PER O B-LOC", "O O O O"),
    ("nothing there", "O O O", "B-PER O B-LOC"),
    ("nothing at all", "O O O", "O O O"),
    ("one word, right", "B-PER", "B-PER"),
    ("one word, missed", "B-PER", "O"),
    ("one word, invented", "O", "B-PER"),
    ("one word, I alone", "B-PER", "I-PER"),
    ("one word, other type", "B-PER", "B-LOC"),
    ("I after O", "O B-PER I-PER O", "O I-PER I-PER O"),
    ("I after O, both sides", "O I-PER I-PER O", "O I-PER I-PER O"),
    ("I in front", "B-PER I-PER O", "I-PER I-PER O"),
    ("I in front, then B", "B-PER B-PER O", "I-PER B-PER O"),
    ("type switch inside", "B-PER I-PER I-PER", "B-PER I-LOC I-PER"),
    ("type switch and back", "B-PER I-PER I-PER I-PER", "B-PER I-LOC I-LOC I-PER"),
    ("type switch at the end", "B-PER I-PER", "B-PER I-LOC"),
    ("switch after a B", "B-PER O", "B-PER I-LOC"),
    ("B B same type", "B-PER B-PER", "B-PER B-PER"),
    ("B B same type, read as one", "B-PER I-PER", "B-PER B-PER"),
    ("B B other type", "B-PER B-LOC", "B-PER B-LOC"),
    ("B B B", "B-PER B-PER B-PER", "B-PER I-PER B-PER"),
    ("adjacent, same type", "B-PER I-PER B-PER I-PER", "B-PER I-PER B-PER I-PER"),
    ("adjacent, other type", "B-PER I-PER B-LOC I-LOC", "B-PER I-PER B-LOC I-LOC"),
    ("adjacent, joined", "B-PER I-PER B-PER I-PER", "B-PER I-PER I-PER I-PER"),
    ("to the end of the sentence", "O O B-PER I-PER", "O O B-PER I-PER"),
    ("one short at the end", "O O B-PER I-PER", "O O B-PER O"),
    ("one long at the end", "O B-PER I-PER O", "O B-PER I-PER I-PER"),
    ("one late at the start", "B-PER I-PER I-PER O", "O B-PER I-PER O"),
    ("I late at the start", "B-PER I-PER I-PER O", "O I-PER I-PER O"),
    ("cut in two by O", "B-PER I-PER I-PER", "B-PER O I-PER"),
    ("cut in two by B", "B-PER I-PER I-PER", "B-PER I-PER B-PER"),
    ("words cut off", "O B-PER I-PER I-PER O B-LOC", "O B-PER I-PER O O O"),
    ("two right of three", "B-PER O B-LOC O B-ORG", "B-PER O B-LOC O B-LOC"),
    ("six types", "B-a B-b B-c B-d B-e B-f", "B-a B-b B-c B-d B-f B-f"),
    ("other types on both sides", "B-a O B-b", "B-c O B-d"),
    # ---- IOB1
    ("IOB1", "I-PER I-PER O I-LOC", "I-PER I-PER O I-LOC"),
    ("IOB1, adjacent of one type", "I-PER I-PER B-PER I-PER", "I-PER I-PER B-PER I-PER"),
    ("IOB1, adjacent of two types", "I-PER I-LOC I-LOC", "I-PER I-LOC I-LOC"),
    ("IOB1, B after another type", "I-PER B-LOC I-LOC", "I-PER I-LOC I-LOC"),
    ("IOB1, B after O", "O I-PER I-PER", "O B-PER I-PER"),
    ("IOB1, B in front", "I-PER O", "B-PER O"),
    ("IOB1, B B of two types", "I-PER B-PER B-LOC I-LOC", "I-PER B-PER B-LOC O"),
    ("IOB1, B B of one type", "I-PER B-PER B-PER O", "I-PER B-PER B-PER O"),
    ("IOB1, one of each", "I-PER B-PER I-LOC B-LOC", "I-PER B-PER I-LOC B-LOC"),
    # ---- IOBES
    ("IOBES", "B-PER I-PER E-PER O S-LOC", "B-PER I-PER E-PER O S-LOC"),
    ("IOBES, B E", "B-PER E-PER S-PER", "B-PER E-PER S-PER"),
    ("IOBES, no end", "B-PER I-PER E-PER O", "B-PER I-PER I-PER O"),
    ("IOBES, no end, last word", "B-PER I-PER E-PER", "B-PER I-PER I-PER"),
    ("IOBES, B alone", "S-PER O", "B-PER O"),
    ("IOBES, E alone", "S-PER O", "E-PER O"),
    ("IOBES, I alone", "O S-PER O", "O I-PER O"),
    ("IOBES, E after O", "O B-PER E-PER", "O O E-PER"),
    ("IOBES, E after E", "B-PER I-PER E-PER", "B-PER E-PER E-PER"),
    ("IOBES, E of another type", "B-PER E-PER", "B-PER E-LOC"),
    ("IOBES, S inside", "B-PER I-PER E-PER", "B-PER S-PER E-PER"),
    ("IOBES, I after S", "S-PER O", "S-PER I-PER"),
    ("IOBES, I after E", "B-PER E-PER O", "B-PER E-PER I-PER"),
    ("IOBES, E after S", "B-PER E-PER", "S-PER E-PER"),
    ("IOBES, S S", "S-PER S-PER S-LOC", "S-PER S-PER S-PER"),
    ("IOBES, B B E", "B-PER I-PER E-PER", "B-PER B-PER E-PER"),
    ("IOBES, I E without B", "B-PER I-PER E-PER", "I-PER I-PER E-PER"),
    ("IOBES, S as B", "B-PER E-PER O", "S-PER I-PER O"),
    # ---- BILOU
    ("BILOU", "B-PER I-PER L-PER O U-LOC", "B-PER I-PER L-PER O U-LOC"),
    ("BILOU, U U", "U-PER U-PER O", "U-PER U-PER O"),
    ("BILOU, no end", "B-PER L-PER O", "B-PER I-PER O"),
    ("BILOU, L alone", "U-PER O", "L-PER O"),
    ("BILOU, L of another type", "B-PER L-PER", "B-PER L-LOC"),
    ("BILOU, U inside", "B-PER I-PER L-PER", "B-PER U-PER L-PER"),
    ("BILOU, U then B", "U-PER B-PER L-PER", "U-PER B-PER L-PER"),
    ("BILOU, U then B of another type", "U-PER B-LOC L-LOC", "U-PER B-LOC L-LOC"),
    ("BILOU, I after U", "U-PER O", "U-PER I-PER"),
    ("BILOU, L L", "B-PER I-PER L-PER", "B-PER L-PER L-PER"),
    # ---- prefixes of several schemes
    ("E and L", "B-PER E-PER O", "B-PER E-PER L-PER"),
    ("S and L", "S-PER O", "S-PER L-PER"),
    ("E L E L E", "B-PER E-PER L-PER E-PER L-PER O", "B-PER E-PER L-PER E-PER L-PER E-PER"),
    ("gold of one scheme, predictions of another", "B-PER I-PER O", "B-PER E-PER O"),
    ("gold in IOB2, predictions in IOB1", "B-PER I-PER O B-LOC", "I-PER I-PER O I-LOC"),
    # ---- types
    ("hyphen in the type", "B-creative-work I-creative-work O", "B-creative-work I-creative-work O"),
    ("hyphen in the type, half of it", "B-creative-work I-creative-work O", "B-creative I-creative O"),
    ("same behind the last hyphen", "B-a-x I-b-x O", "B-a-x I-b-x O"),
    ("two hyphens after the prefix", "B--PER I--PER O", "B-PER I-PER O"),
    ("two hyphens, one side inside", "B--PER I-PER O", "B-PER I-PER O"),
    ("hyphen behind the type", "B-PER- I-PER- O", "B-PER I-PER O"),
    ("hyphens as a type", "B-- I-- O", "B-- I-- O"),
    ("no type behind the hyphen", "B- I- O", "B- I- O"),
    ("no type and no hyphen", "B I O B", "B I O I"),
    ("no type, written twice", "B I- O", "B- I O"),
    ("no type, E and S", "B E S O", "B- E- S- O"),
    ("a type that is _", "B-_ I-_ O", "B I O"),
    ("types that differ in case", "B-per O", "B-PER O"),
    ("types beyond ASCII", "B-人 I-人 O B-é", "B-人 I-人 O B-é"),
    # ---- several sentences
    ("two sentences", "B-PER I-PER|B-LOC O", "B-PER I-PER|B-LOC O"),
    ("nothing runs on into the next sentence", "B-PER I-PER|I-PER O", "B-PER I-PER|I-PER O"),
    ("open at the end, I in front", "B-PER I-PER|O O", "B-PER I-PER|I-PER O"),
    ("open at the end, in IOBES", "B-PER E-PER|S-PER", "B-PER I-PER|E-PER"),
    ("same place, other sentence", "B-PER O|O O", "O O|B-PER O"),
    ("an empty sentence between", "B-PER||B-LOC", "B-PER||B-PER"),
    ("three sentences, three types", "B-a I-a O B-b|O O|B-c O B-a", "B-a I-a O B-c|O B-b|B-c O I-a"),
]


def sentences(text):
    return [sentence.split() for sentence in text.split("|")]


def reading(gold, predicted, pattern):
    """None where seqeval refuses."""
    try:
        if pattern is None:
            found = [[[[kind, begin, end + 1] for kind, begin, end in get_entities(tags)] for tags in side] for side in (gold, predicted)]
            scores, options = default_scores, {}
        else:
            found = [[[[entity.tag, entity.start, entity.end] for entity in tags] for tags in scheme.Entities(side, pattern).entities]
                     for side in (gold, predicted)]
            scores, options = strict_scores, {"scheme": pattern}
        names = sorted({entity[0] for side in found for tags in side for entity in tags})
        result = {"entities": found}
        result["micro"] = [float(value) for value in scores(gold, predicted, average="micro", **options)[:3]]
        macro = scores(gold, predicted, average="macro", **options)[:3] if names else [0.0] * 3  # numpy has no mean of nothing
        result["macro"] = [float(value) for value in macro]
        columns = [numpy.asarray(column).tolist() for column in scores(gold, predicted, average=None, **options)]
        result["types"] = {name: row for name, row in zip(names, zip(*columns), strict=True)}
        return result
    except (KeyError, ValueError):
        return None


def main():
    out = []
    for name, gold, predicted in CASES:
        gold, predicted = sentences(gold), sentences(predicted)
        assert [len(tags) for tags in gold] == [len(tags) for tags in predicted], name
        readings = {"default": reading(gold, predicted, None)}
        readings |= {key: reading(gold, predicted, pattern) for key, pattern in SCHEMES.items()}
        out.append({"name": name, "gold": gold, "predicted": predicted, "readings": readings})
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in out)
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(f'{{"seqeval":"1.2.2","cases":[\n{lines}\n]}}\n')
    print(f"{path.name}: {len(out)} cases, {sum(len(case['gold']) for case in out)} sentences")


if __name__ == "__main__":
    main()
