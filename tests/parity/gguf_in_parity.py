"""Two ways in, one model: a GGUF that lamina opens, and the folder that transformers makes of the same file by itself.
Every tensor is the same to the bit after dequantization, and so are lamina's logits on both."""

import gguf
import numpy
import reference
import torch
from gguf import GGMLQuantizationType as Type
from reference import (Parity, apply, batch, forward, largest_difference, load_file, logits, needs_shared, needs_smollm2,
                       reference_folder, slow)
from safetensors import safe_open

# Where the half-precision scales of a block lie.
SCALES = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q2_K: [80, 82],
          Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208]}
PLAIN = {Type.F32: numpy.float32, Type.F16: numpy.float16, Type.BF16: None}


def noise(kind, rows, columns, random) -> numpy.ndarray:
    """A matrix of the type whose bytes are random, its scales finite."""
    if kind in PLAIN:
        return gguf.quantize(random.standard_normal((rows, columns)).astype(numpy.float32), kind)
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (rows * columns // elements, size), numpy.uint8)
    for at in SCALES[kind]:
        blocks[:, at : at + 2] = random.standard_normal((len(blocks), 1)).astype(numpy.float16).view(numpy.uint8)
    return blocks.reshape(rows, -1)


class WaysIn(Parity):
    def same_tensors(self, path, folder, drop, silenced):
        """Of all tensors but the one that the cut silences, as lamina writes nothing without a cut."""
        out = apply(path, drop, self.folder / "out", "hf-zeroed", "--dtype", "float32", "--force")
        with safe_open(out / "model.safetensors", "pt") as ours, safe_open(folder / "model.safetensors", "pt") as theirs:
            self.assertEqual(set(ours.keys()), set(theirs.keys()))
            for name in theirs.keys():
                tensor, other = ours.get_tensor(name), theirs.get_tensor(name)
                self.assertEqual((tensor.dtype, tensor.shape), (other.dtype, other.shape), name)
                if name == silenced:
                    self.assertEqual(tensor.count_nonzero(), 0, name)
                else:
                    # As integers: 0.0 and -0.0 are different bits.
                    self.assertTrue(torch.equal(tensor.view(torch.int32), other.view(torch.int32)), name)

    def same_logits(self, path, folder, vocabulary, tokens, bound):
        ids, mask = batch(vocabulary, tokens)
        wide = forward(path, ids, mask)["logits"]
        self.within(f"{path.stem}, float64 logits", largest_difference(wide, logits(folder, ids, mask), mask), 1e-9)
        ours, theirs = forward(path, ids, mask, dtype="float32")["logits"], logits(folder, ids, mask, torch.float32)
        self.assertTrue(torch.equal(ours, forward(folder, ids, mask, dtype="float32")["logits"]), path)
        scale = theirs[mask.bool()].abs().max().item()
        self.within(f"{path.stem}, float32 logits, relative", largest_difference(ours, theirs, mask) / scale, bound)

    def test_every_type(self):
        """Each type of tensor, in a block of its own, decodes to what the gguf package makes of it, to the bit."""
        random, width, heads = numpy.random.default_rng(14), 256, 4
        kinds = [*SCALES, *PLAIN]
        writer = gguf.GGUFWriter(self.folder / "types.gguf", "llama")
        writer.add_block_count(len(kinds))
        writer.add_context_length(64)
        writer.add_embedding_length(width)
        writer.add_feed_forward_length(width)
        writer.add_head_count(heads)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_tensor("token_embd.weight", numpy.ones((64, width), numpy.float32))
        writer.add_tensor("output_norm.weight", numpy.ones(width, numpy.float32))
        expected = {}
        names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
                 "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
                 "ffn_down": "mlp.down_proj"}
        for block, kind in enumerate(kinds):
            for name in ("attn_norm", "ffn_norm"):
                writer.add_tensor(f"blk.{block}.{name}.weight", numpy.ones(width, numpy.float32))
            for name, published in names.items():
                data = noise(kind, width, width, random)
                writer.add_tensor(f"blk.{block}.{name}.weight", data, raw_dtype=kind)
                value = gguf.dequantize(data, kind)
                if name in ("attn_q", "attn_k"):  # neighbours that rotate together, back to halves
                    value = value.reshape(heads, width // heads // 2, 2, width).swapaxes(1, 2).reshape(value.shape)
                expected[f"model.layers.{block}.{published}.weight"] = (kind.name, value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        # Two cuts, so that what one silences the other shows.
        seen = {}
        for drop in ("attention:0", "mlp:0"):
            out = apply(self.folder / "types.gguf", drop, self.folder / "out", "hf-zeroed", "--dtype", "float32", "--force")
            seen |= {name: tensor for name, tensor in load_file(out / "model.safetensors").items()
                     if tensor.count_nonzero() > 0}
        for name, (kind, value) in expected.items():
            self.assertTrue(numpy.array_equal(seen[name].numpy().view(numpy.int32), value.view(numpy.int32)), f"{kind}: {name}")

    @needs_shared
    def test_stories(self):
        folder = reference_folder(reference.STORIES)
        self.same_tensors(reference.STORIES, folder, "attention:0", "model.layers.0.self_attn.o_proj.weight")
        self.same_tensors(reference.STORIES, folder, "mlp:4", "model.layers.4.mlp.down_proj.weight")
        self.same_logits(reference.STORIES, folder, 512, 60, 1e-4)

    @needs_smollm2
    def test_smollm2(self):
        folder = reference_folder(reference.SMOLLM2)
        # Its large activations leave either side's float32 at 1e-4 of its own float64.
        self.same_logits(reference.SMOLLM2, folder, 49152, 16, 5e-4)

    @slow
    @needs_smollm2
    def test_tensors_of_smollm2(self):
        folder = reference_folder(reference.SMOLLM2)
        self.same_tensors(reference.SMOLLM2, folder, "attention:0", "model.layers.0.self_attn.o_proj.weight")
        self.same_tensors(reference.SMOLLM2, folder, "mlp:29", "model.layers.29.mlp.down_proj.weight")


if __name__ == "__main__":
    reference.main()
