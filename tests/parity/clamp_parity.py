"""A neuron that is clamped: transformers with hooks on the gate, on up and in front of down says the same as every folder
that `lamina apply` writes from a plan of clamps. Where a clamp can be written into the weights, transformers opens the
folder and says it too; where it cannot, transformers refuses the folder."""

import contextlib
import json

import reference
import torch
import transformers
from reference import Parity, batch, float64_reference, forward, largest_difference, logits, open_float64, run, save_small, small

MODELS = {
    "llama": ("llama", {"attention_bias": True}),
    "llama, biases": ("llama", {"mlp_bias": True}),
    "mistral": ("mistral", {"sliding_window": 5}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
}
PLACES, MODES = ("gate", "linear", "post"), ("set", "add", "scale", "max", "if-active")
BOUND = {torch.float64: 1e-9, torch.float32: 1e-4}


def clamp(block, neuron, place, mode, value):
    return {"edit": "clamp", "site": f"model.layers.{block}.mlp", "neuron": neuron, "place": place, "mode": mode,
            "value": value}


def clamped(values, edit):
    v, c = values[..., edit["neuron"]], edit["value"]
    active = v < 0 if c < 0 else v > 0
    new = {"set": torch.full_like(v, c), "add": v + c, "scale": v * c,
           "max": torch.minimum(v, torch.full_like(v, c)) if c < 0 else torch.maximum(v, torch.full_like(v, c)),
           "if-active": torch.where(active, torch.full_like(v, c), v)}[edit["mode"]]
    values = values.clone()
    values[..., edit["neuron"]] = new
    return values


@contextlib.contextmanager
def hooks(model, edits):
    handles = []
    for edit in edits:
        mlp = model.get_submodule(edit["site"])
        after = lambda module, inputs, output, edit=edit: clamped(output, edit)
        before = lambda module, inputs, edit=edit: (clamped(inputs[0], edit),)
        if edit["place"] == "post":
            handles.append(mlp.down_proj.register_forward_pre_hook(before))
        else:
            handles.append((mlp.up_proj if edit["place"] == "linear" else mlp.gate_proj).register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hooked(folder, ids, mask, edits, dtype):
    if dtype == torch.float64:
        model = open_float64(folder)
        with float64_reference(), hooks(model, edits):
            return model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    model = reference.open_reference(folder, dtype)
    with hooks(model, edits):
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits


def written(model, edits, folder):
    plan = folder.parent / "clamps.json"
    plan.write_text(json.dumps({"lamina_plan": 1, "edits": edits}))
    run("apply", model, plan, "-o", folder, "--export", "hf-compact", "--force")
    return folder


class Clamp(Parity):
    def check(self, name, folder, edits, ids, mask, dtype):
        text = {torch.float64: "float64", torch.float32: "float32"}[dtype]
        theirs = hooked(folder, ids, mask, edits, dtype)
        bound = BOUND[dtype] * (1 if dtype == torch.float64 else max(1.0, theirs.abs().max().item()))
        out = written(folder, edits, self.folder / "out")
        config = json.loads((out / "config.json").read_text())
        self.within(f"lamina, {text}", largest_difference(forward(out, ids, mask, text)["logits"], theirs, mask), bound)
        if "lamina_clamps" in config:
            with self.assertRaises((ValueError, KeyError)):
                transformers.AutoModelForCausalLM.from_pretrained(out)
        else:
            self.within(f"transformers, {text}", largest_difference(logits(out, ids, mask, dtype), theirs, mask), bound)
        return "lamina_clamps" in config

    def test_every_place_and_mode(self):
        ids, mask = batch()
        for family, (name, (kind, changes)) in enumerate(MODELS.items()):
            # Some in shards, so that new biases go to the shard of their weight.
            folder = save_small(small(kind, family, **changes), self.folder / str(family), "60KB" if family % 2 else "1GB")
            plain = logits(folder, ids, mask)
            for number, (place, mode) in enumerate((p, m) for p in PLACES for m in MODES):
                value = (2.5, -1.5)[number % 2]
                edit = clamp(number % 4, 7 * number % 56, place, mode, value)
                with self.subTest(model=name, place=place, mode=mode):
                    extended = self.check(name, folder, [edit], ids, mask, torch.float64)
                    moved = largest_difference(hooked(folder, ids, mask, [edit], torch.float64), plain, mask)
                    self.assertGreater(moved, 1e-7)
                    beyond = mode in ("max", "if-active") or mode in ("set", "add") and kind != "llama"
                    self.assertEqual(extended, beyond)

    def test_many_at_once(self):
        ids, mask = batch()
        for family, (name, (kind, changes)) in enumerate(MODELS.items()):
            folder = save_small(small(kind, family, **changes), self.folder / str(family), "60KB")
            net32 = save_small(small(kind, family, **changes).float(), self.folder / f"{family}-32", "60KB")
            written_into = [clamp(block, neuron, place, mode, value) for block, neuron, place, mode, value in (
                (0, 3, "post", "scale", -2.0), (0, 3, "gate", "scale", 1.5), (2, 55, "linear", "set", 0.0),
                (3, 0, "post", "set", 0.0), (1, 9, "gate", "set", 0.0))]
            biased = [clamp(block, neuron, place, mode, value) for block, neuron, place, mode, value in (
                (3, 8, "post", "set", 3.0), (3, 8, "linear", "add", 0.5), (1, 2, "gate", "set", 2.0),
                (1, 2, "post", "add", -1.0), (1, 4, "post", "set", -2.0))]
            held = [clamp(2, 5, "post", "max", 1.0), clamp(2, 5, "linear", "scale", 3.0),
                    clamp(0, 6, "gate", "if-active", 2.0)]
            for edits in (written_into, written_into + biased, held + biased + written_into):
                with self.subTest(model=name, edits=len(edits)):
                    self.check(name, folder, edits, ids, mask, torch.float64)
                    self.check(name, net32, edits, ids, mask, torch.float32)

    def test_a_replaced_vector(self):
        ids, mask = batch()
        net = small("llama", 4)
        folder = save_small(net, self.folder / "model")
        values = torch.randn(48, generator=torch.Generator().manual_seed(2)).float()
        edits = [{"edit": "replace", "site": "model.layers.1.mlp", "neuron": 11, "vector": vector,
                  "values": [float(v) for v in values]} for vector in ("gate", "up", "down")]
        mlp = net.get_submodule("model.layers.1.mlp")
        mlp.gate_proj.weight[11] = values.double()
        mlp.up_proj.weight[11] = values.double()
        mlp.down_proj.weight[:, 11] = values.double()
        theirs = logits(save_small(net, self.folder / "by-hand"), ids, mask)
        out = written(folder, edits, self.folder / "out")
        self.within("replaced, lamina", largest_difference(forward(out, ids, mask)["logits"], theirs, mask), 1e-9)
        self.within("replaced, transformers", largest_difference(logits(out, ids, mask), theirs, mask), 0)


if __name__ == "__main__":
    reference.main()
