"""GPT-2 as transformers has it: logits and taps of small random models in either spelling of the names, padded on both
sides, cut, and the tokens of vocab.json with merges.txt."""

import json
import shutil
import unittest

import reference
import torch
import transformers
from reference import (Parity, SHARED, apply, batch, edit_config, forward, largest_difference, load_file, open_reference,
                       run, save_file, save_small)

VOCABULARY = SHARED / "tokenizers" / "gpt2"

MODELS = {
    "plain": {},
    "the default width of the feed-forward": {"n_inner": None},
    "gelu": {"activation_function": "gelu"},
    "relu, unscaled scores": {"activation_function": "relu", "scale_attn_weights": False},
    "untied, another epsilon": {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-2},
    "one head": {"n_head": 1},
}


def small(seed=0, **changes):
    sizes = {"n_embd": 48, "n_inner": 56, "n_layer": 4, "n_head": 6, "n_positions": 40, "vocab_size": 97,
             "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(seed)
    net = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**sizes, **changes})).double()
    for name, weight in net.named_parameters():
        scale = 1.5 / weight.shape[0 if "h." in name else 1] ** 0.5 if weight.dim() > 1 else 0.3
        weight.copy_(torch.randn_like(weight) * scale + (1 if "ln_" in name and name.endswith("weight") else 0))
    return net


def publish(folder, out, positions=40, prefix=""):
    """The file as the published gpt2 has it: names of the bare model, and the buffers of its time."""
    shutil.copytree(folder, out)
    stored = load_file(folder / "model.safetensors")
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
    blocks = json.loads((folder / "config.json").read_text())["n_layer"]
    for block in range(blocks):
        tensors[f"h.{block}.attn.bias"] = torch.ones(positions, positions).tril().view(1, 1, positions, positions)
        tensors[f"h.{block}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file({("" if name == "lm_head.weight" else prefix) + name: tensor.contiguous() for name, tensor in tensors.items()},
              out / "model.safetensors", {"format": "pt"})
    return out


def logits(folder, ids, mask=None, dtype=torch.float64):
    return open_reference(folder, dtype)(ids, attention_mask=mask).logits


def seen(folder, ids, mask, root="transformer."):
    """What `--tap all,neurons,end` writes, read off transformers with hooks."""
    model, out = open_reference(folder, torch.float64), {}

    def keep(name, index=None):
        def hook(module, inputs, output=None):
            out[name] = inputs[0] if index == "in" else output
        return hook

    for number, block in enumerate(model.transformer.h):
        path = f"{root}h.{number}."

        def between(module, inputs, path=path):
            out[f"{path}attn.after"] = out[f"{path}mlp.before"] = inputs[0]

        def leaves(module, inputs, output, path=path):
            out[f"{path}mlp.after"] = output[0] if isinstance(output, tuple) else output

        block.ln_1.register_forward_pre_hook(keep(f"{path}attn.before", "in"))
        block.ln_2.register_forward_pre_hook(between)
        block.mlp.c_fc.register_forward_hook(keep(f"{path}mlp.linear"))
        block.mlp.act.register_forward_hook(keep(f"{path}mlp.post"))
        block.register_forward_hook(leaves)
    model.transformer.ln_f.register_forward_pre_hook(keep("end.before_norm", "in"))
    model.transformer.ln_f.register_forward_hook(keep("end.after_norm"))
    out["logits"] = model(ids, attention_mask=mask).logits
    return out


