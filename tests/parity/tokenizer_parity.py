"""Text to ids and back: `lamina tokenize` on a GGUF and on the folder written from it, the `tokenizers` library on the
tokenizer.json of that folder, and llama.cpp's own pairs of texts and ids, all the same.

Text that is not UTF-8 is taken as Python's errors="replace" takes it: one U+FFFD for each longest start of a character
that breaks off.
"""

import base64
import json
import pathlib
import random
import sys
import unicodedata

import gguf
import numpy
import reference
import torch
from reference import (SHARED, SOURCE, Parity, apply, needs_shared, needs_smollm2, read_gguf,
                       run, save_file)
from tokenizers import Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "golden"))
from tokenizer_cases import LLAMA3, TEXTS  # noqa: E402

VOCABULARIES = SHARED / "tokenizers"
PAIRS = SHARED / "tokenizer_pairs"


def texts() -> list:
    """Many languages and oddities, code, prose, every control character, and characters at random."""
    out = list(TEXTS)
    for file in [SOURCE / "lamina" / "data" / "gguf_tokenizer.cpp", SOURCE / "Makefile", pathlib.Path(__file__),
                 SHARED / "text" / "tinystories_sample.txt", SHARED / "wikitext-2" / "test.txt"]:
        if file.exists():
            text = file.read_bytes()[:60000].decode("utf-8", errors="replace")
            out += [text[at : at + 5000] for at in range(0, len(text), 5000)]
    out += ["".join(map(chr, range(at, at + 16))) for at in range(0, 0xA0, 16)]
    out += [f"a{chr(c)}b {chr(c)}{chr(c)} " for c in [*range(0x20), 0x7F, 0x85, 0xA0, 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF]]
    # Of characters younger than Unicode 14, some libraries know more than others.
    known = [chr(c) for c in range(0x30000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    narrow = [c for c in known if ord(c) < 0x2000]
    choose = random.Random(11)
    out += ["".join(choose.choices(choose.choice([known, narrow]), k=choose.randint(1, 60))) for _ in range(300)]
    return out


def not_utf8() -> list:
    """Lines of bytes; none holds a line break."""
    choose = random.Random(12)
    out = [b"a\xff\xfeb", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x91 x", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80\x80",
           b"caf\xe9 na\xefve", b"\xf0\x9f\xc3\xa9", b"\xe2\x28\xa1", b"\xf8\x88\x80\x80\x80", "日本".encode()[:-1] + b" end"]
    out += [bytes(choose.choices([*range(11, 256)], k=30)) for _ in range(100)]
    return out


def ask(model, lines, *options) -> list:
    answer = run("tokenize", model, *options, input=b"".join(line + b"\n" for line in lines)).decode()
    return answer.split("\n")[:-1]


def ids_of(model, texts, *options) -> list:
    return [json.loads(line) for line in ask(model, [json.dumps(text).encode() for text in texts], "--json", *options)]


def text_of(model, ids) -> list:
    return [json.loads(line) for line in ask(model, [" ".join(map(str, row)).encode() for row in ids], "--decode", "--json")]


def around(source, out) -> pathlib.Path:
    """A GGUF that holds a vocabulary alone, with the smallest model around it, as lamina opens models."""
    reader = read_gguf(source)
    size = len(reader.get_field("tokenizer.ggml.tokens").data)
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, field in reader.fields.items():
        if key.startswith("tokenizer."):
            array = field.types[0] == gguf.GGUFValueType.ARRAY
            writer.add_key_value(key, field.contents(), field.types[0], field.types[-1] if array else None)
    square, row = numpy.ones((8, 8), numpy.float32), numpy.ones(8, numpy.float32)
    writer.add_tensor("token_embd.weight", numpy.zeros((size, 8), numpy.float32))
    writer.add_tensor("output_norm.weight", row)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", square)
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", row)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def llama3_folder(out) -> pathlib.Path:
    """Llama 3's published ranks as a tokenizer.json, put together as transformers' converter does it."""
    ranks = {}
    for line in (VOCABULARIES / "llama3" / "tokenizer.model").read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(256 + n) for n, byte in enumerate(b for b in range(256) if b not in letters)}
    spell = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = []
    for token in ranks:
        pairs = [(token[:at], token[at:]) for at in range(1, len(token)) if token[:at] in ranks and token[at:] in ranks]
        merges += sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    document = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [{"id": 128000, "content": "<|begin_of_text|>", **special}],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": level, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": True, "vocab": {spell[token]: rank for token, rank in ranks.items()},
                  "merges": [[spell[left], spell[right]] for left, right in merges]},
    }
    out.mkdir()
    (out / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 128256, "tie_word_embeddings": True}))
    layer, square, row = "model.layers.0.", torch.ones(8, 8), torch.ones(8)
    projections = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    save_file({"model.embed_tokens.weight": torch.zeros(128256, 8), "model.norm.weight": row.clone(),
               **{f"{layer}{name}.weight": row.clone() for name in ("input_layernorm", "post_attention_layernorm")},
               **{f"{layer}{name}.weight": square.clone() for name in projections}}, out / "model.safetensors")
    (out / "tokenizer.json").write_text(json.dumps(document))
    return out


