"""The same function as transformers: logits of small random models of every kind, in float64 to 1e-9 and in float32 to
1e-4 of the largest logit. A failure names the first part whose output differs."""

import reference
import torch
from reference import (Parity, batch, edit_config, forward, largest_difference, load_file, logits, save_file, save_small,
                       seen_by_parts, small)

LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}


def old_rope(spelling):
    """rope_theta and rope_scaling at the top, as files were written before transformers 5."""

    def change(config):
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        rope[spelling] = rope.pop("rope_type")
        config["rope_scaling"] = None if rope[spelling] == "default" else rope

    return change


def without(*keys):
    def change(config):
        for key in keys:
            del config[key]

    return change


# name: the family, what differs from the plain small model, and what is done to the config.json that was written
MODELS = {
    "plain": ("llama", {"num_key_value_heads": 6}, None),
    "grouped heads, tied": ("llama", {"tie_word_embeddings": True}, None),
    "one group, biases": ("llama", {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}, None),
    "wide heads": ("llama", {"head_dim": 20, "attention_bias": True}, None),
    "llama3 rope": ("llama", {"rope_parameters": LLAMA3, "head_dim": 16}, None),
    "llama3 rope, old fields": ("llama", {"rope_parameters": LLAMA3, "head_dim": 16}, old_rope("rope_type")),
    "linear rope": ("llama", {"rope_parameters": LINEAR}, None),
    "linear rope, old fields": ("llama", {"rope_parameters": LINEAR}, old_rope("type")),
    "plain rope, old fields": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 333.0}},
                               old_rope("type")),
    "no rope fields, no head_dim": ("llama", {}, without("rope_parameters", "head_dim", "mlp_bias")),
    "mistral, window": ("mistral", {"sliding_window": 5}, None),
    "mistral, no window": ("mistral", {"sliding_window": None, "head_dim": 10}, None),
    "qwen2": ("qwen2", {"num_key_value_heads": 2}, None),
    "qwen2, windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2,
                                 "tie_word_embeddings": True}, None),
    "qwen2, windows, old fields": ("qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
                                   without("layer_types")),
    "qwen2, windows here and there": ("qwen2", {
        "use_sliding_window": True, "sliding_window": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]}, None),
}


class Forward(Parity):
    def differs_at(self, folder, ids, mask):
        ours, theirs = forward(folder, ids, mask, tap="all,end"), seen_by_parts(folder, ids, mask)
        for name, tensor in theirs.items():
            if name not in ours:
                return f"lamina has no {name}"
            if largest_difference(ours[name], tensor, mask) > 1e-9:
                return f"the first difference is in {name}: {largest_difference(ours[name], tensor, mask):.3g}"
        return "no part differs by more than 1e-9 when tapped"

    def test_small_models(self):
        ids, mask = batch()
        for number, (name, (family, changes, change)) in enumerate(MODELS.items()):
            with self.subTest(model=name):
                # Every third in shards, some of which hold a single tensor.
                folder = save_small(small(family, number, **changes), self.folder / str(number),
                                    "40KB" if number % 3 == 0 else "1GB")
                if change:
                    edit_config(folder, change)
                ours = forward(folder, ids, mask)["logits"]
                difference = largest_difference(ours, logits(folder, ids, mask), mask)
                if difference > 1e-9:
                    self.fail(self.differs_at(folder, ids, mask))
                self.within("float64 logits", difference, 1e-9)
                if number % 2:
                    continue
                # Without a mask, as attention then takes another way.
                theirs = logits(folder, ids, dtype=torch.float32)
                ours = forward(folder, ids, dtype="float32")["logits"]
                scale = theirs.abs().max().item()
                self.within("float32 logits, relative", largest_difference(ours, theirs) / scale, 1e-4)

    def test_narrow_weights(self):
        """Weights of 16 bits, widened: exact in either program."""
        ids, mask = batch()
        for dtype in (torch.bfloat16, torch.float16):
            folder = save_small(small("llama").to(dtype), self.folder / str(dtype))
            difference = largest_difference(forward(folder, ids, mask)["logits"], logits(folder, ids, mask), mask)
            self.within("float64 logits of 16-bit weights", difference, 1e-9)

    def test_taps_are_what_the_parts_saw(self):
        ids, mask = batch()
        for family in ("llama", "mistral", "qwen2"):
            with self.subTest(family=family):
                folder = save_small(small(family), self.folder / family)
                ours, theirs = forward(folder, ids, mask, tap="all,end"), seen_by_parts(folder, ids, mask)
                self.assertEqual(set(ours), set(theirs))
                for name in theirs:
                    self.within("float64 taps", largest_difference(ours[name], theirs[name], mask), 1e-9)

    def test_defaults(self):
        """What a config.json leaves out means the same to both."""
        ids, mask = batch()
        spare = {"tie_word_embeddings", "rms_norm_eps", "num_key_value_heads", "hidden_act", "rope_parameters", "head_dim",
                 "max_position_embeddings", "attention_bias", "mlp_bias", "architectures", "layer_types"}
        for family, groups in {"llama": 8, "mistral": 8, "qwen2": 32}.items():
            with self.subTest(family=family):
                shape = {"hidden_size": 64, "num_attention_heads": groups, "num_key_value_heads": groups}
                folder = save_small(small(family, rms_norm_eps=1e-6, **shape), self.folder / family)
                edit_config(folder, lambda config: [config.pop(key) for key in spare & set(config)])
                difference = largest_difference(forward(folder, ids, mask)["logits"], logits(folder, ids, mask), mask)
                self.within("float64 logits, defaults", difference, 1e-9)

    def test_a_tied_head_that_is_stored(self):
        """The same as the embedding: no matter. Another: transformers unties it with a warning, and lamina refuses."""
        ids, mask = batch()
        folder = save_small(small("llama", tie_word_embeddings=True), self.folder / "model")
        tensors = load_file(folder / "model.safetensors")
        for head in (tensors["model.embed_tokens.weight"], tensors["model.embed_tokens.weight"] + 1):
            save_file({**tensors, "lm_head.weight": head.clone()}, folder / "model.safetensors", {"format": "pt"})
            if torch.equal(head, tensors["model.embed_tokens.weight"]):
                difference = largest_difference(forward(folder, ids, mask)["logits"], logits(folder, ids, mask), mask)
                self.within("float64 logits, tied head stored", difference, 1e-9)
            else:
                with self.assertRaisesRegex(AssertionError, "tie_word_embeddings"):
                    forward(folder, ids, mask)

    def test_the_bound_has_teeth(self):
        """A window or an epsilon that is off by the least it can be is far outside 1e-9."""
        ids, mask = batch()
        folder = save_small(small("mistral", sliding_window=5), self.folder / "model")
        theirs = logits(folder, ids, mask)
        for key, value in [("sliding_window", 6), ("rms_norm_eps", 1.001e-5), ("rope_theta", 10001.0)]:
            with self.subTest(key=key):
                edit_config(folder, lambda c: (c["rope_parameters"] if key == "rope_theta" else c).update({key: value}))
                self.assertGreater(largest_difference(forward(folder, ids, mask)["logits"], theirs, mask), 1e-8)


if __name__ == "__main__":
    reference.main()
