"""Trains two small BPE models and one of whole words on the text below, puts them behind many kinds of components, and writes
tokenizer_cases.json: each tokenizer with the ids and the texts that the `tokenizers` library gives.

Run in an environment that has tokenizers:  python tests/golden/tokenizer_cases.py
"""

import json
import pathlib
import random
import unicodedata

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

CORPUS = """The layer that matters least is the one you would not miss. We're cutting it, and they've cut two more; don't
ask who'll notice. In 2023 there were 12 of 32 layers left, about 37.5 % of them. def cut(model, layers): return [layer
for layer in model if layer not in layers]. Die Schichten der Netze, die wenig beitragen, werden entfernt; les couches
inutiles sont coupées. Слои, которые мало значат, удаляются. 最も重要でない層を切り取る。 the the the and and of of in to
that it is was for on are as with his they at be this have from or one had by word but not what all were we when your can
"""

TEXTS = [
    "",
    " ",
    "Hello world",
    "  two  spaces  ",
    "I'm here, you're there; they've gone, he'll DON'T WE'VE 'S's",
    "1234567890 12 3.14 ١٢٣ ½ Ⅻ",
    "日本語のテキスト。中文文本，混合 English。한국어",
    "Привет мир! Γειά σου שלום مرحبا हिन्दी ไทย",
    "👨‍👩‍👧‍👦 👩🏽‍💻 🏳️‍🌈 ❤️",
    "def f(x):\n    return x**2  # square\n\n\tif x:\r\n\t\tpass\n",
    "<|start|>user\nHi<|end|>\n <|end|><|start|>",
    "a<s>b</s> <unk> x",
    " " * 40 + "x" + " " * 7,
    "\n" * 9 + "\t" * 5 + " \n \n  ",
    "\x00\x01\x02 \x7f \x85 \xa0\u2003\u3000\u180e\u200b\u200d\ufeff\u2028",
    "e\u0301 é ñ n\u0303 Å \u212b ﬁ ① ㎏ x\u0301\u0323 q\u0323\u0301 \uac00 \u1100\u1161",
    "İstanbul ıI ß ẞ Σς \u212a ſ",
    "naïve café — “quotes” ‘single’ … ©®™",
    "a" * 200,
    "the layer" * 20,
    "▁▁ ▁a ▁",
    "<0x0A> <0x41>",
    "𝔘𝔫𝔦 𠜎𠜱",
    "\r\n\r\r\n a\r",
    "wrap  <mask>  wrap<mask>wrap",
    "word words Word sword word",
    "Café CAFÉ cafe\u0301",
    "a-b--c---d -",
    "\ufffd \ufffd\ufffd",
]
_random = random.Random(7)
for _ in range(20):
    pool = "abthe XYZ 019'.,-_\n\t \r<|>▁éß日本👩‍💻\u0301\u00a0\u3000Ж½"
    TEXTS.append("".join(_random.choice(pool) for _ in range(_random.randint(1, 40))))
# Characters of Unicode 3.2 only: of later ones some libraries know more than others.
_known = [chr(c) for c in range(0x20000) if unicodedata.ucd_3_2_0.category(chr(c)) not in ("Cn", "Cs", "Co")]
_blocks = [[c for c in _known if low <= ord(c) < high] for low, high in [(0, 128), (128, 2048), (2048, 65536), (65536, 131072)]]
for _ in range(10):
    TEXTS.append("".join(_random.choice(_random.choice(_blocks)) for _ in range(_random.randint(1, 20))))

# Where decoders differ; decoding the others would say the same again.
DECODED = ["gpt2", "no decoder", "llama2", "metaspace always True", "metaspace never True", "unknown characters", "words"]

LLAMA3 = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)


def byte_model():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    return json.loads(tokenizer.to_str())["model"]


def mark_model():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([CORPUS], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return {**model, "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}


def word_model():
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=100, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([CORPUS], trainer)
    return json.loads(tokenizer.to_str())["model"]


def added(id, content, **flags):
    token = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False}
    return {**token, "normalized": False, "special": True, **flags}


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def level(**options):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True, **options}


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


