"""A part that is cut: transformers with the part's last projection silenced by a hook, as FinerCut's authors do it, says
the same as `lamina forward --skip` and as every folder that `lamina apply` writes, which transformers opens with
nothing missing and nothing left over."""

import json

import reference
import torch
from reference import (Parity, apply, batch, edit_config, forward, largest_difference, logits, needs_shared,
                       open_reference, reference_folder, save_small, small)

WINDOWS = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
MODELS = {
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", {"sliding_window": 5}),
    "qwen2, windows": ("qwen2", {**WINDOWS, "tie_word_embeddings": True}),
}
HALVES = {
    "attention:1": [(1, "attention")],
    "mlp:3": [(3, "mlp")],
    "attention:0,mlp:0-1,2": [(0, "attention"), (0, "mlp"), (1, "mlp"), (2, "attention"), (2, "mlp")],
    "attention:0-3": [(block, "attention") for block in range(4)],
}
BLOCKS = {"0": [0], "3": [3], "1-2": [1, 2]}


class Cut(Parity):
    def same(self, what, ours, theirs, mask):
        self.within(what, largest_difference(ours, theirs, mask), 1e-9)

    def test_parts_of_blocks(self):
        ids, mask = batch()
        for family, (name, (kind, changes)) in enumerate(MODELS.items()):
            folder = save_small(small(kind, family, **changes), self.folder / str(family), "60KB" if family else "1GB")
            for drop, sites in list(HALVES.items())[family:]:
                with self.subTest(model=name, drop=drop):
                    theirs = logits(folder, ids, mask, without=sites)
                    self.same("--skip", forward(folder, ids, mask, skip=drop)["logits"], theirs, mask)
                    out = apply(folder, drop, self.folder / "out", "hf-zeroed,hf-perlayer", "--force")
                    self.same("hf-zeroed in transformers", logits(out / "hf-zeroed", ids, mask), theirs, mask)
                    if drop == "attention:0,mlp:0-1,2":
                        self.same("hf-zeroed in lamina", forward(out / "hf-zeroed", ids, mask)["logits"], theirs, mask)
                    self.same("hf-perlayer in lamina", forward(out / "hf-perlayer", ids, mask)["logits"], theirs, mask)

    def test_whole_blocks(self):
        ids, mask = batch()
        for family, (name, (kind, changes)) in enumerate(MODELS.items()):
            # A block a shard: shards lose tensors, and some go altogether.
            folder = save_small(small(kind, family, **changes), self.folder / str(family), "60KB")
            for drop, blocks in BLOCKS.items():
                with self.subTest(model=name, drop=drop):
                    sites = [(block, part) for block in blocks for part in ("attention", "mlp")]
                    theirs = logits(folder, ids, mask, without=sites)
                    out = apply(folder, drop, self.folder / "out", "hf-compact", "--force")
                    self.same("hf-compact in transformers", logits(out, ids, mask), theirs, mask)
                    self.same("hf-compact in lamina", forward(out, ids, mask)["logits"], theirs, mask)
                    self.assertEqual(json.loads((out / "config.json").read_text())["num_hidden_layers"], 4 - len(blocks))

    def test_windows_of_old_files_go_with_their_blocks(self):
        """Without layer_types, max_window_layers says where windows begin, and a cut in front of it moves it."""
        ids, mask = batch()
        folder = save_small(small("qwen2", 5, **WINDOWS), self.folder / "model")
        edit_config(folder, lambda config: config.pop("layer_types"))
        for block in (0, 2):
            theirs = logits(folder, ids, mask, without=[(block, "attention"), (block, "mlp")])
            out = apply(folder, str(block), self.folder / "out", "hf-compact", "--force")
            self.same("max_window_layers", logits(out, ids, mask), theirs, mask)

    def test_another_type_is_what_the_config_says(self):
        """`--dtype` changes the weights and what a reader that asks the config for their type is told."""
        folder = save_small(small("llama"), self.folder / "model")
        for name in ("float32", "bfloat16"):
            out = apply(folder, "1", self.folder / name, "hf-compact", "--dtype", name)
            self.assertEqual(open_reference(out, "auto").dtype, getattr(torch, name))
            weight = reference.load_file(out / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
            was = reference.load_file(folder / "model.safetensors")["model.layers.2.mlp.up_proj.weight"]
            self.assertTrue(torch.equal(weight, was.to(getattr(torch, name))))


@needs_shared
class CutOfARealModel(Parity):
    def test_stories(self):
        ids, mask = batch(512)
        folder = reference_folder(reference.STORIES)
        for drop, sites in {"attention:3,mlp:1": [(3, "attention"), (1, "mlp")], "2": [(2, "attention"), (2, "mlp")]}.items():
            theirs = logits(folder, ids, mask, without=sites)
            out = apply(reference.STORIES, drop, self.folder / "out", "hf-zeroed", "--force")
            self.within("stories260K, hf-zeroed in transformers", largest_difference(logits(out, ids, mask), theirs, mask), 1e-9)
            ours = forward(reference.STORIES, ids, mask, skip=drop)["logits"]
            self.within("stories260K, --skip", largest_difference(ours, theirs, mask), 1e-9)


if __name__ == "__main__":
    reference.main()
