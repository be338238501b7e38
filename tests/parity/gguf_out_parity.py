"""GGUFs as lamina writes them, read by the `gguf` package: metadata, names, shapes, sizes, every value against the
package's own arithmetic, the interleaved rows of q and k, and the feed-forward of zeros that stands where an MLP alone
was cut. transformers opens the plain ones and says the same as it does on the folder."""

import math
import os

import gguf
import numpy
import reference
import torch
from gguf import GGMLQuantizationType, LlamaFileType
from reference import (Parity, apply, batch, edit_config, forward, largest_difference, load_file, logits, needs_shared,
                       open_reference, read_gguf, reference_from_gguf, save_small, small)
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

TYPES = {"f32": GGMLQuantizationType.F32, "f16": GGMLQuantizationType.F16, "q8_0": GGMLQuantizationType.Q8_0}
FILE_TYPES = {"f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
STAND_IN = 32  # neurons
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 300}
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
ENDS = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight"}


def add_tokenizer(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(["the layer that matters least is the one you would not miss " * 3],
                                  trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False))
    tokenizer.save(str(folder / "tokenizer.json"))


def interleaved(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    """llama.cpp's converter: the halves of a head that rotate together become neighbours."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def rope_divisors(config) -> numpy.ndarray:
    """llama.cpp's converter, for Llama 3.1's scaling: one factor a frequency."""
    rope = config.rope_parameters
    low, high, context = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    factors = []
    for at in range(0, config.head_dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (at / config.head_dim)
        if wavelength < context / high:
            factors.append(1)
        elif wavelength > context / low:
            factors.append(rope["factor"])
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return numpy.array(factors, numpy.float32)


def expected_tensors(folder, gone) -> dict:
    """Name in the GGUF: float32 values, of a folder without the parts (old block, kind) that are gone."""
    config = open_reference(folder, "auto").config
    kept = [b for b in range(config.num_hidden_layers) if not {(b, "attention"), (b, "mlp")} <= set(gone)]
    tensors = {}
    if config.rope_parameters["rope_type"] == "llama3":
        tensors["rope_freqs.weight"] = rope_divisors(config)
    for name, tensor in load_file(folder / "model.safetensors").items():
        value = tensor.float().numpy()
        if name in ENDS:
            tensors[ENDS[name]] = value
            continue
        _, _, block, rest = name.split(".", 3)
        part, kind = rest.rsplit(".", 1)
        of_attention = part in ("input_layernorm",) or part.startswith("self_attn")
        if (int(block), "attention" if of_attention else "mlp") in gone:
            continue
        if part.endswith("q_proj"):
            value = interleaved(value, config.num_attention_heads)
        if part.endswith("k_proj"):
            value = interleaved(value, config.num_key_value_heads)
        tensors[f"blk.{kept.index(int(block))}.{NAMES[part]}.{kind}"] = value
    for block in kept:
        if (block, "mlp") in gone:
            at, width = f"blk.{kept.index(block)}", config.hidden_size
            tensors |= {f"{at}.ffn_norm.weight": numpy.zeros(width, numpy.float32),
                        f"{at}.ffn_gate.weight": numpy.zeros((STAND_IN, width), numpy.float32),
                        f"{at}.ffn_up.weight": numpy.zeros((STAND_IN, width), numpy.float32),
                        f"{at}.ffn_down.weight": numpy.zeros((width, STAND_IN), numpy.float32)}
    return tensors


class Written(Parity):
    def metadata(self, reader) -> dict:
        return {key: field.contents() for key, field in reader.fields.items()}

    def check(self, path, folder, wanted, gone=(), architecture="llama"):
        reader = read_gguf(path)
        data = self.metadata(reader)
        config = open_reference(folder, "auto").config
        blocks = config.num_hidden_layers - sum({(b, "attention"), (b, "mlp")} <= set(gone)
                                                for b in range(config.num_hidden_layers))
        self.assertEqual(data["general.architecture"], architecture)
        self.assertEqual(data["general.file_type"], FILE_TYPES[wanted])
        self.assertEqual(data[f"{architecture}.block_count"], blocks)
        self.assertEqual(data[f"{architecture}.embedding_length"], config.hidden_size)
        self.assertEqual(data[f"{architecture}.rope.dimension_count"], config.head_dim)
        # Only keys for this architecture or for all, and those of our own.
        self.assertEqual({key for key in data if key.split(".")[0] not in ("GGUF", "general", "tokenizer", "lamina", architecture)}, set())

        expected = expected_tensors(folder, gone)
        self.assertEqual({tensor.name for tensor in reader.tensors}, set(expected))
        end = reader.data_offset
        for tensor in reader.tensors:
            value, name = expected[tensor.name], f"{path.name}: {tensor.name}"
            kind = TYPES[wanted] if value.ndim > 1 else GGMLQuantizationType.F32
            if kind == GGMLQuantizationType.Q8_0 and value.shape[-1] % 32:
                kind = GGMLQuantizationType.F16
            self.assertEqual(tensor.tensor_type, kind, name)
            self.assertEqual(tuple(reversed(tensor.shape.tolist())), value.shape, name)
            block, size = gguf.GGML_QUANT_SIZES[kind]
            self.assertEqual(tensor.n_bytes, value.size // block * size, name)
            self.assertEqual(tensor.data_offset % reader.alignment, 0, name)
            end = max(end, tensor.data_offset + tensor.n_bytes)
            packed = gguf.quantize(value, kind)
            if tensor.name == "rope_freqs.weight":  # computed, so rounded either way
                self.assertTrue(numpy.allclose(tensor.data, value, rtol=1e-6, atol=0), name)
                continue
            self.assertEqual(tensor.data.tobytes(), packed.tobytes(), name)
            self.assertTrue(numpy.array_equal(gguf.dequantize(tensor.data, kind), gguf.dequantize(packed, kind)), name)
        self.assertEqual(os.path.getsize(path), -(-end // reader.alignment) * reader.alignment)
        return data

    def source(self, name="model", **changes):
        folder = save_small(small("llama", **{**SIZES, **changes}).float(), self.folder / name)
        add_tokenizer(folder)
        return folder

    def test_whole_blocks(self):
        ids, mask = batch(300)
        shapes = {"plain": {}, "tied, wide heads": {"tie_word_embeddings": True, "head_dim": 16},
                  "biases": {"attention_bias": True, "mlp_bias": True}, "narrow": {"intermediate_size": 88},
                  "llama3": {"rope_parameters": LLAMA3, "head_dim": 16}, "linear": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0}}}
        for name, changes in shapes.items():
            with self.subTest(model=name):
                folder = self.source(name, **changes)
                out = apply(folder, "1", self.folder / f"{name} out", "hf-compact,gguf:f32,gguf:f16,gguf:q8_0")
                files = {"f32": "model-float32.gguf", "f16": "model-float16.gguf", "q8_0": "model-q8_0.gguf"}
                for wanted, file in files.items():
                    data = self.check(out / file, folder, wanted, [(1, "attention"), (1, "mlp")])
                    self.assertEqual((data["llama.attention.head_count"], data["llama.attention.head_count_kv"]), (8, 2))
                theirs = logits(out, ids, mask, torch.float32)
                scale = theirs[mask.bool()].abs().max().item()
                ours = forward(out / files["f32"], ids, mask, dtype="float32")["logits"]
                self.within("lamina on gguf:f32, relative", largest_difference(ours, theirs, mask) / scale, 1e-4)
                if name not in ("biases", "linear", "llama3"):  # transformers reads none of these off a GGUF
                    again = reference_from_gguf(out / files["f32"])(ids, attention_mask=mask).logits
                    self.within("transformers on gguf:f32, relative", largest_difference(again, theirs, mask) / scale, 1e-5)

    def test_parts_of_blocks(self):
        ids, mask = batch(300)
        gone = [(0, "attention"), (1, "mlp"), (2, "attention"), (2, "mlp")]
        for name, changes in {"tied": {"tie_word_embeddings": True, "head_dim": 16}, "llama3": {"rope_parameters": LLAMA3}}.items():
            with self.subTest(model=name):
                folder = self.source(name, **changes)
                out = apply(folder, "attention:0,mlp:1,2", self.folder / f"{name} out", "gguf:f32,gguf:f16,gguf:q8_0")
                for wanted, file in {"f32": "float32", "f16": "float16", "q8_0": "q8_0"}.items():
                    data = self.check(out / f"model-{file}.gguf", folder, wanted, gone, "deci")
                    for key, values in {"attention.head_count": [0, 8, 8], "attention.head_count_kv": [0, 2, 2],
                                        "feed_forward_length": [96, STAND_IN, 96]}.items():
                        self.assertEqual(data[f"deci.{key}"], values)
                theirs = logits(folder, ids, mask, torch.float32, without=gone)
                ours = forward(out / "model-float32.gguf", ids, mask, dtype="float32")["logits"]
                scale = theirs[mask.bool()].abs().max().item()
                self.within("lamina on a deci file, relative", largest_difference(ours, theirs, mask) / scale, 1e-4)

    def test_tokenizer_metadata(self):
        folder = self.source()
        reader = read_gguf(apply(folder, "0", self.folder / "out", "gguf:f16") / "model-float16.gguf")
        data, tokenizer = self.metadata(reader), Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.assertEqual((data["tokenizer.ggml.model"], data["tokenizer.ggml.pre"]), ("gpt2", "gpt-2"))
        self.assertEqual(len(data["tokenizer.ggml.tokens"]), 300)  # as many as the embedding has rows
        for id in range(tokenizer.get_vocab_size()):
            self.assertEqual(data["tokenizer.ggml.tokens"][id], tokenizer.id_to_token(id))

    @needs_shared
    def test_stories(self):
        """From a GGUF to a GGUF: what is not the model's shape is carried over, values bit for bit."""
        ids, mask = batch(512)
        out = apply(reference.STORIES, "2", self.folder / "out", "hf-compact,gguf")
        before, after = read_gguf(reference.STORIES), read_gguf(out / "model.gguf")
        was, now = self.metadata(before), self.metadata(after)
        self.assertEqual(now["llama.block_count"], 4)
        for key in was:
            if key.startswith("tokenizer."):
                self.assertEqual(was[key], now[key], key)
        old = {tensor.name: tensor for tensor in before.tensors}
        for tensor in after.tensors:
            name = tensor.name
            if name.startswith("blk."):
                block = int(name.split(".")[1])
                name = name.replace(f"blk.{block}.", f"blk.{block + (block >= 2)}.")
            self.assertEqual(tensor.data.tobytes(), old[name].data.tobytes(), name)
        theirs = logits(out, ids, mask, torch.float32)
        again = reference_from_gguf(out / "model.gguf")(ids, attention_mask=mask).logits
        self.within("stories260K, transformers on the GGUF", largest_difference(again, theirs, mask), 1e-5)


if __name__ == "__main__":
    reference.main()
