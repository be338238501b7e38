#!/usr/bin/env python3
"""Writes the seeds in fuzz/corpus: small valid files from which the fuzzer starts. Standard library only."""
import json
import sqlite3
import struct
import zlib
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def save(target, name, content):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def safetensors(header, data=b""):
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def text(value):
    return struct.pack("<Q", len(value)) + value


# Metadata values: type number and bytes.
SCALARS = {0: b"\xff", 1: b"\x80", 2: b"\1\2", 3: b"\1\2", 4: b"\1\0\0\0", 5: b"\xff\xff\xff\xff",
           6: struct.pack("<f", 0.5), 7: b"\1", 8: text(b"llama"), 10: struct.pack("<Q", 1 << 40),
           11: struct.pack("<q", -1), 12: struct.pack("<d", 0.1)}


def gguf(tensors, version=3, alignment=32, pairs=()):
    """`tensors`: (name, sizes innermost first, type number, data)."""
    pairs = list(pairs)
    if alignment != 32:
        pairs.append((b"general.alignment", 4, struct.pack("<I", alignment)))
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    for key, kind, value in pairs:
        out += text(key) + struct.pack("<I", kind) + value
    data = b""
    for name, sizes, kind, content in tensors:
        data += b"\0" * (-len(data) % alignment)
        out += text(name) + struct.pack("<I", len(sizes)) + b"".join(struct.pack("<Q", s) for s in sizes)
        out += struct.pack("<IQ", kind, len(data))
        data += content
    return out + b"\0" * (-len(out) % alignment) + data


def array(kind, items):
    return (9, struct.pack("<IQ", kind, len(items)) + b"".join(items))


save("safetensors", "empty", safetensors({}))
save("safetensors", "two", safetensors({
    "__metadata__": {"format": "pt"},
    "a": entry("F32", [2, 3], 0, 24),
    "b.weight": entry("BF16", [], 24, 26)}, b"\x2a" * 26))
save("safetensors", "other_order", safetensors({
    "late": entry("U8", [3], 8, 11),
    "early": entry("I64", [1], 0, 8),
    "none": entry("F16", [0, 7], 8, 8),
    "gr\u00f6\u00dfe": entry("F8_E4M3", [1], 11, 12)}, b"\x2a" * 12))

save("index", "two_shards", json.dumps({
    "metadata": {"total_size": 8},
    "weight_map": {"a": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}}))
save("index", "bare", '{"weight_map":{"a":"x.safetensors"}}')

save("json", "config", json.dumps({
    "architectures": ["LlamaForCausalLM"], "hidden_size": 576, "rms_norm_eps": 1e-05, "rope_scaling": None,
    "tie_word_embeddings": True, "layers": [{"a": -1}, {"a": 1.5}], "a": 7}, indent=2))
save("json", "escapes", r'["\u00e9\ud83d\ude00\n\"\\\/", -0, -0.0, 9223372036854775807, 1e300, [[[[]]]]]')

save("gguf", "empty", gguf([]))
save("gguf", "scalars", gguf([], pairs=[(b"a.%d" % kind, kind, value) for kind, value in SCALARS.items()]))
save("gguf", "arrays", gguf([], version=2, pairs=[
    (b"a.%d" % kind, *array(kind, [value, value])) for kind, value in SCALARS.items()]))
save("gguf", "plain", gguf([
    (b"token_embd.weight", [4, 2], 0, b"\x2a" * 32), (b"scalar", [], 1, b"\0\x3c"), (b"none", [0, 3], 30, b"")]))
save("gguf", "aligned", gguf([(b"a", [3], 28, b"\x2a" * 24), (b"b", [2], 24, b"\1\2")], alignment=8))
for name, kind, elements, size in [("q4_0", 2, 32, 18), ("q4_1", 3, 32, 20), ("q5_0", 6, 32, 22), ("q5_1", 7, 32, 24),
                                   ("q8_0", 8, 32, 34), ("q2_k", 10, 256, 84), ("q3_k", 11, 256, 110),
                                   ("q4_k", 12, 256, 144), ("q5_k", 13, 256, 176), ("q6_k", 14, 256, 210)]:
    save("gguf", name, gguf([(b"t", [elements, 1], kind, bytes(i * 7 % 256 for i in range(size)))]))


LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 9, "rms_norm_eps": 1e-05, "hidden_act": "silu",
         "tie_word_embeddings": True, "max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