class Gpt2(Parity):
    def test_small_models(self):
        ids, mask = batch()
        for number, (name, changes) in enumerate(MODELS.items()):
            with self.subTest(model=name):
                folder = save_small(small(number, **changes), self.folder / str(number))
                theirs = logits(folder, ids, mask)
                self.within("float64 logits", largest_difference(forward(folder, ids, mask)["logits"], theirs, mask), 1e-9)
                bare = publish(folder, self.folder / f"{number}-bare")
                self.within("float64 logits, published names",
                            largest_difference(forward(bare, ids, mask)["logits"], theirs, mask), 1e-9)
                single = logits(folder, ids, dtype=torch.float32)
                ours = forward(folder, ids, dtype="float32")["logits"]
                self.within("float32 logits, relative",
                            largest_difference(ours, single) / single.abs().max().item(), 1e-4)

    def test_transformers_agrees_on_the_published_names(self):
        """What publish() writes is a GPT-2 to transformers too, but for the buffers that it no longer has."""
        ids, _ = batch()
        folder = save_small(small(), self.folder / "model")
        bare = publish(folder, self.folder / "bare")
        model = transformers.GPT2LMHeadModel.from_pretrained(bare, dtype=torch.float64).eval()
        self.within("transformers, published names", largest_difference(model(ids).logits, logits(folder, ids)), 0)

    def test_narrow_weights(self):
        ids, mask = batch()
        for dtype in (torch.bfloat16, torch.float16):
            folder = save_small(small().to(dtype), self.folder / str(dtype))
            self.within("float64 logits of 16-bit weights",
                        largest_difference(forward(folder, ids, mask)["logits"], logits(folder, ids, mask), mask), 1e-9)

    def test_taps(self):
        ids, mask = batch()
        for number, activation in enumerate(("gelu_new", "relu")):
            folder = save_small(small(number, activation_function=activation), self.folder / activation)
            bare = publish(folder, self.folder / f"{activation}-bare")
            for model, root in ((folder, "transformer."), (bare, "")):
                ours, theirs = forward(model, ids, mask, tap="all,neurons,end"), seen(folder, ids, mask, root)
                self.assertEqual(set(ours), set(theirs))
                for name in theirs:
                    self.within("float64 taps", largest_difference(ours[name], theirs[name], mask), 1e-9)

    def test_cuts(self):
        """Half blocks zeroed and whole ones renumbered open in transformers, and give what skipping gives."""
        ids, mask = batch()
        folder = save_small(small(), self.folder / "model")
        bare, buffered = publish(folder, self.folder / "bare"), publish(folder, self.folder / "full", prefix="transformer.")
        for number, (drop, form) in enumerate((("attention:1,mlp:3", "hf-zeroed"), ("1,2", "hf-compact"),
                                               ("0", "hf-compact"), ("attention:1,mlp:3", "hf-perlayer"))):
            skipped = forward(folder, ids, mask, skip=drop)["logits"]
            for kind, model in (("full", folder), ("bare", bare), ("buffered", buffered)):
                out = apply(model, drop, self.folder / f"{kind}-{number}", form)
                self.within("cut and skipped", largest_difference(forward(out, ids, mask)["logits"], skipped, mask), 1e-12)
                if form != "hf-perlayer":
                    again = transformers.GPT2LMHeadModel.from_pretrained(out, dtype=torch.float64).eval()
                    self.within("cut, in transformers",
                                largest_difference(again(ids, attention_mask=mask).logits, skipped, mask), 1e-9)
                root = "" if kind == "bare" else "transformer."
                self.assertTrue(all(name.startswith((root + "h.", root + "w", root + "ln_f"))
                                    for name in load_file(out / "model.safetensors")))

    def test_what_is_refused(self):
        ids = torch.zeros(1, 41, dtype=torch.int64)
        folder = save_small(small(), self.folder / "model")
        with self.assertRaisesRegex(AssertionError, "41 tokens, but the model has 40 learned positions"):
            forward(folder, ids)
        with self.assertRaisesRegex(AssertionError, "no GGUF spelling of GPT2LMHeadModel is known here"):
            apply(folder, "1", self.folder / "out", "gguf")
        tensors = load_file(folder / "model.safetensors")
        tensors["wpe.weight"] = tensors.pop("transformer.wpe.weight")
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        with self.assertRaisesRegex(AssertionError, "transformer.wpe.weight is missing"):
            forward(folder, ids[:, :3])
        edit_config(folder, lambda config: config.update(scale_attn_by_inverse_layer_idx=True))
        with self.assertRaisesRegex(AssertionError, "scale_attn_by_inverse_layer_idx"):
            forward(folder, ids[:, :3])


