"""Training as PyTorch, transformers and peft have it: fifty steps of small models on the same samples in the same order,
with accumulation, clipping, weight decay, warm-up and masked positions, full and with adapters, in float64."""

import hashlib
import importlib.util
import json
import struct
import unittest

import reference
import torch
import transformers
from gpt2_parity import small as small_gpt2
from reference import Parity, float64_reference, load_file, open_float64, open_reference, run, save_file, save_small, small

needs_peft = unittest.skipUnless(importlib.util.find_spec("peft"), "skipped: the Python package peft is missing")

STEPS, BATCH, ACCUMULATE, LENGTH, VOCABULARY = 50, 3, 2, 17, 97
RATE, FLOOR, WARMUP, DECAY, CLIP = 2e-3, 1e-4, 5, 0.1, 0.7
FLAGS = ["--steps", STEPS, "--batch", BATCH, "--accumulate", ACCUMULATE, "--lr", RATE, "--min-lr", FLOOR, "--warmup", WARMUP,
         "--weight-decay", DECAY, "--clip", CLIP, "--epsilon", 1e-6, "--dtype", "float64", "--weights", "float64",
         "--json", "--quiet"]


def give_tokenizer(folder):
    """Heal shows what the model says, so a folder needs one: a token for each printable character."""
    from tokenizers import Tokenizer, models

    characters = ["<a>", "<b>"] + [chr(code) for code in range(32, 127)]
    Tokenizer(models.BPE({text: number for number, text in enumerate(characters)}, [])).save(str(folder / "tokenizer.json"))


def samples():
    draw = torch.Generator().manual_seed(7)
    # Half of a step's samples are learnt in part only, so that a mean of means is another number.
    ids = torch.randint(0, VOCABULARY, (24, LENGTH), generator=draw)
    labels = ids.clone()
    for row in range(0, 24, 2):
        labels[row, : 3 + row % 11] = -100
    return ids, labels


class SplitMix:
    def __init__(self, seed):
        self.state = seed

    def uniform(self):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return ((z ^ (z >> 31)) >> 11) * 2.0**-53


def adapt(net, rank, alpha, targets):
    """peft's adapters, begun with the numbers that lamina begins with."""
    import peft

    net = peft.get_peft_model(net, peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=targets,
                                                   fan_in_fan_out=net.config.model_type == "gpt2")).double()
    for name, weight in net.named_parameters():
        if "lora_A" not in name:
            continue
        path = name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight")
        random = SplitMix(struct.unpack(">Q", hashlib.sha256(f"0 {path}".encode()).digest()[:8])[0])
        bound = weight.shape[1] ** -0.5
        assert (weight.abs() <= bound * (1 + 1e-7)).all(), f"{name}: peft begins elsewhere"
        with torch.no_grad():
            weight.copy_(torch.tensor([bound * (2 * random.uniform() - 1) for _ in range(weight.numel())],
                                      dtype=torch.float64).view_as(weight))
    return net


def learn(net, ids, labels, schedule):
    """What a careful user of transformers would write."""
    leaves = [weight for weight in net.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(leaves, lr=RATE, weight_decay=DECAY, eps=1e-6)
    if schedule == "cosine":
        rates = transformers.get_cosine_with_min_lr_schedule_with_warmup(optimizer, WARMUP, STEPS, min_lr=FLOOR)
    else:
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / WARMUP if step < WARMUP else (
            FLOOR + (RATE - FLOOR) * (STEPS - step) / (STEPS - WARMUP)) / RATE)
    curve = []
    for step in range(STEPS):
        rows = [(step * ACCUMULATE * BATCH + i) % len(ids) for i in range(ACCUMULATE * BATCH)]
        count = (labels[rows, 1:] != -100).sum()
        loss = 0.0
        for first in range(0, len(rows), BATCH):
            some = rows[first:first + BATCH]
            part = net(input_ids=ids[some], labels=labels[some], num_items_in_batch=count, use_cache=False).loss
            part.backward()
            loss += part.item()
        norm = torch.nn.utils.clip_grad_norm_(leaves, CLIP)
        curve.append({"loss": loss, "gradient_norm": norm.item(), "lr": optimizer.param_groups[0]["lr"]})
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
    return curve


class Training(Parity):
    def check(self, kind, net, schedule="cosine", rank=0, targets="", **changes):
        folder = save_small(net, self.folder / "model")
        give_tokenizer(folder)
        ids, labels = samples()
        save_file({"input_ids": ids, "labels": labels}, self.folder / "samples.safetensors")
        adapters = ["--lora", rank, "--alpha", 5, "--targets", targets] if rank else []
        said = json.loads(run("heal", folder, "--samples", self.folder / "samples.safetensors", "-o", self.folder / "out",
                              "--schedule", schedule, *FLAGS, *adapters))
        ours = said["training"]["steps"]

        net = open_float64(folder) if kind == "llama" else open_reference(folder, torch.float64)
        with torch.enable_grad(), float64_reference():
            if rank:
                net = adapt(net, rank, 5, [target.removeprefix("*.") for target in targets.split(",")])
            else:
                net.requires_grad_(True)
            theirs = learn(net, ids, labels, schedule)
        self.assertEqual(len(ours), STEPS)
        self.assertLess(theirs[-1]["loss"], 0.9 * theirs[0]["loss"], "nothing was learnt")
        self.assertGreater(max(record["gradient_norm"] for record in theirs), CLIP, "nothing was clipped")
        for mine, its in zip(ours, theirs):
            self.within("loss of a step", abs(mine["loss"] - its["loss"]), 1e-9)
            self.within("norm of a gradient", abs(mine["gradient_norm"] - its["gradient_norm"]), 1e-8)
            self.within("learning rate", abs(mine["learning_rate"] - its["lr"]), 1e-17)
        if rank:
            net = net.merge_and_unload()
        weights = dict(net.named_parameters())
        written = load_file(self.folder / "out" / "model.safetensors")
        for name, weight in weights.items():
            self.within("weight after fifty steps", (written[name].double() - weight).abs().max().item(), 1e-9)

    def test_llama(self):
        self.check("llama", small("llama"))

    def test_llama_tied_on_a_line(self):
        self.check("llama", small("llama", tie_word_embeddings=True), schedule="linear")

    @needs_peft
    def test_llama_with_adapters(self):
        self.check("llama", small("llama"), rank=4,
                   targets="*.q_proj,*.k_proj,*.v_proj,*.o_proj,*.gate_proj,*.up_proj,*.down_proj")

    def test_gpt2(self):
        self.check("gpt2", small_gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))

    @needs_peft
    def test_gpt2_with_adapters(self):
        self.check("gpt2", small_gpt2(), rank=4, targets="*.c_attn,*.c_proj,*.c_fc")


if __name__ == "__main__":
    reference.main()
