"""Neurons through the LM head, recounted in float64: labels, scores, probabilities, moments, norms and angles of every
neuron, each token's best neuron, resumed and partial maps, comparisons; clamps of SmolLM2 against hooks in transformers;
and the logits as the sum of what every neuron and attention adds to them."""

import json
import shutil
import signal
import sqlite3
import subprocess
import time
import unittest

import gpt2_parity
import numpy
import reference
import torch
from reference import (LAMINA, Parity, batch, forward, largest_difference, load_file, needs_shared, needs_smollm2, open_reference,
                       reference_folder, run, save_small, slow, small)
from transformers import AutoTokenizer

CALIBRATION = reference.SHARED / "wikitext-2" / "valid.txt"
TOP = 8
# Two scores closer than this, relative to their size, may stand in either order: float32 cannot tell them apart.
MARGIN = 1e-5
POLES = {"top": (0, 1), "bottom": (1, -1)}


# ---- the reference


class Weights:
    """The vectors of every neuron of a model, block by block, in float64: rows["up"][block] is [neurons, width]."""

    def __init__(self, net):
        get = net.get_parameter
        if net.config.model_type == "gpt2":
            blocks = [f"transformer.h.{number}." for number in range(net.config.n_layer)]
            self.rows = {"up": [get(block + "mlp.c_fc.weight").T for block in blocks],
                         "down": [get(block + "mlp.c_proj.weight") for block in blocks]}
            self.front = [get(block + "ln_2.weight") for block in blocks]
            self.gain, self.bias = get("transformer.ln_f.weight"), get("transformer.ln_f.bias")
        else:
            blocks = [f"model.layers.{number}." for number in range(net.config.num_hidden_layers)]
            self.rows = {"up": [get(block + "mlp.up_proj.weight") for block in blocks],
                         "gate": [get(block + "mlp.gate_proj.weight") for block in blocks],
                         "down": [get(block + "mlp.down_proj.weight").T for block in blocks]}
            self.front = [get(block + "post_attention_layernorm.weight") for block in blocks]
            self.gain, self.bias = get("model.norm.weight"), None
        self.lens = {"unembed": net.lm_head.weight.double(), "embed": net.get_input_embeddings().weight.double()}

    def raw(self, rows, block):
        return self.rows[rows][block].double()

    def ready(self, rows, block, norm):
        """As the head sees them; see methods/neurons/map.h."""
        w = self.raw(rows, block)
        if norm == "rms":
            w = w / w.square().mean(1, keepdim=True).sqrt()
        if norm == "final":
            if self.bias is not None:
                w = w - w.mean(1, keepdim=True)
            w = w / w.square().mean(1, keepdim=True).sqrt() * self.gain.double()
            if self.bias is not None:
                w = w + self.bias.double()
        if norm == "fold" and rows != "down":
            w = w * self.front[block].double()
        return w


class Recount:
    """Everything that an atlas says of `vectors` [count, width], and the best log-probability of every token."""

    def __init__(self, vectors, head, top=TOP, single=False):
        self.vectors, self.head, self.with_single = vectors, head, single
        parts = [self.part(chunk, min(top, head.shape[0])) for chunk in vectors.split(256)]
        columns = zip(*parts)
        self.mean, self.deviation, self.kurtosis = (torch.cat(next(columns)) for _ in range(3))
        self.log_sum, self.ids, self.scores, best = {}, {}, {}, {}
        for pole in POLES:
            self.log_sum[pole], self.ids[pole], self.scores[pole] = (torch.cat(next(columns)) for _ in range(3))
            best[pole] = torch.stack(next(columns)).amax(0)
        # How far PyTorch's own softmax in float32 is from this one: log p and log-sum-exp, and p.
        self.single = torch.stack(next(columns)).amax(0).tolist()
        self.best = best

    def part(self, vectors, top):
        scores = vectors @ self.head.T
        mean = scores.mean(1, keepdim=True)
        centred = scores - mean
        variance = centred.square().mean(1)
        row = [mean[:, 0], variance.sqrt(), centred.pow(4).mean(1) / variance.square()]
        off = torch.zeros(2, dtype=torch.float64)
        if self.with_single:
            narrow = vectors.float() @ self.head.float().T
        for _, sign in POLES.values():
            log_sum = (sign * scores).logsumexp(1)
            largest = (sign * scores).topk(top)
            best = (sign * scores - log_sum[:, None]).amax(0)
            row += [log_sum, largest.indices, sign * largest.values, best]
            if self.with_single:
                log_p, log_of = (sign * narrow).log_softmax(1), (sign * narrow).logsumexp(1)
                p = log_p.gather(1, largest.indices).exp().double() - (largest.values - log_sum[:, None]).exp()
                log_off = torch.maximum((log_p.double() - (sign * scores - log_sum[:, None])).abs().max(), (log_of.double() - log_sum).abs().max())
                off = torch.maximum(off, torch.stack([log_off, p.abs().max()]))
        return row + [off]

    def score_of(self, neurons, tokens):
        return torch.cat([(self.vectors[n] * self.head[t]).sum(-1) for n, t in zip(neurons.split(512), tokens.split(512))])