@unittest.skipUnless(VOCABULARY.exists(), "skipped: ../shared/data/tokenizers is not there")
class Tokens(Parity):
    TEXTS = ["Hello world", " two  spaces\n\n and\tlines\r\n", "it's we'll I'VE", "naïve café 日本語 🙂👩‍👩‍👧", "", " ",
             "x<|endoftext|> y<|endoftext|><|endoftext|>", "12345 3.14 a1b2", "ends in space ", "\u00a0\u2009wide\u0000zero",
             "<pad> and <x>", "٣٤ Ⅷ ½"]

    def test_vocabulary_and_merges(self):
        folder = save_small(small(vocab_size=50259, n_layer=1), self.folder / "model")
        shutil.copy(VOCABULARY / "encoder.json", folder / "vocab.json")
        shutil.copy(VOCABULARY / "vocab.bpe", folder / "merges.txt")
        x = {"content": "<x>", "special": False, "lstrip": False, "rstrip": True, "single_word": False, "normalized": True}
        cases = {"none": None, "empty": {"model_max_length": 1024}, "bos": {"add_bos_token": True},
                 "prefix": {"add_prefix_space": True, "tokenizer_class": "GPT2Tokenizer"},
                 "pad": {"pad_token": "<pad>"}, "added": {"added_tokens_decoder": {"50257": x}}}
        for name, config in cases.items():
            with self.subTest(config=name):
                (folder / "tokenizer_config.json").unlink(missing_ok=True)
                if config is not None:
                    (folder / "tokenizer_config.json").write_text(json.dumps(config))
                theirs = transformers.GPT2Tokenizer.from_pretrained(folder)
                lines = "".join(json.dumps(text) + "\n" for text in self.TEXTS).encode()
                answer = run("tokenize", folder, "--json", input=lines).decode().splitlines()
                ours = [json.loads(line) for line in answer]
                self.assertEqual(len(ours), len(self.TEXTS))
                for text, row in zip(self.TEXTS, ours):
                    self.assertEqual(row, theirs(text)["input_ids"], repr(text))
                    # GPT-2's byte-level decoder loses nothing, but for the spaces that the settings add or strip.
                    if name in ("none", "empty"):
                        self.assertEqual(theirs.decode(row), text)
                rows = "".join(" ".join(map(str, row)) + "\n" for row in ours if row).encode()
                decoded = run("tokenize", folder, "--decode", "--json", input=rows).decode().splitlines()
                self.assertEqual([json.loads(line) for line in decoded], [theirs.decode(row) for row in ours if row])

    def test_generation(self):
        """Greedy tokens through the cache, and without it, against transformers without one."""
        folder = save_small(small(vocab_size=50259).float(), self.folder / "model")
        shutil.copy(VOCABULARY / "encoder.json", folder / "vocab.json")
        shutil.copy(VOCABULARY / "vocab.bpe", folder / "merges.txt")
        ids, model = [15496, 995], open_reference(folder, torch.float32)  # "Hello world"
        expected = list(ids)
        for _ in range(20):
            expected.append(model(torch.tensor([expected])).logits[0, -1].argmax().item())
        for more in ((), ("--no-cache",)):
            answer = json.loads(run("generate", folder, "-p", "Hello world", "--tokens", 20, "--json", *more))
            self.assertEqual(answer["ids"], expected[len(ids):])

    def test_another_tokenizer_in_the_same_files(self):
        folder = save_small(small(n_layer=1), self.folder / "model")
        (folder / "vocab.json").write_text("{}")
        (folder / "merges.txt").write_text("")
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
        with self.assertRaisesRegex(AssertionError, "has no tokenizer.json"):
            run("tokenize", folder, input=b"a\n")


if __name__ == "__main__":
    reference.main()
