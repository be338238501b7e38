"""Frozen norms against transformers whose norms divide by the same constants: folded away, with the huge epsilon in the
stock architecture, and as TransformerLens reads it."""

import json
import subprocess

import reference
import torch
import transformers
from gpt2_parity import publish, small as small_gpt2
from reference import Parity, LAMINA, batch, float64_reference, forward, largest_difference, load_file, open_float64, \
    open_reference, run, save_small, small


class Held(torch.nn.Module):
    """A norm with its division made constant; what its second reader gets is kept for it."""

    def __init__(self, norm, scale, other=None):
        super().__init__()
        self.norm, self.scale, self.other = norm, scale, other

    def forward(self, x):
        def held(by):
            bias = getattr(self.norm, "bias", None)
            centred = x - x.mean(-1, keepdim=True) if bias is not None else x
            y = centred / by * self.norm.weight
            return y if bias is None else y + bias
        if self.other:
            self.for_values = held(self.other)
        return held(self.scale)


class Values(torch.nn.Module):
    """The map behind such a norm, whose last outputs (`values`; none: all) read with the second scale."""

    def __init__(self, linear, norm, values=None):
        super().__init__()
        self.linear, self.norm, self.values = linear, norm, values

    def forward(self, x):
        read = self.linear(self.norm.for_values)
        return read if self.values is None else torch.cat([self.linear(x)[..., :-self.values], read[..., -self.values:]], -1)


def scales_of(net, ids):
    """What the norms of the model divide by on average, in the order of the walk."""
    seen = []

    def hook(module, inputs, output):
        x = inputs[0]
        x = x - x.mean(-1, keepdim=True) if getattr(module, "bias", None) is not None else x
        seen.append(x.square().mean(-1).sqrt().mean().item())

    hooks = [module.register_forward_hook(hook) for module in net.modules() if "Norm" in type(module).__name__]
    net(ids)
    for handle in hooks:
        handle.remove()
    return seen


def freeze(attention, mlp, last, scales, path):
    """A plan of all norms, values 20 % apart from keys; `attention` and `mlp`: paths with a {} for the block."""
    edits, blocks = [], len(scales) // 2
    for block in range(blocks):
        first, second = scales[2 * block], scales[2 * block + 1]
        edits += [{"edit": "freeze_norm", "site": attention.format(block), "reader": "qk", "scale": first},
                  {"edit": "freeze_norm", "site": attention.format(block), "reader": "v", "scale": 1.2 * first},
                  {"edit": "freeze_norm", "site": mlp.format(block), "reader": "mlp", "scale": second}]
    edits.append({"edit": "freeze_norm", "site": last, "reader": "final", "scale": scales[-1]})
    path.write_text(json.dumps({"lamina_plan": 1, "edits": edits}))
    return path


def hold_gpt2(net, scales):
    for block, part in enumerate(net.transformer.h):
        part.ln_1 = Held(part.ln_1, scales[2 * block], 1.2 * scales[2 * block])
        part.ln_2 = Held(part.ln_2, scales[2 * block + 1])
        part.attn.c_attn = Values(part.attn.c_attn, part.ln_1, net.config.n_embd)
    net.transformer.ln_f = Held(net.transformer.ln_f, scales[-1])
    return net


def hold_llama(net, scales):
    for block, part in enumerate(net.model.layers):
        part.input_layernorm = Held(part.input_layernorm, scales[2 * block], 1.2 * scales[2 * block])
        part.post_attention_layernorm = Held(part.post_attention_layernorm, scales[2 * block + 1])
        part.self_attn.v_proj = Values(part.self_attn.v_proj, part.input_layernorm)
    net.model.norm = Held(net.model.norm, scales[-1])
    return net


def lens_logits(folder, ids):
    """TransformerLens' forward pass without norms, from its own names alone."""
    w = {name: tensor.double() for name, tensor in load_file(folder / "model.safetensors").items()}
    config = json.loads((folder / "config.json").read_text())
    assert config["normalization_type"] is None and config["positional_embedding_type"] == "standard"
    tokens = ids.shape[1]
    x = w["embed.W_E"][ids] + w["pos_embed.W_pos"][:tokens]
    later = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    for block in range(config["n_layers"]):
        at = f"blocks.{block}."
        q, k, v = (torch.einsum("btm,hmd->bthd", x, w[f"{at}attn.W_{letter}"]) + w[f"{at}attn.b_{letter}"]
                   for letter in "QKV")
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k)
        if config["use_attn_scale"]:
            scores = scores / config["d_head"] ** 0.5
        pattern = scores.masked_fill(later, -torch.inf).softmax(-1)
        mixed = torch.einsum("bhqk,bkhd->bqhd", pattern, v)
        x = x + torch.einsum("bqhd,hdm->bqm", mixed, w[f"{at}attn.W_O"]) + w[f"{at}attn.b_O"]
        hidden = x @ w[f"{at}mlp.W_in"] + w[f"{at}mlp.b_in"]
        act = {"gelu_new": lambda h: torch.nn.functional.gelu(h, approximate="tanh"), "relu": torch.relu}
        x = x + act[config["act_fn"]](hidden) @ w[f"{at}mlp.W_out"] + w[f"{at}mlp.b_out"]
    return x @ w["unembed.W_U"] + w["unembed.b_U"]


