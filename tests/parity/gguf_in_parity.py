"""Two ways in, one model: a GGUF that lamina opens, and the folder that transformers makes of the same file by itself.
Every tensor is the same to the bit after dequantization, and so are lamina's logits on both."""

import reference
import torch
from reference import Parity, apply, batch, forward, largest_difference, logits, needs_shared, needs_smollm2, reference_folder
from safetensors import safe_open


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

    @needs_shared
    def test_stories(self):
        folder = reference_folder(reference.STORIES)
        self.same_tensors(reference.STORIES, folder, "attention:0", "model.layers.0.self_attn.o_proj.weight")
        self.same_tensors(reference.STORIES, folder, "mlp:4", "model.layers.4.mlp.down_proj.weight")
        self.same_logits(reference.STORIES, folder, 512, 60, 1e-4)

    @needs_smollm2
    def test_smollm2(self):
        folder = reference_folder(reference.SMOLLM2)
        self.same_tensors(reference.SMOLLM2, folder, "attention:0", "model.layers.0.self_attn.o_proj.weight")
        # Its large activations leave either side's float32 at 1e-4 of its own float64.
        self.same_logits(reference.SMOLLM2, folder, 49152, 16, 5e-4)


if __name__ == "__main__":
    reference.main()