# ---- the atlas


class Atlas:
    def __init__(self, path):
        self.database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        self.header = dict(self.database.execute("SELECT key, value FROM header"))
        self.sets = {(rows, head): number for number, rows, head in self.database.execute("SELECT * FROM sets")}
        self.stride = self.header["blocks"] * self.header["neurons"]
        self.blocks = json.loads(self.header["decoded_blocks"])

    def table(self, query, *values):
        return numpy.array(self.database.execute(query, values).fetchall(), dtype=numpy.float64)

    def neurons(self, rows, head="own"):
        """Of a set, in order, with the labels as [neurons, top]."""
        number = self.sets[rows, head]
        columns = self.table("SELECT id, block, neuron, norm, mean, deviation, kurtosis, log_sum, log_sum_negated FROM neurons "
                             "WHERE set_id = ? ORDER BY id", number).T
        names = ("id", "block", "neuron", "norm", "mean", "deviation", "kurtosis", "top_log_sum", "bottom_log_sum")
        found = dict(zip(names, map(torch.from_numpy, columns)))
        for pole, (code, _) in POLES.items():
            rows_of = self.table("SELECT neuron_id, rank, token, score, p FROM labels WHERE neuron_id >= ? AND neuron_id < ? AND "
                                 "pole = ? ORDER BY neuron_id, rank", number * self.stride, (number + 1) * self.stride, code)
            labels = torch.from_numpy(rows_of).view(len(found["id"]), -1, 5)
            assert (labels[:, :, 0] == found["id"][:, None]).all()
            assert (labels[:, :, 1] == torch.arange(1, labels.shape[1] + 1)).all()
            found |= {f"{pole}_ids": labels[:, :, 2].long(), f"{pole}_scores": labels[:, :, 3], f"{pole}_p": labels[:, :, 4]}
        return found

    def content(self):
        """All of it, but for when, where and with which command it was made."""
        tables = [name for name, in self.database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        rows = {name: self.database.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
        rows["header"] = [row for row in rows["header"] if row[0] != "more"]
        rows["schema"] = self.database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        return rows


class NeuronParity(Parity):
    def map(self, model, *options, rows="up,gate,down", name="atlas"):
        path = self.folder / f"{name}.sqlite"
        run("neurons", "map", model, "-o", path, "--rows", rows, "--force", "-q", *options)
        return path

    def agree(self, what, atlas, rows, weights, norm="none", head=None, set_head="own"):
        """One set of an atlas against the recount; the number of labels that differ within the margin."""
        head = weights.lens["unembed"] if head is None else head
        raw = torch.cat([weights.raw(rows, block) for block in atlas.blocks])
        theirs = Recount(torch.cat([weights.ready(rows, block, norm) for block in atlas.blocks]), head, single=norm != "none")
        ours = atlas.neurons(rows, set_head)
        count = raw.shape[0] // len(atlas.blocks)
        self.assertEqual(ours["block"].tolist(), [block for block in atlas.blocks for _ in range(count)])
        self.assertEqual(ours["neuron"].tolist(), list(range(count)) * len(atlas.blocks))

        def relative(name, mine, right, scale, bound):
            self.within(f"{name}, {what}", ((mine - right).abs() / scale).max().item(), bound)

        relative("norm, relative", ours["norm"], raw.norm(dim=1), raw.norm(dim=1), 1e-6)
        relative("mean, in deviations", ours["mean"], theirs.mean, theirs.deviation, 1e-5)
        relative("deviation, relative", ours["deviation"], theirs.deviation, theirs.deviation, 1e-5)
        relative("kurtosis, relative", ours["kurtosis"], theirs.kurtosis, theirs.kurtosis, 1e-5)
        differing, every = 0, torch.arange(len(raw))
        # Vectors as they are have small scores. A norm makes scores of up to 90, whose p no softmax in float32 has to 1e-6:
        # we may be as far off as PyTorch's.
        log_bound, bound = (1e-5, 1e-6) if norm == "none" else (1e-5 + 2 * theirs.single[0], 1e-6 + 2 * theirs.single[1])
        for pole, (_, sign) in POLES.items():
            relative("log-sum-exp", ours[f"{pole}_log_sum"], theirs.log_sum[pole], 1, log_bound)
            ids = ours[f"{pole}_ids"]
            self.assertEqual(ids.shape, theirs.ids[pole].shape)
            self.assertTrue(all(len(set(row)) == len(row) for row in ids.tolist()), "a token is named twice")
            right = theirs.score_of(every[:, None].expand_as(ids), ids)
            differ = ids != theirs.ids[pole]
            differing += differ.sum().item()
            margins = ((right - theirs.scores[pole]).abs() / theirs.scores[pole].abs())[differ]
            self.within(f"float64 margin of labels that differ, {what}", margins.max().item() if len(margins) else 0.0, MARGIN)
            relative("scores, in deviations", ours[f"{pole}_scores"], right, theirs.deviation[:, None], 1e-5)
            relative("p", ours[f"{pole}_p"], (sign * right - theirs.log_sum[pole][:, None]).exp(), 1, bound)
        self.best_agree(what, atlas, atlas.sets[rows, set_head], theirs, count, log_bound)
        if norm != "none":
            self.within(f"PyTorch's float32 p, {what}", theirs.single[1], 1)
        return differing

    def best_agree(self, what, atlas, number, theirs, count, bound):
        """The neuron that the atlas names for each token gives it, in float64, what the best of all gives."""
        plain = atlas.table("SELECT special FROM tokens ORDER BY id")[:, 0] == 0
        place = torch.full((atlas.header["blocks"],), -1)
        place[torch.tensor(atlas.blocks)] = torch.arange(len(atlas.blocks))
        for pole, (code, sign) in POLES.items():
            token, block, neuron, score, log_p, below = torch.from_numpy(atlas.table(
                "SELECT token, block, neuron, score, log_p, below FROM best WHERE set_id = ? AND pole = ? ORDER BY token", number, code)).T
            token, index = token.long(), place[block.long()] * count + neuron.long()
            self.assertEqual(token.tolist(), list(range(theirs.head.shape[0])))
            scores = theirs.score_of(index, token)
            right = sign * scores - theirs.log_sum[pole][index]
            self.within(f"log p lost by the best neuron, {what}", (theirs.best[pole] - right).max().item(), bound)
            self.within(f"log p of the best neuron, {what}", (log_p - right).abs().max().item(), bound)
            self.within(f"score of the best neuron, in deviations, {what}",
                        ((score - scores).abs() / theirs.deviation[index]).max().item(), 1e-5)
            recount = numpy.searchsorted(numpy.sort(log_p.numpy()[plain]), log_p.numpy(), "left")
            self.assertEqual(below.long().tolist(), recount.tolist())

    def angles_agree(self, what, atlas, weights):
        """NULL where there is no such angle."""
        names = ("gate", "up"), ("up", "down"), ("gate", "down")
        for block in atlas.blocks:
            rows = atlas.table("SELECT gate_up, up_down, gate_down, neuron FROM angles WHERE block = ? ORDER BY neuron", block)
            self.assertEqual(rows[:, 3].tolist(), list(range(len(rows))))
            for column, (a, b) in zip(torch.from_numpy(rows[:, :3]).T, names):
                if a not in weights.rows:
                    self.assertTrue(column.isnan().all())
                    continue
                right = torch.cosine_similarity(weights.raw(a, block), weights.raw(b, block), dim=1, eps=0)
                self.within(f"cosines, {what}", (column - right).abs().max().item(), 1e-6)

    def shown_agree(self, what, path, atlas, weights, norm, neurons):
        """What `show` prints, against the recount and the atlas."""
        for block, neuron in neurons:
            shown = json.loads(run("neurons", "show", path, f"{block}.{neuron}", "--json"))
            self.assertEqual(set(shown), set(weights.rows) | {"cosines"})
            for rows in weights.rows:
                ours = shown[rows]
                row = Recount(weights.ready(rows, block, norm)[neuron:neuron + 1], weights.lens["unembed"])
                p = (row.vectors @ row.head.T).softmax(1)[0]
                pole_p = (-(row.vectors @ row.head.T)).softmax(1)[0]
                for pole in POLES:
                    self.assertEqual([label["id"] for label in ours[pole]], row.ids[pole][0].tolist())
                    for label in ours[pole]:
                        self.within(f"p as shown, {what}", abs(label["p"] - p[label["id"]].item()), 1e-6)
                        if pole == "bottom":
                            self.within(f"p as shown, {what}", abs(label["p_pole"] - pole_p[label["id"]].item()), 1e-6)
                kurtosis = atlas.table("SELECT kurtosis FROM neurons WHERE set_id = ?", atlas.sets[rows, "own"])[:, 0]
                self.assertEqual(ours["of"], len(kurtosis))
                self.assertEqual(ours["kurtosis_rank"], 1 + int((kurtosis > ours["kurtosis"]).sum()))
                self.within(f"kurtosis as shown, {what}", abs(ours["kurtosis"] / row.kurtosis.item() - 1), 1e-5)
                self.within(f"norm as shown, {what}",
                            abs(ours["norm"] / weights.raw(rows, block)[neuron].norm().item() - 1), 1e-6)


def save_single(net, folder):
    """The folder of a model in float32, and its weights as they lie there."""
    net = net.float()
    return save_small(net, folder), Weights(net)


# ---- small models


def models():
    yield "llama", small("llama"), ("unembed", "embed")
    yield "qwen2, tied", small("qwen2", seed=1, tie_word_embeddings=True), ("unembed",)
    yield "mistral, bfloat16", small("mistral", seed=2).bfloat16(), ("unembed",)
    yield "gpt2, untied", gpt2_parity.small(3, tie_word_embeddings=False), ("unembed", "embed")


class Map(NeuronParity):
    def test_small_models(self):
        differing = 0
        for number, (name, net, lenses) in enumerate(models()):
            narrow = net.dtype == torch.bfloat16
            folder, weights = (save_small(net, self.folder / str(number)), Weights(net)) if narrow else \
                save_single(net, self.folder / str(number))
            labels = {}
            for lens in lenses:
                for norm in ("none", "rms", "final", "fold"):
                    with self.subTest(model=name, lens=lens, norm=norm):
                        path = self.map(folder, "--lens", lens, "--norm", norm, rows=",".join(weights.rows))
                        atlas = Atlas(path)
                        self.assertEqual((atlas.header["lens"], atlas.header["norm"]), (lens, norm))
                        for rows in weights.rows:
                            differing += self.agree(f"small models, {norm}", atlas, rows, weights, norm, weights.lens[lens])
                            labels[norm, rows] = [atlas.neurons(rows)[f"{pole}_ids"].tolist() for pole in POLES]
                        self.angles_agree("small models", atlas, weights)
                        if lens == "unembed" and norm in ("none", "final"):
                            self.shown_agree("small models", path, atlas, weights, norm, ((0, 0), (3, 55)))
                for rows in weights.rows:
                    self.assertEqual(labels["none", rows], labels["rms", rows], "a positive factor changed labels")
                    self.assertNotEqual(labels["none", rows], labels["final", rows])
        print(f"labels that differ where float64 cannot tell either: {differing}")

    def test_tied_qwen2_reads_the_embedding(self):
        folder, weights = save_single(small("qwen2", seed=1, tie_word_embeddings=True), self.folder / "model")
        one, other = (Atlas(self.map(folder, "--lens", lens, name=lens)).content() for lens in ("unembed", "embed"))
        self.assertEqual(one["labels"], other["labels"])
        self.assertEqual(one["neurons"], other["neurons"])

    def test_gpt2_has_no_gate(self):
        folder = save_small(gpt2_parity.small(), self.folder / "model")
        with self.assertRaisesRegex(AssertionError, "has no gate"):
            self.map(folder, rows="up,gate")

    def test_a_vector_of_zeros(self):
        """All tokens are alike to it: the first ones are named, at 1 / vocabulary."""
        net = small("llama")
        net.model.layers[1].mlp.up_proj.weight[5] = 0
        folder, _ = save_single(net, self.folder / "model")
        for norm in ("none", "rms", "final", "fold"):
            shown = json.loads(run("neurons", "show", self.map(folder, "--norm", norm), "1.5", "--json"))
            for pole in POLES:
                self.assertEqual([label["id"] for label in shown["up"][pole]], list(range(TOP)))
                for label in shown["up"][pole]:
                    self.within("p of a vector of zeros", abs(label["p"] - 1 / 97), 1e-9)
            self.assertIsNone(shown["up"]["kurtosis"])
            self.assertEqual(shown["up"]["norm"], 0)

    def test_more_labels_than_tokens(self):
        folder, weights = save_single(small("llama"), self.folder / "model")
        labels = Atlas(self.map(folder, "--top", 256)).neurons("up")
        self.assertEqual(labels["top_ids"].shape, (4 * 56, 97))
        self.within("sum of p over all tokens", (labels["top_p"].sum(1) - 1).abs().max().item(), 1e-6)
        self.assertEqual(labels["top_ids"].flip(1).tolist(), labels["bottom_ids"].tolist())

    def test_random_directions_have_the_norms_of_up_rows(self):
        folder, weights = save_single(small("llama"), self.folder / "model")
        atlas = Atlas(self.map(folder, "--random", 40))
        norms = atlas.neurons("random")["norm"]
        self.assertEqual(len(norms), 40)
        for block, part in enumerate(norms.split(10)):
            up = weights.raw("up", block).norm(dim=1)
            self.within("norms of random directions, relative",
                        ((part[:, None] - up).abs() / up).amin(1).max().item(), 1e-6)

    def test_some_blocks_are_those_of_the_whole(self):
        folder, weights = save_single(small("llama", intermediate_size=200), self.folder / "model")
        whole, some = Atlas(self.map(folder, "--random", 0)), Atlas(self.map(folder, "--blocks", "1-2", "--random", 0, name="some"))
        self.assertEqual(some.blocks, [1, 2])
        for table, at in (("neurons", "block"), ("angles", "block")):
            rows = whole.database.execute(f"SELECT * FROM {table} WHERE {at} IN (1, 2)").fetchall()
            self.assertTrue(rows)
            self.assertEqual(some.database.execute(f"SELECT * FROM {table}").fetchall(), rows)
        rows = whole.database.execute("SELECT labels.* FROM labels JOIN neurons ON neuron_id = id WHERE block IN (1, 2) "
                                      "ORDER BY neuron_id, pole, rank").fetchall()
        self.assertEqual(some.database.execute("SELECT * FROM labels").fetchall(), rows)
        for rows in weights.rows:
            self.agree("some blocks", some, rows, weights)

    def test_another_models_head(self):
        first, weights = save_single(small("llama"), self.folder / "first")
        second, others = save_single(small("llama", seed=9), self.folder / "second")
        atlas = Atlas(self.map(first, "--head", second))
        self.assertEqual(set(atlas.sets), {(rows, head) for rows in ("up", "gate", "down", "random") for head in ("own", "other")})
        for rows in weights.rows:
            self.agree("another's head", atlas, rows, weights, head=others.lens["unembed"], set_head="other")
            self.agree("another's head", atlas, rows, weights)


class Resumed(NeuronParity):
    def killed(self, command, partial, bytes_more):
        """Kills a map when its file has grown by so much; whether that was before it was done."""
        before = partial.stat().st_size if partial.exists() else 0
        with subprocess.Popen([str(LAMINA), *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            while process.poll() is None:
                if partial.exists() and partial.stat().st_size >= before + bytes_more:
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.001)
            return process.wait() == -signal.SIGKILL

    def done_in(self, partial):
        """(set, block) pairs that a killed run left, read off a copy with its journal."""
        for ending in ("", "-journal"):
            if (partial.parent / (partial.name + ending)).exists():
                shutil.copy(partial.parent / (partial.name + ending), self.folder / ("copy" + ending))
        database = sqlite3.connect(self.folder / "copy")
        return database.execute("SELECT COUNT(DISTINCT set_id * 1000 + block) FROM neurons").fetchone()[0]

    def test_after_kills(self):
        folder, _ = save_single(small("llama", num_hidden_layers=12, intermediate_size=300, vocab_size=1009), self.folder / "model")
        whole = Atlas(self.map(folder, "--random", 90)).content()
        path = self.folder / "resumed.sqlite"
        partial = path.parent / (path.name + ".partial")
        command = ["neurons", "map", folder, "-o", path, "--rows", "up,gate,down", "--random", 90, "-q"]
        left = []
        for kill in range(3):
            self.assertTrue(self.killed(command + (["--resume"] if kill else []), partial, 1_000_000))
            self.assertFalse(path.exists())
            left.append(self.done_in(partial))
        self.assertTrue(0 < left[0] < left[-1] < 37, left)
        answer = json.loads(run(*command, "--resume", "--json"))
        self.assertLess(answer["more"]["vectors"], 36 * 300 + 90 - 300 * (left[-1] - 1))
        resumed = Atlas(path).content()
        self.assertEqual(list(whole), list(resumed))
        for table in whole:
            self.assertTrue(whole[table] == resumed[table], f"{table} is not what an uninterrupted run writes")
        print(f"killed with {left} of 37 blocks of sets done, then finished: the same content")


class Compare(NeuronParity):
    def recount(self, one, two, rows, heads):
        a, b = one.neurons(rows, heads[0]), two.neurons(rows, heads[1])
        k = min(a["top_ids"].shape[1], b["top_ids"].shape[1])
        lists = [(x[:k], y[:k]) for x, y in zip(a["top_ids"].tolist(), b["top_ids"].tolist())]
        same = numpy.array([x[0] == y[0] for x, y in lists])
        overlap = numpy.array([len(set(x) & set(y)) / len(set(x) | set(y)) for x, y in lists])
        return a["block"].numpy(), same, overlap

    def test_figures(self):
        base = small("llama")
        tuned = small("llama")
        generator = torch.Generator().manual_seed(4)
        for weight in tuned.parameters():
            weight += 0.1 * weight.std() * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        first, _ = save_single(base, self.folder / "first")
        second, _ = save_single(tuned, self.folder / "second")
        paths = self.map(first, name="first"), self.map(second, "--head", first, "--top", 5, name="second")
        one, two = map(Atlas, paths)
        comparisons = json.loads(run("neurons", "compare", *paths, "--json"))["comparisons"]
        heads = {"each its own": ("own", "own"), "the first one's for both": ("own", "other")}
        self.assertEqual({(c["rows"], c["heads"]) for c in comparisons},
                         {(rows, head) for rows in ("up", "gate", "down") for head in heads})
        for ours in comparisons:
            block, same, overlap = self.recount(one, two, ours["rows"], heads[ours["heads"]])
            self.assertEqual((ours["neurons"], ours["same"]), (len(same), same.sum()))
            self.assertTrue(0 < same.mean() < 1)
            self.within("compare, overlap", abs(ours["overlap"] - overlap.mean()), 1e-12)
            self.within("compare, share", abs(ours["share"] - same.mean()), 1e-12)
            self.assertEqual([entry["block"] for entry in ours["blocks"]], [0, 1, 2, 3])
            for entry in ours["blocks"]:
                here = block == entry["block"]
                self.assertEqual((entry["neurons"], entry["same"]), (here.sum(), same[here].sum()))
                self.within("compare, overlap", abs(entry["overlap"] - overlap[here].mean()), 1e-12)


class Contributions(NeuronParity):
    """Embedding, every attention and a_n times the down column of every neuron, each through the last norm with its scale
    held and through W_U: they add up to the logits."""

    def add_up(self, what, net, parts):
        folder, ids = save_small(net, self.folder / what), batch()[0][2:]
        weights, ours = Weights(net), forward(folder, ids, tap="all,neurons,end")
        x = ours["end.before_norm"][0]
        if weights.bias is not None:
            eps, x = net.config.layer_norm_epsilon, x - x.mean(1, keepdim=True)
        else:
            eps = net.config.rms_norm_eps
        scale = (x.square().mean(1, keepdim=True) + eps).rsqrt()

        def logits(part):  # [tokens, ..., width]
            if weights.bias is not None:
                part = part - part.mean(-1, keepdim=True)
            held = scale.view(-1, *[1] * (part.dim() - 1))
            return part * held * weights.gain @ weights.lens["unembed"].T

        total = logits(net.get_input_embeddings()(ids)[0])
        if weights.bias is not None:
            total = total + logits(net.transformer.wpe.weight[:ids.shape[1]]) + weights.bias @ weights.lens["unembed"].T
        for block in range(4):
            attention, mlp = (name.format(block) for name in parts)
            total = total + logits(ours[f"{attention}.after"][0] - ours[f"{attention}.before"][0])
            neurons = ours[f"{mlp}.post"][0][:, :, None] * weights.raw("down", block)  # [tokens, neurons, width]
            total = total + logits(neurons).sum(1)
            if weights.bias is not None:
                total = total + logits(net.transformer.h[block].mlp.c_proj.bias.expand(ids.shape[1], -1))
        self.within("sum of all direct contributions", largest_difference(ours["logits"][0], total), 1e-9)

    def test_llama(self):
        self.add_up("llama", small("llama"), ("model.layers.{}.self_attn", "model.layers.{}.mlp"))

    def test_gpt2(self):
        self.add_up("gpt2", gpt2_parity.small(), ("transformer.h.{}.attn", "transformer.h.{}.mlp"))


# ---- SmolLM2


@needs_smollm2
class SmolLM2(NeuronParity):
    def agree_on(self, weights, norm, rows, blocks=(2, 25)):
        atlas = Atlas(self.map(reference.SMOLLM2, "--blocks", ",".join(map(str, blocks)), "--norm", norm, "--random", 0,
                               rows=",".join(rows), name=norm))
        differing = sum(self.agree(f"SmolLM2, {norm}", atlas, name, weights, norm) for name in rows)
        labels = 2 * TOP * len(rows) * len(blocks) * atlas.header["neurons"]
        print(f"SmolLM2, {norm}: {differing} of {labels} labels differ, each within {MARGIN} in float64")
        return atlas

    @classmethod
    def weights(cls):
        return Weights(open_reference(reference_folder(reference.SMOLLM2), torch.float32))

    def test_up_rows(self):
        weights = self.weights()
        atlas = self.agree_on(weights, "none", ["up"])
        self.angles_agree("SmolLM2", atlas, weights)

    @slow
    def test_all_rows_and_norms(self):
        weights = self.weights()
        every = ["up", "gate", "down"]
        none, rms = self.agree_on(weights, "none", every), self.agree_on(weights, "rms", every)
        self.agree_on(weights, "final", every)
        self.agree_on(weights, "fold", ["up", "gate"])
        differing = 0
        for rows in every:
            one, other = none.neurons(rows), rms.neurons(rows)
            differing += sum((one[f"{pole}_ids"] != other[f"{pole}_ids"]).sum().item() for pole in POLES)
        print(f"SmolLM2: none and rms differ in {differing} labels, all of them within the margin")
        self.shown_agree("SmolLM2", self.folder / "none.sqlite", none, weights, "none", ((2, 0), (25, 1535), (25, 345)))


def held(net, block, neuron, site, value):
    """Holds a neuron of a Llama at a value by a hook, as lamina's --site says; returns its handle."""
    mlp = net.model.layers[block].mlp

    def write(tensor):
        tensor = tensor.clone()
        tensor[..., neuron] = value
        return tensor

    if site == "post":
        return mlp.down_proj.register_forward_pre_hook(lambda module, inputs: (write(inputs[0]),))
    layer = mlp.up_proj if site == "linear" else mlp.gate_proj
    return layer.register_forward_hook(lambda module, inputs, output: write(output))


@needs_smollm2
@needs_shared
class ClampedSmolLM2(NeuronParity):
    PROMPT, WORD, TOKENS = "My favourite animal is the", "dog", 12

    def setUp(self):
        super().setUp()
        self.reference_folder = reference_folder(reference.SMOLLM2)
        self.net = open_reference(self.reference_folder, torch.float32)
        self.tokenizer = AutoTokenizer.from_pretrained(self.reference_folder)
        self.ids = torch.tensor([self.tokenizer(self.PROMPT)["input_ids"]])
        self.spellings = [id for id in range(len(self.tokenizer))
                          if self.tokenizer.decode([id]).strip().lower() == self.WORD]
        self.before = self.log_p()

    def log_p(self):
        return self.net(self.ids, use_cache=False).logits[0].double().log_softmax(1)

    def greedy(self):
        answer = self.net.generate(self.ids, attention_mask=torch.ones_like(self.ids), do_sample=False, max_new_tokens=self.TOKENS,
                                   num_beams=1, repetition_penalty=1.0)[0, self.ids.shape[1]:].tolist()
        return answer[:-1] if answer and answer[-1] == self.net.config.eos_token_id else answer

    def statistics(self, block, neuron, site):
        text = " ".join(line.strip() for line in CALIBRATION.read_text().splitlines() if line.strip())
        ids = torch.tensor(self.tokenizer(text[:2000])["input_ids"][:192]).view(2, 96)
        mlp, seen = self.net.model.layers[block].mlp, []
        if site == "post":
            handle = mlp.down_proj.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][..., neuron]))
        else:
            layer = mlp.up_proj if site == "linear" else mlp.gate_proj
            handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output[..., neuron]))
        self.net.model(ids, use_cache=False)
        handle.remove()
        values = seen[0].flatten().double()
        return {"mean": values.mean(), "sd": values.std(correction=0), "min": values.min(), "max": values.max(), "positions": 192}

    def answer_agrees(self, ours, log_p):
        kl = (self.before.exp() * (self.before - log_p)).sum(1)
        # A difference of two nearly equal sums in float32: absolute where it is small.
        self.within("clamp, KL, of 1 + KL", abs(ours["kl"] - kl[-1].item()) / (1 + kl[-1].item()), 1e-4)
        self.within("clamp, mean KL, of 1 + KL", abs(ours["mean_kl"] - kl.mean().item()) / (1 + kl.mean().item()), 1e-4)
        concept = log_p[-1, self.spellings].logsumexp(0).item()
        self.within("clamp, log p of the concept", abs(ours["concept_log_p"] - concept), 1e-3)
        for entry in ours["next"]:
            self.within("clamp, p of the next token", abs(entry["p"] - log_p[-1, entry["id"]].exp().item()), 1e-4)

    def clamp(self, block, neuron, site, value, *options):
        return json.loads(run("neurons", "clamp", reference.SMOLLM2, "--set", f"{block}.{neuron}={value}", "--site", site, "-p",
                              self.PROMPT, "--concept", self.WORD, "--tokens", self.TOKENS, "--calibration", CALIBRATION,
                              "--samples", 2, "--length", 96, "--json", *options))

    def test_every_site(self):
        plain = self.greedy()
        changed = 0
        for block, neuron, site, value in ((12, 345, "post", "+40sd"), (3, 77, "linear", "-20sd"), (20, 1500, "gate", "+10max")):
            with self.subTest(site=site):
                ours = self.clamp(block, neuron, site, value, "--no-sweep")
                entry = ours["clamps"][0]
                right = self.statistics(block, neuron, site)
                self.assertEqual(entry["statistics"]["positions"], right["positions"])
                for name in ("mean", "sd", "min", "max"):
                    self.within("statistics of a neuron, in deviations",
                                abs(entry["statistics"][name] - right[name].item()) / right["sd"].item(), 1e-3)
                unit = right["sd"] if value.endswith("sd") else torch.maximum(right["max"].abs(), right["min"].abs())
                number = float(value.removesuffix("sd").removesuffix("max"))
                self.within("value of a clamp, relative", abs(entry["value"] / (number * unit.item()) - 1), 1e-4)
                self.assertEqual(sorted(ours["concept"]["tokens"]), self.spellings)
                self.answer_agrees(ours["before"], self.before)
                self.assertEqual(ours["before"]["ids"], plain)
                handle = held(self.net, block, neuron, site, entry["value"])
                log_p, text = self.log_p(), self.greedy()
                handle.remove()
                self.assertGreater(ours["after"]["kl"], 1e-4)
                self.answer_agrees(ours["after"], log_p)
                self.assertEqual(ours["after"]["ids"], text)
                self.within("clamp, change of log p", abs(ours["concept"]["delta_log_p"] - (
                    log_p[-1, self.spellings].logsumexp(0) - self.before[-1, self.spellings].logsumexp(0)).item()), 1e-3)
                changed += text != plain
        self.assertGreater(changed, 0, "no clamp was strong enough to change the text")

    @slow
    def test_sweep(self):
        ours = self.clamp(12, 345, "post", "+10sd")
        self.assertEqual([row["sd"] for row in ours["sweep"]], [-50, -20, -10, -5, -2, -1, 1, 2, 5, 10, 20, 50])
        for row in ours["sweep"]:
            self.within("value of a sweep, relative",
                        abs(row["value"] / (row["sd"] * ours["clamps"][0]["statistics"]["sd"]) - 1), 1e-9)
            handle = held(self.net, 12, 345, "post", row["value"])
            log_p, text = self.log_p(), self.greedy()
            handle.remove()
            self.answer_agrees(row, log_p)
            self.assertEqual(row["ids"], text)


if __name__ == "__main__":
    reference.main()