save("config", "llama", json.dumps({**LLAMA, "rope_theta": 10000.0, "rope_scaling": LLAMA3, "attention_bias": True, "mlp_bias": True}))
save("config", "qwen2", json.dumps({**LLAMA, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_sliding_window": True, "sliding_window": 6,
                                    "max_window_layers": 1, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}))
save("config", "mistral", json.dumps({**LLAMA, "architectures": None, "model_type": "mistral", "sliding_window": 4,
                                      "layer_types": ["full_attention", "sliding_attention"]}))
save("config", "cut", json.dumps({**LLAMA, "drop_attn_list": [0], "drop_mlp_list": [False, True]}))
save("config", "skips", json.dumps({**LLAMA, "per_layer_config": {"1": {"skip": ["attention", "mlp"]}}}))


def model_keys(name, heads, groups, neurons):
    number = lambda value: (4, struct.pack("<I", value))
    listed = lambda value: array(4, [struct.pack("<I", v) for v in value]) if isinstance(value, list) else number(value)
    keys = {"embedding_length": number(8), "block_count": number(2), "feed_forward_length": listed(neurons), "attention.head_count": listed(heads),
            "attention.head_count_kv": listed(groups), "attention.layer_norm_rms_epsilon": (6, struct.pack("<f", 1e-5)),
            "rope.freq_base": (6, struct.pack("<f", 1e4)), "rope.scaling.type": (8, text(b"linear")), "rope.scaling.factor": (6, struct.pack("<f", 2))}
    return [(b"general.architecture", 8, text(name.encode()))] + [(f"{name}.{key}".encode(), *value) for key, value in keys.items()]


EMBEDDING = (b"token_embd.weight", [8, 2], 0, b"\x2a" * 64)
UNET = {"_class_name": "UNet2DConditionModel", "in_channels": 3, "out_channels": 3, "sample_size": 8, "block_out_channels": [8, 16],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": [2, 1], "attention_head_dim": [1, 2], "cross_attention_dim": 12, "norm_num_groups": 4}
save("config", "unet", json.dumps(UNET))
save("config", "unet_deep", json.dumps({**UNET, "transformer_layers_per_block": [[1, 2], 1], "reverse_transformer_layers_per_block": [1, [2, 0, 1]],
                                        "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
                                        "projection_class_embeddings_input_dim": 34}))
save("config", "unet_cut", json.dumps({**UNET, "_class_name": "LaminaUNet2DConditionModel", "mid_block_type": "UNetMidBlock2D",
                                       "down_block_types": ["LaminaCrossAttnDownBlock2D", "LaminaDownBlock2D"],
                                       "lamina_removed": ["down_blocks.0.attentions.1", "up_blocks.0.resnets.0"]}))
save("config", "unet_huge", json.dumps({**UNET, "block_out_channels": [8] * 16, "down_block_types": ["CrossAttnDownBlock2D"] * 16,
                                        "up_block_types": ["CrossAttnUpBlock2D"] * 16, "attention_head_dim": 1, "layers_per_block": 64,
                                        "transformer_layers_per_block": 256}))
save("config", "gguf_llama", gguf([EMBEDDING], pairs=model_keys("llama", 2, 1, 6)))
save("config", "gguf_deci", gguf([EMBEDDING], pairs=model_keys("deci", [2, 0], [1, 0], [6, 32])))


def tokenizer(parts, text_to_encode):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    document = {"added_tokens": [{"id": 9, "content": "<s>", "special": True}], "normalizer": None,
                "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
                "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate("abc \u2581\u0120")}, "merges": []}}
    return json.dumps({**document, **parts}, ensure_ascii=False) + "\n\n" + text_to_encode


mark = "\u2581"
save("tokenizer", "byte_level", tokenizer({}, "abc <s> cab"))
save("tokenizer", "split", tokenizer({
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Strip"}]},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"\s+(?!\S)|[^\r\n\p{L}\p{N}]?\p{L}+|\s"}, "behavior": "Isolated"},
        {"type": "Digits", "individual_digits": True}, {"type": "Punctuation"}]},
    "decoder": None}, "Ab 12 a\u0301b"))
save("tokenizer", "metaspace", tokenizer({
    "normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": mark}, {"type": "Replace", "pattern": {"String": " "}, "content": mark}]},
    "pre_tokenizer": {"type": "Metaspace", "replacement": mark, "prepend_scheme": "first", "split": True},
    "post_processor": {"type": "TemplateProcessing",
                       "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
                       "special_tokens": {"<s>": {"id": "<s>", "ids": [9]}}},
    "decoder": {"type": "Sequence", "decoders": [
        {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"vocab": {"<u>": 0, "a": 1, mark: 2, mark + "a": 3, "<0xC3>": 4, "<0xA9>": 5}, "unk_token": "<u>",
              "merges": [[mark, "a"]], "byte_fallback": True, "fuse_unk": True}}, "a a\u00e9 a"))