class Tokens(Parity):
    def agree(self, model, folder, texts):
        """lamina on both, against the library, both ways; the ids."""
        library = Tokenizer.from_file(str(folder / "tokenizer.json"))
        expected = [library.encode(text).ids for text in texts]
        for place in {model, folder}:
            ours = ids_of(place, texts)
            for text, mine, theirs in zip(texts, ours, expected, strict=True):
                self.assertEqual(mine, theirs, f"{place}: {text[:80]!r}")
        # Ids that come from text, and ids that come from nowhere and end inside characters.
        choose = random.Random(13)
        noise = [choose.choices(range(library.get_vocab_size()), k=20) for _ in range(200)]
        for row, mine in zip(expected + noise, text_of(folder, expected + noise), strict=True):
            self.assertEqual(mine, library.decode(row, skip_special_tokens=False), row[:20])
        return expected

    def agree_on_bytes(self, model, folder):
        library = Tokenizer.from_file(str(folder / "tokenizer.json"))
        lines = not_utf8()
        for line, mine in zip(lines, ask(model, lines), strict=True):
            theirs = library.encode(line.decode("utf-8", errors="replace")).ids
            self.assertEqual([int(id) for id in mine.split()], theirs, line)

    @needs_smollm2
    def test_smollm2(self):
        # The least that lamina can write of this model.
        folder, all_texts = apply(reference.SMOLLM2, "1-29", self.folder / "out", "hf-compact"), texts()
        rows = self.agree(reference.SMOLLM2, folder, all_texts)
        self.agree_on_bytes(reference.SMOLLM2, folder)
        # Nothing of a text is lost but the few bytes that this vocabulary has no token for.
        back = text_of(reference.SMOLLM2, rows)
        self.assertGreater(sum(text == again for text, again in zip(all_texts, back)), 0.5 * len(back))
        chat = read_gguf(reference.SMOLLM2).get_field("tokenizer.chat_template").contents()
        self.assertEqual((folder / "chat_template.jinja").read_text(), chat)

    @needs_shared
    def test_stories(self):
        folder = apply(reference.STORIES, "1-4", self.folder / "out", "hf-compact")
        self.agree(reference.STORIES, folder, texts())
        self.agree_on_bytes(reference.STORIES, folder)

    @needs_shared
    def test_the_whole_input(self):
        """As one text: with its line breaks, NULs and what stands after the last of them."""
        folder = apply(reference.STORIES, "1-4", self.folder / "out", "hf-compact")
        library = Tokenizer.from_file(str(folder / "tokenizer.json"))
        for text in ("a\nb", "a\n\n", "a\0b\n\0", "\n", "\0"):
            answer = run("tokenize", folder, "--whole", "--json", input=json.dumps(text).encode())
            self.assertEqual(json.loads(answer), library.encode(text).ids, text)
            answer = run("tokenize", folder, "--whole", input=text.encode())
            self.assertEqual([int(id) for id in answer.split()], library.encode(text).ids, text)
            self.assertEqual(answer.count(b"\n"), 1, text)

    def pairs(self, name):
        all_texts = (PAIRS / "all.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
        rows = [[int(id) for id in line.split()] for line in (PAIRS / f"{name}.out").read_text().split("\n")]
        self.assertEqual(len(all_texts), 47)
        self.assertGreaterEqual(len(rows), 47)
        return zip(all_texts, rows)

    def agree_with_llama_cpp(self, name, model, folder):
        expected = list(self.pairs(name))
        all_texts = [text for text, _ in expected]
        for (text, row), mine in zip(expected, ids_of(model, all_texts, "--plain"), strict=True):
            self.assertEqual(mine, row, text)
        self.agree(model, folder, all_texts + TEXTS)

    @needs_shared
    def test_llama_cpp_pairs(self):
        for name, file in {"gpt-2": "gpt2/ggml-vocab-gpt-2.gguf", "llama-spm": "llama-spm/ggml-vocab-llama-spm.gguf",
                           "deepseek-coder": "gguf/ggml-vocab-deepseek-coder.gguf",
                           "refact": "gguf/ggml-vocab-refact.gguf"}.items():
            with self.subTest(vocabulary=name):
                model = around(VOCABULARIES / file, self.folder / f"{name}.gguf")
                self.agree_with_llama_cpp(name, model, apply(model, "mlp:0", self.folder / name, "hf-zeroed"))

    @needs_shared
    def test_llama3(self):
        folder = llama3_folder(self.folder / "llama3")
        self.agree_with_llama_cpp("llama-bpe", folder, folder)

    @needs_shared
    def test_what_cannot_be_opened(self):
        """WordPiece is refused by its name. CLIP's vocabulary and Qwen2's are not there as a tokenizer.json or a GGUF."""
        model = around(VOCABULARIES / "gguf" / "ggml-vocab-bert-bge.gguf", self.folder / "bert.gguf")
        with self.assertRaisesRegex(AssertionError, "tokenizer model .bert. .* is not supported"):
            ids_of(model, ["x"])


if __name__ == "__main__":
    reference.main()