def template(before, after=()):
    special = lambda token: {"SpecialToken": {"id": token[0], "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    single = [special(t) for t in before] + [text] + [special(t) for t in after]
    specials = {t[0]: {"id": t[0], "ids": [t[1]], "tokens": [t[0]]} for t in [*before, *after]}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": specials}


def tokenizers(bytes_size, marks_size):
    chat = [added(bytes_size, "<|start|>"), added(bytes_size + 1, "<|end|>")]
    spm = [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")]
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    spm_normalizer = sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, spaces)
    fallback = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]
    spm_decoder = sequence("decoders", *fallback)
    digits = {"type": "Digits", "individual_digits": True}
    meta = lambda scheme, cut: {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": cut}
    odd_tokens = chat + [
        added(bytes_size + 2, "<mask>", lstrip=True),
        added(bytes_size + 3, "word", single_word=True, special=False),
        added(bytes_size + 4, "café", normalized=True, special=False),
        added(bytes_size + 5, "the layer", rstrip=True, special=False),
        added(bytes_size + 6, "the lay", special=False),
    ]

    def on_bytes(name, **parts):
        document = {"added_tokens": chat, "normalizer": None, "pre_tokenizer": level(), "post_processor": level()}
        return {"name": name, "model": "bytes", "document": {**document, "decoder": level(), **parts}}

    def on_marks(name, **parts):
        document = {"added_tokens": spm, "normalizer": spm_normalizer, "pre_tokenizer": None}
        document |= {"post_processor": template([("<s>", 1)]), "decoder": spm_decoder}
        return {"name": name, "model": "marks", "document": {**document, **parts}}

    def on_words(name, **parts):
        document = {"added_tokens": spm, "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"}}
        document |= {"post_processor": template([("<s>", 1)]), "decoder": None}
        return {"name": name, "model": "words", "document": {**document, **parts}}

    behaviors = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
    yield on_bytes("gpt2")
    yield on_bytes("gpt2 with prefix space", pre_tokenizer=level(add_prefix_space=True))
    yield on_bytes("smollm", pre_tokenizer=sequence("pretokenizers", digits, level()))
    yield on_bytes(
        "digits together",
        pre_tokenizer=sequence("pretokenizers", {"type": "Digits", "individual_digits": False}, level()),
    )
    yield on_bytes(
        "llama3",
        pre_tokenizer=sequence("pretokenizers", split({"Regex": LLAMA3}), level(use_regex=False)),
        post_processor=sequence("processors", level(), template([("<|start|>", bytes_size)])),
        model={"ignore_merges": True},
    )
    yield on_bytes(
        "qwen2",
        normalizer={"type": "NFC"},
        pre_tokenizer=sequence(
            "pretokenizers", split({"Regex": LLAMA3.replace("{1,3}", "")}), level(use_regex=False)
        ),
    )
    yield on_bytes("bytes only", pre_tokenizer=level(use_regex=False), post_processor=None)
    for pattern, invert in [({"String": "-"}, False), ({"Regex": "-+"}, True)]:
        for behavior in behaviors:
            yield on_bytes(
                f"split {pattern} {behavior} {invert}",
                pre_tokenizer=sequence("pretokenizers", split(pattern, behavior, invert), level(use_regex=False)),
            )
    for kind in ["Whitespace", "WhitespaceSplit"]:
        yield on_bytes(kind, pre_tokenizer=sequence("pretokenizers", {"type": kind}, level(use_regex=False)))
    yield on_bytes(
        "Punctuation",
        pre_tokenizer=sequence("pretokenizers", {"type": "Punctuation", "behavior": "Isolated"}, level()),
    )
    for kind in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"]:
        yield on_bytes(kind, normalizer={"type": kind})
    yield on_bytes(
        "normalizers in sequence",
        normalizer=sequence(
            "normalizers",
            {"type": "NFKD"},
            {"type": "StripAccents"},
            {"type": "Lowercase"},
            {"type": "Strip", "strip_left": True, "strip_right": False},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
        ),
        added_tokens=odd_tokens,
    )
    yield on_bytes("odd added tokens", added_tokens=odd_tokens)
    yield on_bytes(
        "bert ends",
        post_processor={"type": "BertProcessing", "sep": ["<|end|>", bytes_size + 1], "cls": ["<|start|>", bytes_size]},
    )
    yield on_bytes(
        "roberta ends",
        post_processor={
            "type": "RobertaProcessing", "sep": ["<|end|>", bytes_size + 1], "cls": ["<|start|>", bytes_size],
            "trim_offsets": True, "add_prefix_space": False,
        },
    )
    yield on_bytes("no decoder", decoder=None)
    yield on_marks("llama2")
    yield on_marks(
        "llama2 with both ends", post_processor=template([("<s>", 1)], [("</s>", 2)]), model={"fuse_unk": False}
    )
    for scheme in ["always", "first", "never"]:
        for cut in [False, True]:
            yield on_marks(
                f"metaspace {scheme} {cut}",
                normalizer=None,
                pre_tokenizer=meta(scheme, cut),
                decoder=meta(scheme, cut),
            )
    yield on_marks("unknown characters", model={"byte_fallback": False})
    yield on_marks("unknown characters apart", model={"byte_fallback": False, "fuse_unk": False})
    yield on_marks("dropped characters", model={"byte_fallback": False, "unk_token": None})
    yield on_words("words")
    yield on_words("words between white space", pre_tokenizer={"type": "WhitespaceSplit"}, post_processor=None)
    yield on_words("words in their case", normalizer=None, model={"unk_token": "the"})
    yield on_words("one word", pre_tokenizer=None)


def main():
    all_models = {"bytes": byte_model(), "marks": mark_model(), "words": word_model()}
    out = []
    for entry in tokenizers(len(all_models["bytes"]["vocab"]), len(all_models["marks"]["vocab"])):
        changes = entry["document"].pop("model", {})
        document = {**entry["document"], "model": {**all_models[entry["model"]], **changes}}
        tokenizer = Tokenizer.from_str(json.dumps({"version": "1.0", "truncation": None, "padding": None, **document}))
        entry["changes"] = changes
        entry["results"] = []
        for text in TEXTS[:30] if entry["name"].startswith("split") else TEXTS:
            result = {"ids": tokenizer.encode(text).ids}
            tokenizer.encode_special_tokens = True
            plain = tokenizer.encode(text, add_special_tokens=False).ids
            tokenizer.encode_special_tokens = False
            if plain != result["ids"]:
                result["plain"] = plain
            if entry["name"] in DECODED:
                result["text"] = tokenizer.decode(result["ids"], skip_special_tokens=False)
                result["short"] = tokenizer.decode(result["ids"], skip_special_tokens=True)
            entry["results"].append(result)
        out.append(entry)
    path = pathlib.Path(__file__).with_suffix(".json")
    lines = [json.dumps(entry, ensure_ascii=False, separators=(",", ":")) for entry in out]
    head = json.dumps({"models": all_models, "texts": TEXTS}, ensure_ascii=False, separators=(",", ":"))
    path.write_text(head[:-1] + ',"tokenizers":[\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")
    print(f"{path}: {len(out)} tokenizers, {len(TEXTS)} texts, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