class Denorm(Parity):
    def apply(self, model, plan, form, *more):
        out = self.folder / f"{model.name}-{form}"
        run("apply", model, plan, "-o", out, "--export", form, *more)
        return out

    def gpt2(self, number=0, **changes):
        """A model in float64 and in float32, the plan, and what transformers gives with norms held."""
        ids, mask = batch()
        folder = save_small(small_gpt2(number, **changes), self.folder / f"wide{number}")
        scales = scales_of(open_reference(folder, torch.float64), ids)
        plan = freeze("transformer.h.{}.attn", "transformer.h.{}.mlp", "transformer.ln_f", scales,
                      self.folder / f"plan{number}.json")
        return folder, plan, scales, ids, mask

    def test_folded_gpt2(self):
        for number, changes in enumerate(({}, {"tie_word_embeddings": False, "activation_function": "relu"})):
            folder, plan, scales, ids, mask = self.gpt2(number, **changes)
            held = hold_gpt2(open_reference(folder, torch.float64), scales)(ids, attention_mask=mask).logits
            live = open_reference(folder, torch.float64)(ids, attention_mask=mask).logits
            self.assertGreater(largest_difference(held, live, mask), 1e-3)
            folded = self.apply(folder, plan, "folded")
            self.within("folded GPT-2, float64", largest_difference(forward(folded, ids, mask)["logits"], held, mask), 1e-9)
            self.assertFalse([name for name in load_file(folded / "model.safetensors") if "ln_" in name])
            with self.assertRaisesRegex(Exception, "lamina_gpt2"):
                transformers.AutoModelForCausalLM.from_pretrained(folded)

    def test_published_names(self):
        folder, _, scales, ids, mask = self.gpt2()
        bare = publish(folder, self.folder / "bare")
        plan = freeze("h.{}.attn", "h.{}.mlp", "ln_f", scales, self.folder / "plan-bare.json")
        held = hold_gpt2(open_reference(folder, torch.float64), scales)(ids, attention_mask=mask).logits
        folded = self.apply(bare, plan, "folded")
        self.within("folded GPT-2, published names",
                    largest_difference(forward(folded, ids, mask)["logits"], held, mask), 1e-9)
        compat = self.apply(bare, plan, "gpt2-compat")
        again = transformers.GPT2LMHeadModel.from_pretrained(compat, dtype=torch.float64).eval()
        self.within("gpt2-compat, published names, float64",
                    largest_difference(again(ids, attention_mask=mask).logits, held, mask), 1e-6)

    def test_huge_epsilon_gpt2(self):
        folder, plan, scales, ids, mask = self.gpt2()
        narrow = save_small(transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32), self.folder / "narrow")
        held = hold_gpt2(open_reference(narrow, torch.float32), scales)(ids, attention_mask=mask).logits
        size = held.abs().max().item()
        compat = self.apply(narrow, plan, "gpt2-compat")
        config = json.loads((compat / "config.json").read_text())
        self.assertEqual((config["layer_norm_epsilon"], config["architectures"], config["model_type"]),
                         (1e12, ["GPT2LMHeadModel"], "gpt2"))
        theirs = open_reference(compat, torch.float32)(ids, attention_mask=mask).logits
        self.within("gpt2-compat in transformers, float32, relative", largest_difference(theirs, held, mask) / size, 1e-4)
        self.within("gpt2-compat in lamina, float32, relative",
                    largest_difference(forward(compat, ids, mask, "float32")["logits"], held, mask) / size, 1e-4)
        folded = self.apply(narrow, plan, "folded")
        self.within("folded, float32, relative",
                    largest_difference(forward(folded, ids, mask, "float32")["logits"], held, mask) / size, 1e-4)
        self.within("gpt2-compat against folded, relative",
                    largest_difference(theirs, forward(folded, ids, mask, "float32")["logits"], mask) / size, 1e-4)

    def test_transformer_lens(self):
        for number, changes in enumerate(({}, {"activation_function": "relu", "scale_attn_weights": False})):
            folder, plan, scales, ids, _ = self.gpt2(number, **changes)
            held = hold_gpt2(open_reference(folder, torch.float64), scales)(ids).logits
            lens = self.apply(folder, plan, "transformer-lens")
            self.within("TransformerLens' formula, float64", largest_difference(lens_logits(lens, ids), held), 1e-9)
            self.assertIn("HookedTransformerConfig(**", (lens / "README.md").read_text())
            # A model that came in without norms gives the same numbers.
            again = self.apply(self.apply(folder, plan, "folded"), self.no_edits(), "transformer-lens")
            self.assertEqual({name: tensor.tolist() for name, tensor in load_file(lens / "model.safetensors").items()},
                             {name: tensor.tolist() for name, tensor in load_file(again / "model.safetensors").items()})

    def no_edits(self):
        path = self.folder / "none.json"
        path.write_text(json.dumps({"lamina_plan": 1, "edits": []}))
        return path

    def test_llama(self):
        ids, mask = batch()
        for tied in (False, True):
            folder = save_small(small("llama", 3, tie_word_embeddings=tied), self.folder / f"llama{tied}")
            with float64_reference():
                scales = scales_of(open_float64(folder), ids)
                held = hold_llama(open_float64(folder), scales)(ids, attention_mask=mask).logits
            plan = freeze("model.layers.{}.self_attn", "model.layers.{}.mlp", "model.norm", scales, self.folder / "plan.json")
            folded = self.apply(folder, plan, "folded")
            self.within("folded Llama, float64", largest_difference(forward(folded, ids, mask)["logits"], held, mask), 1e-9)
            compat = self.apply(folder, plan, "hf-compat")
            theirs, ours = reference.logits(compat, ids, mask), forward(compat, ids, mask, tap="end")
            self.within("hf-compat, Llama in transformers and lamina, float64",
                        largest_difference(theirs, ours["logits"], mask), 1e-9)
            # The division is constant as far as the mean square of a token is nothing beside 1e12.
            share = ours["end.before_norm"][mask.bool()].square().mean(-1).max().item() / 1e12
            self.within("hf-compat, Llama in transformers, float64, relative",
                        largest_difference(theirs, held, mask) / held[mask.bool()].abs().max().item(), share)

    def test_refusals(self):
        folder, plan, *_ = self.gpt2()
        half = save_small(transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.bfloat16), self.folder / "half")
        for model, form, why in ((half, "gpt2-compat", "below what 16 bits can hold"),
                                 (folder, "hf-compact", "hf-perlayer would do, and hf-compat in float32"),
                                 (folder, "hf-zeroed", "hf-perlayer would do, and hf-compat in float32"),
                                 (folder, "gguf", "no GGUF has norms that do not divide")):
            done = subprocess.run([LAMINA, "apply", model, plan, "-o", self.folder / "no", "--export", form],
                                  capture_output=True, text=True)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(why, done.stderr)
            self.assertFalse((self.folder / "no").exists())

    @reference.needs_shared
    def test_neurons_without_norms(self):
        """A norm that is gone is the identity to a neuron's vector; edits of a folded model are taken back to the byte."""
        blocks = json.loads(run("inspect", reference.STORIES, "--json"))["blocks"]
        plan = freeze("model.layers.{}.self_attn", "model.layers.{}.mlp", "model.norm", [1.5] * (2 * blocks + 1),
                      self.folder / "plan.json")
        folded = self.apply(reference.STORIES, plan, "folded")
        shown = {}
        for norm in ("none", "rms", "final", "fold"):
            run("neurons", "map", folded, "-o", self.folder / norm, "--norm", norm, "-q")
            shown[norm] = json.loads(run("neurons", "show", self.folder / norm, "2.5", "--json"))["up"]["top"]
        self.assertEqual(shown["none"], shown["final"])
        self.assertEqual(shown["none"], shown["fold"])
        self.assertNotEqual(shown["none"], shown["rms"])
        clamped, undone = self.folder / "clamped", self.folder / "undone"
        said = run("neurons", "clamp", folded, "--set", "2.5=3", "--bake", "-o", clamped).decode()
        self.assertIn("lamina opens it, as it does the model that came in", said)
        run("neurons", "undo", clamped, "-o", undone)
        for name in ("model.safetensors", "config.json"):
            self.assertEqual((folded / name).read_bytes(), (undone / name).read_bytes(), name)

    def test_inspect(self):
        folder, plan, *_ = self.gpt2()
        before = json.loads(run("inspect", folder, "--json"))
        self.assertNotIn("norms_removed", before)
        folded = self.apply(folder, plan, "folded")
        after = json.loads(run("inspect", folded, "--json"))
        self.assertEqual(after["norms_removed"], {"attention": [0, 1, 2, 3], "mlp": [0, 1, 2, 3], "final": True})
        self.assertEqual(after["parameters"], before["parameters"] - 9 * 2 * 48 + 97 * 48 + 97)
        self.assertIn("Norms folded into the weights: in front of attention 0-3, in front of mlp 0-3, and the last one.",
                      run("inspect", folded).decode())
        card = (folded / "README.md").read_text()
        self.assertIn("9 norms frozen", card)


if __name__ == "__main__":
    reference.main()
