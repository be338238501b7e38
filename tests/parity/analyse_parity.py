"""What `lamina analyse` measures, against the same computed directly with torch on transformers' own modules: attribution
and direct effect of every head, confidence neurons, sinks, calibration, tails and both kinds of patching, in float64."""

import contextlib
import json
import math

import reference
import torch
from gpt2_parity import small as small_gpt2
from reference import Parity, float64_reference, open_float64, open_reference, run, save_small, small
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

BOUND = 1e-9
TEXT = "The store was closed, and so Mary gave John the book that she had found at the beach. " * 8
LENGTH, SAMPLES = 40, 3


def tokenizer_of_bytes(folder):
    """The letters that byte-level vocabularies write bytes with, numbered as the bytes are."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {**{chr(byte): byte for byte in printable}, **{chr(256 + n): byte for n, byte in enumerate(others)}}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


class Reference:
    """A model of transformers, and where in it the analyses look."""

    def __init__(self, kind, folder):
        self.gpt2 = kind == "gpt2"
        self.net = open_reference(folder, torch.float64) if self.gpt2 else open_float64(folder)
        self.net.set_attn_implementation("eager")  # gives its attention; in float64_reference() it rounds nothing
        body = self.net.transformer if self.gpt2 else self.net.model
        self.layers = body.h if self.gpt2 else body.layers
        self.norm = body.ln_f if self.gpt2 else body.norm
        self.outs = [layer.attn.c_proj if self.gpt2 else layer.self_attn.o_proj for layer in self.layers]
        self.down = self.layers[-1].mlp.c_proj if self.gpt2 else self.layers[-1].mlp.down_proj
        self.heads = self.net.config.num_attention_heads
        self.head = self.net.lm_head.weight

    def matrix(self, module):
        return module.weight if self.gpt2 else module.weight.T  # [in, out]

    def scale(self, x):
        centred = x - x.mean(-1, keepdim=True) if self.gpt2 else x
        epsilon = self.norm.eps if self.gpt2 else self.norm.variance_epsilon
        return (centred.square().mean(-1, keepdim=True) + epsilon).sqrt()

    def held(self, x, scale, bias=True):
        centred = x - x.mean(-1, keepdim=True) if self.gpt2 else x
        y = centred / scale * self.norm.weight
        return y + self.norm.bias if self.gpt2 and bias else y

    def run(self, ids):
        """Logits and what is on the way: the mixed heads and residual of each block, the last residual, attention."""
        seen = {"mixed": [], "residual": []}
        handles = [out.register_forward_pre_hook(lambda module, inputs: seen["mixed"].append(inputs[0][0])) for out in self.outs]
        handles += [layer.register_forward_pre_hook(lambda module, inputs: seen["residual"].append(inputs[0][0]))
                    for layer in self.layers]
        handles.append(self.norm.register_forward_pre_hook(lambda module, inputs: seen.update(end=inputs[0][0])))
        handles.append(self.down.register_forward_pre_hook(lambda module, inputs: seen.update(neurons=inputs[0][0])))
        answer = self.net(torch.tensor([ids]), output_attentions=True)
        for handle in handles:
            handle.remove()
        return {**seen, "logits": answer.logits[0], "attention": [weights[0] for weights in answer.attentions]}


def samples():
    ids = list(TEXT.encode())
    return [ids[s * LENGTH:(s + 1) * LENGTH] for s in range(SAMPLES)]


def attribution(model):
    direct, attributed = {}, {}
    for ids in samples():
        seen = model.run(ids[:-1])
        r, w = seen["end"][-1], model.head[ids[-1]]
        for block, mixed in enumerate(seen["mixed"]):
            size = mixed.shape[-1] // model.heads
            for head in range(model.heads):
                rows = slice(head * size, (head + 1) * size)
                c = mixed[-1, rows] @ model.matrix(model.outs[block])[rows]
                direct.setdefault((block, head), []).append(((model.norm(r) - model.norm(r - c)) @ w).item())
                attributed.setdefault((block, head), []).append((model.held(c, model.scale(r), bias=False) @ w).item())
    return direct, attributed


def scored(logits, ids):
    log_p = logits[:len(ids) - 1].log_softmax(-1)
    p = log_p.exp()
    targets = torch.tensor(ids[1:])
    confidence, likeliest = p.max(-1)
    return {"loss": -log_p.gather(1, targets[:, None])[:, 0], "entropy": -(p * log_p).sum(-1), "confidence": confidence,
            "right": (likeliest == targets).double()}


def calibration_error(confidence, right, bins=15):
    error = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            error += inside.double().mean().item() * abs(right[inside].mean() - confidence[inside].mean()).item()
    return error


def neuron_effect(model, neurons, seen):
    """Change of loss and entropy when neurons are held at their mean, with the scale made again and as it was."""
    mean = torch.cat([one["neurons"] for one in seen]).mean(0)
    changes = {"total": [], "frozen": []}
    for ids, one in zip(samples(), seen):
        held = one["neurons"].clone()
        held[:, neurons] = mean[neurons]
        r = one["end"]
        changed = r + (held - one["neurons"]) @ model.matrix(model.down)
        before = scored(one["logits"], ids)
        for name, normed in (("total", model.norm(changed)), ("frozen", model.held(changed, model.scale(r)))):
            after = scored(normed @ model.head.T, ids)
            changes[name].append(torch.stack([after[key] - before[key] for key in ("loss", "entropy")]))
    return {name: torch.cat(parts, 1) for name, parts in changes.items()}


def metric(logits, pair):
    return logits[0, -1, pair["answer"]] - logits[0, -1, pair["other"]]


def patching(model, pairs):
    blocks, positions = len(model.layers), len(pairs[0]["clean"])
    act, attr = torch.zeros(2, blocks, positions, dtype=torch.float64)
    clean_mean = corrupted_mean = 0.0
    for pair in pairs:
        clean, corrupted = model.run(pair["clean"]), model.run(pair["corrupted"])
        clean_mean += metric(clean["logits"][None], pair).item() / len(pairs)
        base = metric(corrupted["logits"][None], pair).item()
        corrupted_mean += base / len(pairs)
        for block in range(blocks):
            layer, to = model.layers[block], clean["residual"][block]
            for p in range(positions):
                def put(module, inputs, p=p, to=to):
                    x = inputs[0].clone()
                    x[0, p] = to[p]
                    return (x, *inputs[1:])
                handle = layer.register_forward_pre_hook(put)
                act[block, p] += (metric(model.net(torch.tensor([pair["corrupted"]])).logits, pair).item() - base) / len(pairs)
                handle.remove()
            with torch.enable_grad():
                leaf = corrupted["residual"][block][None].clone().requires_grad_()
                handle = layer.register_forward_pre_hook(lambda module, inputs, leaf=leaf: (leaf, *inputs[1:]))
                gradient, = torch.autograd.grad(metric(model.net(torch.tensor([pair["corrupted"]])).logits, pair), leaf)
                handle.remove()
            attr[block] += (gradient[0] * (to - corrupted["residual"][block])).sum(-1) / len(pairs)
    whole = clean_mean - corrupted_mean
    return act / whole, attr / whole, clean_mean, corrupted_mean


class Analyses(Parity):
    def measured(self, net, name):
        folder = save_small(net, self.folder / name)
        tokenizer_of_bytes(folder)
        text = self.folder / "text.txt"
        text.write_text(TEXT)
        answer = json.loads(run("analyse", folder, "--text", text, "--dtype", "float64", "--samples", SAMPLES, "--length", LENGTH,
                                "--pairs", 2, "--neurons", 4, "--json", "-q"))
        self.assertEqual(len(answer["models"]), 1)
        return folder, answer, answer["models"][0]

    def close(self, what, ours, theirs):
        self.within(what, abs(ours - theirs) / max(1.0, abs(theirs)), BOUND)

    def same(self, kind, net):
        folder, answer, ours = self.measured(net, kind)
        model = Reference(kind, folder)
        with float64_reference() if kind != "gpt2" else contextlib.nullcontext():
            direct, attributed = attribution(model)
            seen = [model.run(ids) for ids in samples()]
            neurons = [neuron["neuron"] for neuron in ours["neurons"]["neurons"]]
            effects = [neuron_effect(model, [neuron], seen) for neuron in neurons]
            together = neuron_effect(model, neurons, seen)
            act, attr, clean, corrupted = patching(model, answer["prompts"])

        heads = ours["attribution"]["heads"]
        self.assertEqual(len(heads), len(direct))
        errors, effect, means = 0.0, 0.0, []
        for (key, wanted), head in zip(direct.items(), heads):
            for a, b in zip(head["direct"] + head["attributed"], wanted + attributed[key]):
                self.close("attribution and direct effect", a, b)
            off = [abs(a - b) for a, b in zip(attributed[key], wanted)]
            errors, effect = errors + sum(off), effect + sum(map(abs, wanted))
            means.append(sum(off) / sum(map(abs, wanted)))
        self.close("error of the attribution", ours["attribution"]["nmae_head_mean"], sum(means) / len(means))
        self.close("error of the attribution", ours["attribution"]["nmae_global"]["value"], errors / effect)

        scores = [scored(one["logits"], ids) for one, ids in zip(seen, samples())]
        scores = {key: torch.cat([score[key] for score in scores]) for key in scores[0]}
        for key, wanted in (("cross_entropy", scores["loss"].mean()), ("entropy", scores["entropy"].mean()),
                            ("accuracy", scores["right"].mean()),
                            ("expected_calibration_error", calibration_error(scores["confidence"], scores["right"]))):
            self.close(f"calibration, {key}", ours["calibration"][key], float(wanted))
        for key, wanted in (("mean", scores["loss"].mean()), ("median", scores["loss"].quantile(0.5)),
                            ("p99.9", scores["loss"].quantile(0.999)), ("max", scores["loss"].max())):
            self.close(f"tail, {key}", ours["losses"]["text"][key], wanted.item())

        looks = torch.stack([torch.cat([weights[:, :, 0] for weights in one["attention"]]) for one in seen])
        self.close("sinks", ours["sinks"]["queries"]["value"], (looks > 0.3).double().mean().item())
        self.close("sinks", ours["sinks"]["heads"]["value"], (looks.mean(-1) > 0.3).double().mean().item())
        for row in ours["sinks"]["norms"]:
            norms = torch.stack([one["residual"][row["block"]].norm(dim=-1) for one in seen])
            self.close("norms", row["first"], norms[:, 0].mean().item())
            self.close("norms", row["rest"], norms[:, 1:].mean().item())

        for neuron, wanted in zip(ours["neurons"]["neurons"], effects):
            self.effect(neuron, wanted)
        self.effect(ours["neurons"]["together"], together)
        out = model.matrix(model.down)
        rows = model.held(model.head * model.norm.weight, 1.0, bias=False) / model.norm.weight
        rows = rows / rows.norm(dim=-1, keepdim=True)
        score = out.norm(dim=-1) / (rows @ (out / out.norm(dim=-1, keepdim=True)).T).var(0)
        self.assertEqual(neurons, score.topk(len(neurons)).indices.tolist())
        self.close("neurons, score", ours["neurons"]["neurons"][0]["score"], score.max().item())

        self.close("patching, metric", ours["patching"]["clean"], clean)
        self.close("patching, metric", ours["patching"]["corrupted"], corrupted)
        for row in ours["patching"]["rows"]:
            for p in range(act.shape[1]):
                self.close("activation patching", row["activation"][p], act[row["block"], p].item())
                self.close("attribution patching", row["attribution"][p], attr[row["block"], p].item())
            self.close("patching, error", row["error"], (attr - act)[row["block"]].abs().sum().item())

    def effect(self, ours, theirs):
        for name, change in theirs.items():
            self.close("neurons", ours[name]["cross_entropy"], change[0].mean().item())
            self.close("neurons", ours[name]["entropy"], change[1].mean().item())
            self.close("neurons", ours[name]["mean_absolute_cross_entropy"], change[0].abs().mean().item())

    def test_layer_norm(self):
        self.same("gpt2", small_gpt2(3, vocab_size=256, n_positions=64))

    def test_layer_norm_untied(self):
        self.same("gpt2", small_gpt2(4, vocab_size=256, n_positions=64, tie_word_embeddings=False))

    def test_root_mean_square(self):
        self.same("llama", small("llama", 5, vocab_size=256))

    def test_prompts(self):
        _, answer, _ = self.measured(small("llama", 5, vocab_size=256), "prompts")
        for pair in answer["prompts"]:
            clean, corrupted = bytes(pair["clean"]).decode(), bytes(pair["corrupted"]).decode()
            words, others = clean.replace(",", "").replace(".", "").split(), corrupted.replace(",", "").replace(".", "").split()
            first, second = words[1], words[3]
            self.assertEqual(clean, f"Then, {first} and {second} went to the {words[7]}. {first} gave a {words[11]} to ")
            self.assertEqual(others[8], second)
            self.assertEqual((chr(pair["answer"]), chr(pair["other"])), (second[0], first[0]))
            self.assertTrue(math.isfinite(answer["models"][0]["patching"]["error"]))


if __name__ == "__main__":
    reference.main()
