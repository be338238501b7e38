"""Compares `lamina tokenize` with the `tokenizers` library on a folder that lamina wrote, text by text.

    python tests/parity/tokenizer_parity.py build/lamina FOLDER [text files...]

FOLDER holds the tokenizer.json. `lamina tokenize FOLDER --jsonl` is given one JSON string a line on its standard input
and answers with one JSON list of ids a line. Exits with 1 and the first differences if any id differs.
"""

import json
import pathlib
import subprocess
import sys

from tokenizers import Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "golden"))
from tokenizer_cases import TEXTS  # noqa: E402


def main(lamina, folder, *files):
    texts = list(TEXTS)
    for file in files:
        text = pathlib.Path(file).read_bytes().decode("utf-8", errors="replace")
        texts += [text[i : i + 20000] for i in range(0, len(text), 20000)]
    tokenizer = Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    answer = subprocess.run(
        [lamina, "tokenize", folder, "--jsonl"],
        input="".join(json.dumps(text) + "\n" for text in texts),
        capture_output=True,
        check=True,
        text=True,
    )
    lines = answer.stdout.splitlines()
    if len(lines) != len(texts):
        sys.exit(f"{len(lines)} answers for {len(texts)} texts")
    differences = [text for text, line in zip(texts, lines) if json.loads(line) != tokenizer.encode(text).ids]
    for text in differences[:10]:
        print(f"differs: {text[:80]!r}")
    print(f"{len(texts)} texts, {len(differences)} differ")
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
