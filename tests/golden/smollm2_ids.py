"""Writes smollm2_ids.json: ids that transformers gives when it opens the SmolLM2 GGUF by itself.

transformers converts every byte-level GGUF as if it were GPT-2's, which joins a space to a number that is not ASCII.
The pre-tokenizer is therefore set to what SmolLM2 was published with.

Run in an environment that has transformers and gguf:  python tests/golden/smollm2_ids.py SmolLM2-135M-Instruct.Q4_1.gguf
"""

import json
import pathlib
import sys

import tokenizer_cases
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer


def main(path):
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    texts = [t for t in tokenizer_cases.TEXTS if t] + ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"]
    entries = []
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        back = tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)
        entries.append({"text": text, "ids": ids, **({} if back == text else {"decoded": back})})
    out = pathlib.Path(__file__).with_suffix(".json")
    lines = [json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in entries]
    out.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
