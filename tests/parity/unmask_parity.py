"""Token classifiers whose blocks look right by plan, as transformers has them when each layer is given its own mask: the
logits of all sixteen plans of four groups, in float64 to 1e-9, with padding. Without a plan the stock class needs no patch."""

import contextlib
import itertools

import reference
import torch
import transformers
from reference import (Parity, batch, edit_config, float64_reference, forward, largest_difference, load_file, save_file,
                       save_small)

LABELS = ["O", "B-person", "I-person", "B-place", "I-place"]
PLANS = ["".join(bits) for bits in itertools.product("01", repeat=4)]
WINDOW = 5

# name: what differs from the plain small model
MODELS = {
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": WINDOW},
    "qwen2": {"num_key_value_heads": 3},
    "gpt2": {},
}
NAMES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "gpt2": "GPT2"}


def small(kind, seed=0, labels=LABELS, **changes):
    """A token classifier of random weights large enough that a slip anywhere moves the logits."""
    if kind == "gpt2":
        sizes = {"n_embd": 48, "n_inner": 56, "n_layer": 4, "n_head": 6, "n_positions": 40, "vocab_size": 97,
                 "bos_token_id": 0, "eos_token_id": 0}
    else:
        sizes = {"hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 4, "num_attention_heads": 6,
                 "vocab_size": 97, "max_position_embeddings": 128, "rms_norm_eps": 1e-5}
    if labels is not None:
        sizes |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    config = getattr(transformers, NAMES[kind] + "Config")(**{**sizes, **MODELS[kind], **changes})
    torch.manual_seed(seed)
    net = getattr(transformers, NAMES[kind] + "ForTokenClassification")(config).double()
    for name, weight in net.named_parameters():
        scale = 1.5 / weight.shape[0 if ".h." in name else -1] ** 0.5 if weight.dim() > 1 else 0.3
        gain = ("norm" in name or "ln_" in name) and name.endswith("weight")
        weight.copy_(torch.randn_like(weight) * scale + (1 if gain else 0))
    return net


def unmasked(plan):
    return [block for block, bit in enumerate(plan) if bit == "1"]


def write_plan(folder, plan):
    edit_config(folder, lambda config: config.update(lamina_unmasked=unmasked(plan)))


def open_classifier(folder, dtype=torch.float64):
    # Eager attention adds whatever mask it is given. It rounds the softmax to float32, which means float64 here.
    model, info = transformers.AutoModelForTokenClassification.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", output_loading_info=True)
    left = {key: value for key, value in info.items() if value}
    if left:
        raise AssertionError(f"{folder}: transformers does not take it as it is: {left}")
    if dtype == torch.float64 and hasattr(model, "model"):
        with float64_reference():
            model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return model.eval()


def layers_of(model):
    """Each block's attention."""
    return [block.attn for block in model.transformer.h] if hasattr(model, "transformer") else \
        [layer.self_attn for layer in model.model.layers]


def sight(mask, window, both_sides, dtype):
    """Additive [batch, 1, tokens, tokens]: 0 where a token may look."""
    tokens = mask.shape[1]
    query, key = torch.arange(tokens)[:, None], torch.arange(tokens)[None]
    seen = torch.ones(tokens, tokens, dtype=torch.bool) if both_sides else key <= query
    if window:
        seen = seen & ((query - key).abs() < window)
    seen = seen[None, None] & mask.bool()[:, None, None]
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)


def patched_logits(model, ids, mask, plan, window=0):
    """Each layer's attention is given its mask in place of the one that transformers made."""
    dtype, handles = model.dtype, []
    for attention, bit in zip(layers_of(model), plan, strict=True):
        own = sight(mask, window, bit == "1", dtype)

        def give(module, positional, named, own=own):
            assert "attention_mask" in named, "transformers hands the mask over in another way"
            return positional, {**named, "attention_mask": own}

        handles.append(attention.register_forward_pre_hook(give, with_kwargs=True))
    try:
        with float64_reference() if dtype == torch.float64 else contextlib.nullcontext():
            return model(ids, attention_mask=mask).logits
    finally:
        for handle in handles:
            handle.remove()