save("tokenizer", "words", tokenizer({
    "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"<u>": 0, "a": 1, "\u00e9a": 2}, "unk_token": "<u>"}}, "a  <s>\u00e9a\nb a"))

save("chat_template", "loop", "{% for m in messages %}{{ '<' + m['role'] + '>' + m.content | trim }}{% endfor %}"
     "{%- if add_generation_prompt -%}{{ bos_token }}{%- endif %}")
save("chat_template", "macro", "{% macro m(a, b=2) %}{{ a ~ b }}{% endmacro %}{% set ns = namespace(x=1) %}"
     "{% for i in range(3) if i %}{% set ns.x = ns.x + i %}{{ m(i, b=[ns.x][-1:]) }}{% endfor %}")
save("chat_template", "filters", "{{ messages | selectattr('role', 'eq', 'user') | map(attribute='content') | join(',') }}"
     "{{ {'a': [1, 2.5, none]} | tojson(indent=1) }}{{ 'a,b'.split(',')[::-1] }}{{ x is defined and 1 // 2 == 0 }}")
save("chat_template", "blocks", "{# c #}  {%- raw -%} {{ }} {% endraw %}{% filter upper %}a{% endfilter %}"
     "{% set t %}x{% endset %}{% with q=t %}{{ q if t else '' }}{% endwith %}{% generation %}g{% endgeneration %}")


def atlas(model, head=""):
    """As lamina/atlas/schema.md has it, on the smallest pages there are."""
    markdown = (Path(__file__).parents[1] / "lamina" / "atlas" / "schema.md").read_text()
    statements = markdown.split("```sql\n")[1].split("```")[0].strip().split("\n")
    database = sqlite3.connect(":memory:")
    for statement in ["PRAGMA page_size = 512", "PRAGMA application_id = 0x6C41746C", "PRAGMA user_version = 1", *statements]:
        database.execute(statement)
    texts = ["<s>", " dog", "Dog", "cat", "\n", "\u00c9t\u00e9"]
    header = {"model": model, "model_path": model, "model_sha256": "aa", "head_model": "", "head_sha256": head, "lens": "unembed", "norm": "none",
              "lamina": "0.1.0", "width": 4, "neurons": 2, "vocabulary": len(texts), "blocks": 2, "top": 2, "random": 3, "seed": 1,
              "decoded_blocks": "[0,1]", "more": "{}", "tokens_sha256": "bb", "plain_tokens": 4}
    database.executemany("INSERT INTO header VALUES(?, ?)", header.items())
    database.executemany("INSERT INTO tokens VALUES(?, ?, ?, ?)",
                         [(i, text, text.strip().casefold(), int(i in (0, 4))) for i, text in enumerate(texts)])
    sets = [("up", "own"), ("up", "other")] if head else [("up", "own")]
    sets.append(("random", "own"))
    for number, (rows, whose) in enumerate(sets):
        database.execute("INSERT INTO sets VALUES(?, ?, ?)", (number, rows, whose))
        for i in range(3 if rows == "random" else 4):
            block, neuron = (0, i) if rows == "random" else divmod(i, 2)
            database.execute("INSERT INTO neurons VALUES(?, ?, ?, ?, 1, 0, 1, ?, 2, 2)", (number * 4 + i, number, block, neuron, 3 + i / 2))
            database.executemany("INSERT INTO labels VALUES(?, ?, ?, ?, ?, ?)",
                                 [(number * 4 + i, pole, rank, (i + rank + 2 * pole) % 6, (2 - rank) * (1 - 2 * pole), 0.1) for pole in (0, 1)
                                  for rank in (1, 2)])
        database.executemany("INSERT INTO best VALUES(?, ?, ?, 0, 1, 1, -1, 2)", [(number, pole, token) for pole in (0, 1) for token in range(6)])
    database.executemany("INSERT INTO angles VALUES(?, ?, ?, 0.5, NULL, NULL)", [(i, *divmod(i, 2)) for i in range(4)])
    database.commit()
    return database.serialize()


save("atlas", "own", atlas("a"))
save("atlas", "other", atlas("b", "aa"))

save("conll", "tabs", "EU\tB-ORG\nrejects\tO\n\t\nNew York\tB-LOC\r\nCity \tI-LOC\r\n\r\n \tO\n")
save("conll", "spaces", "-DOCSTART- -X- O\n\nPeter NNP I-PER\nBlackburn NNP I-PER\nMary NNP B-PER\n  \n. . O")
save("conll", "iobes", "a S-X\nb B-creative-work\nc I-creative-work\nd E-creative-work\n")
save("conll", "bilou", "a U-X\nb B-Y\nc I-Y\nd L-Y\n")
save("conll", "broken", "a\tI-X\nb\tB-X\nc\tI-Y\nd\tB--X\ne\tI-X-\nf\tE-X\ng\tL-X\n")
save("conll", "scored", "a\tB-X\tB-X\nb\tI-X\tI-X\nc\tO\tB-Y\n\nd\tB-X\tB-X\ne\tB-Y\tI-X\nf\tI-Y\tO\n")
save("conll", "scored_iobes", "S-X B-X\nO E-X\n\nB-Y S-Y\nE-Y S-Y\n")
save("conll", "bytes", b"\xef\xbb\xbfa\xff\tO\n\xe4\xba\xba\tB-\xc3\xa9\n\xef\xbb\xbf\tO\n")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, *more, interlaced=0, end=b""):
    """`rows` as bytes without filter numbers; `more` chunks stand before the pixels, `end` behind them."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows), 9))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + body + end + chunk(b"IEND", b"")


def adam7(width, height, pixel):
    for x0, y0, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
        for y in range(y0, height, dy):
            if x0 < width:
                yield b"".join(pixel(x, y) for x in range(x0, width, dx))


def colours(x, y):
    return bytes([x * 40, y * 50, 7])


RGB = [b"".join(colours(x, y) for x in range(5)) for y in range(3)]
FRAME = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 5, 3, 0, 0, 1, 10, 0, 0))
save("png", "rgb_texts", png(5, 3, 8, 2, RGB, chunk(b"tEXt", b"Title\0caf\xe9"), chunk(b"zTXt", b"Long\0\0" + zlib.compress(b"a" * 50)),
                             end=chunk(b"iTXt", b"Late\0\0\0de\0\0" + "Käse".encode())))
save("png", "palette_trns", png(4, 2, 2, 3, [b"\x1b", b"\xe4"], chunk(b"PLTE", bytes(range(0, 120, 10))), chunk(b"tRNS", b"\0\x80")))
save("png", "grey16", png(2, 1, 16, 0, [struct.pack(">HH", 0x8000, 0xFFFF)]))
save("png", "grey_alpha", png(2, 1, 8, 4, [b"\x10\xff\x20\x00"]))
save("png", "interlaced", png(5, 3, 8, 2, adam7(5, 3, colours), interlaced=1))
save("png", "apng", png(5, 3, 8, 2, RGB, chunk(b"acTL", struct.pack(">II", 2, 0)), FRAME,
                        end=chunk(b"fcTL", struct.pack(">IIIIIHHBB", 1, 5, 3, 0, 0, 1, 10, 0, 0)) +
                        chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(bytes(48)))))

save("pipeline_index", "sd", json.dumps({"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6.0",
                                         "feature_extractor": [None, None], "safety_checker": ["stable_diffusion", "X"],
                                         "unet": ["diffusers", "UNet2DConditionModel"], "requires_safety_checker": False}))
save("pipeline_index", "xl", json.dumps({"force_zeros_for_empty_prompt": True, "add_watermarker": None, "vae": ["diffusers", "AutoencoderKL"]}))
save("pipeline_index", "out", json.dumps({"../unet": ["diffusers", "UNet2DConditionModel"]}))

# vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json and a prompt.
CLIP_WORDS = ["!", "a", "b", "a</w>", "b</w>", "ab</w>", "<|startoftext|>", "<|endoftext|>"]
CLIP_VOCABULARY = json.dumps({word: number for number, word in enumerate(CLIP_WORDS)})
CLIP_END = {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
for name, config, special, prompt in (
        ("plain", {"model_max_length": 7}, None, "AB a\tb! ab ab ab ab"),
        ("padded", {"model_max_length": 9, "pad_token": "!"}, {"eos_token": CLIP_END, "pad_token": "!"}, "a! <|ENDOFTEXT|>b"),
        ("listed", {"model_max_length": 8, "added_tokens_decoder": {"7": {**CLIP_END, "special": True}, "9": {"content": "<x>"}}},
         None, "a<x>b<|endoftext|>")):
    save("clip_tokenizer", name, "\n\n".join([CLIP_VOCABULARY, "#version: 0.2\na b</w>", json.dumps(config),
                                            "" if special is None else json.dumps(special), prompt]))