class Unmask(Parity):
    def test_every_plan(self):
        ids, mask = batch()
        for number, kind in enumerate(MODELS):
            folder = save_small(small(kind, number), self.folder / kind)
            model, window = open_classifier(folder), MODELS[kind].get("sliding_window", 0)
            for plan in PLANS:
                with self.subTest(model=kind, plan=plan):
                    write_plan(folder, plan)
                    theirs = patched_logits(model, ids, mask, plan, window)
                    ours = forward(folder, ids, mask)["logits"]
                    self.assertEqual(ours.shape, (*ids.shape, len(LABELS)))
                    self.within(f"float64 logits of {kind}", largest_difference(ours, theirs, mask), 1e-9)

    def test_without_padding(self):
        """Attention then takes other ways."""
        ids, _ = batch()
        for number, kind in enumerate(MODELS):
            folder = save_small(small(kind, number), self.folder / kind)
            model, window = open_classifier(folder), MODELS[kind].get("sliding_window", 0)
            single = open_classifier(folder, torch.float32)
            for plan in ("0000", "0110", "1111"):
                with self.subTest(model=kind, plan=plan):
                    write_plan(folder, plan)
                    theirs = patched_logits(model, ids, torch.ones_like(ids), plan, window)
                    ours = forward(folder, ids)["logits"]
                    self.within("float64 logits, no padding", largest_difference(ours, theirs), 1e-9)
                    theirs = patched_logits(single, ids, torch.ones_like(ids), plan, window)
                    ours = forward(folder, ids, dtype="float32")["logits"]
                    self.within("float32 logits, relative", largest_difference(ours, theirs) / theirs.abs().max().item(), 1e-4)

    def test_the_stock_class_is_the_plan_without_ones(self):
        ids, mask = batch()
        for number, kind in enumerate(MODELS):
            with self.subTest(model=kind):
                folder = save_small(small(kind, number), self.folder / kind)
                model = open_classifier(folder)
                with float64_reference():
                    theirs = model(ids, attention_mask=mask).logits
                for listed in (False, True):
                    if listed:
                        write_plan(folder, "0000")
                    ours = forward(folder, ids, mask)["logits"]
                    self.within("float64 logits of the stock class", largest_difference(ours, theirs, mask), 1e-9)

    def test_an_embedding_tied_to_a_head_that_is_gone(self):
        ids, mask = batch()
        folder = save_small(small("llama", 4, tie_word_embeddings=True), self.folder / "model")
        write_plan(folder, "0011")
        theirs = patched_logits(open_classifier(folder), ids, mask, "0011")
        self.within("float64 logits, tied", largest_difference(forward(folder, ids, mask)["logits"], theirs, mask), 1e-9)

    def test_narrow_weights(self):
        ids, mask = batch()
        folder = save_small(small("llama").to(torch.bfloat16), self.folder / "model")
        write_plan(folder, "0101")
        theirs = patched_logits(open_classifier(folder), ids, mask, "0101")
        self.within("float64 logits of 16-bit weights", largest_difference(forward(folder, ids, mask)["logits"], theirs, mask), 1e-9)

    def test_the_bound_has_teeth(self):
        """One block more or less, or a window that is off by one, is far outside 1e-9."""
        ids, mask = batch()
        for number, kind in enumerate(MODELS):
            folder = save_small(small(kind, number), self.folder / kind)
            model, window = open_classifier(folder), MODELS[kind].get("sliding_window", 0)
            write_plan(folder, "0101")
            ours = forward(folder, ids, mask)["logits"]
            wrong = {plan: (plan, window) for plan in ("1101", "0001", "0111", "0100")}
            if window:
                wrong |= {"a wider window": ("0101", window + 1), "no window": ("0101", 0)}
            for name, (plan, width) in wrong.items():
                with self.subTest(model=kind, wrong=name):
                    theirs = patched_logits(model, ids, mask, plan, width)
                    self.assertGreater(largest_difference(ours, theirs, mask), 1e-4)

    def test_what_is_refused(self):
        ids, _ = batch()
        folder = save_small(small("llama"), self.folder / "model")
        for blocks in ([4], [-1], "0011", [0.5], [True]):
            with self.subTest(blocks=blocks):
                edit_config(folder, lambda config: config.update(lamina_unmasked=blocks))
                with self.assertRaisesRegex(AssertionError, "lamina_unmasked"):
                    forward(folder, ids)
        # Two labels are transformers' default, which it leaves out of the config; here classes have names.
        cases = {"id2label": small("gpt2", labels=None), "score.bias is missing": small("llama", token_classification_bias=False)}
        for number, (message, net) in enumerate(cases.items()):
            with self.subTest(message=message), self.assertRaisesRegex(AssertionError, message):
                forward(save_small(net, self.folder / str(number)), ids)
        write_plan(folder, "0011")
        tensors = load_file(folder / "model.safetensors")
        save_file({name: tensor for name, tensor in tensors.items() if name != "score.weight"},
                  folder / "model.safetensors", {"format": "pt"})
        with self.assertRaisesRegex(AssertionError, "score.weight is missing"):
            forward(folder, ids)


if __name__ == "__main__":
    reference.main()
