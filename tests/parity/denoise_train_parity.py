"""Training a denoiser as diffusers and PyTorch have it: twenty steps of small U-Nets on the same samples, with warm-up,
clipping, weight decay and accumulation, from noise alone and from a teacher and its maps, in float64."""

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import reference
import torch
from reference import Parity, float64_reference, load_file, save_file

try:
    import diffusers
except ImportError:
    print("skipped: the Python package diffusers is missing; `make parity` installs what parity is measured against")
    sys.exit(77)

PROGRAM = pathlib.Path(os.environ.get("DENOISE_TRAIN", reference.SOURCE / "build" / "tests" / "parity" / "denoise_train")).resolve()
diffusers.utils.logging.disable_progress_bar()

STEPS, BATCH, ACCUMULATE, RATE, WARMUP, DECAY, CLIP, EPSILON = 20, 2, 2, 1e-3, 4, 0.1, 0.5, 1e-6
CONFIG = {"in_channels": 4, "out_channels": 4, "sample_size": 8, "block_out_channels": [16, 24], "layers_per_block": 2,
          "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
          "attention_head_dim": 2, "cross_attention_dim": 12, "norm_num_groups": 8}


def small(config, seed):
    torch.manual_seed(seed)
    net = diffusers.UNet2DConditionModel(**config).double()
    with torch.no_grad():
        for name, weight in net.named_parameters():
            scale = 1.0 / weight[0].numel() ** 0.5 if weight.dim() > 1 else 0.2
            weight.copy_(torch.randn_like(weight) * scale + (1 if "norm" in name and name.endswith("weight") else 0))
    return net


def samples(count):
    draw = torch.Generator().manual_seed(5)
    normal = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)
    return {"sample": normal(count, 4, 8, 8), "time": torch.randint(0, 1000, (count,), generator=draw).double(),
            "text": normal(count, 5, 12), "target": normal(count, 4, 8, 8)}


def maps_of(net, kept):
    """Behind each stage."""
    for name, block in [*((f"down_blocks.{i}", b) for i, b in enumerate(net.down_blocks)), ("mid_block", net.mid_block),
                        *((f"up_blocks.{i}", b) for i, b in enumerate(net.up_blocks))]:
        block.register_forward_hook(lambda _, __, out, name=name: kept.__setitem__(name, out[0] if isinstance(out, tuple) else out))


@torch.enable_grad()
def theirs(net, given, teacher=None):
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY, eps=EPSILON)
    rate = lambda step: step / WARMUP if step < WARMUP else 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    ours, others = {}, {}
    if teacher:
        maps_of(net, ours), maps_of(teacher, others)
    losses, objectives = [], []
    for step in range(STEPS):
        loss_here = objective_here = 0.0
        for micro in range(ACCUMULATE):
            at = (step * ACCUMULATE + micro) * BATCH
            row = {name: value[at : at + BATCH] for name, value in given.items()}
            said = net(row["sample"], row["time"], row["text"]).sample
            loss = objective = torch.nn.functional.mse_loss(said, row["target"])
            if teacher:
                with torch.no_grad():
                    taught = teacher(row["sample"], row["time"], row["text"]).sample
                objective = loss + torch.nn.functional.mse_loss(said, taught)
                # The first map is in front of what the student lacks.
                for name in ("down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"):
                    objective = objective + torch.nn.functional.mse_loss(ours[name], others[name])
            (objective / ACCUMULATE).backward()
            loss_here += loss.item() / ACCUMULATE
            objective_here += objective.item() / ACCUMULATE
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step(), schedule.step(), optimizer.zero_grad()
        losses.append(loss_here), objectives.append(objective_here)
    return losses, objectives, dict(net.state_dict())


class Training(Parity):
    def compare(self, teacher=None, **changes):
        net = small(CONFIG | changes, 1)
        given = samples(STEPS * BATCH * ACCUMULATE)
        with tempfile.TemporaryDirectory(prefix="lamina-parity-") as place:
            folder = pathlib.Path(place)
            net.save_pretrained(folder / "student")
            more = []
            if teacher:
                teacher.save_pretrained(folder / "teacher")
                more = ["--teacher", folder / "teacher", "--features", "plain"]
            save_file(given, folder / "in.safetensors")
            done = subprocess.run([str(part) for part in [
                PROGRAM, folder / "student", folder / "in.safetensors", folder / "out.safetensors", "--steps", STEPS, "--batch", BATCH,
                "--accumulate", ACCUMULATE, "--lr", RATE, "--warmup", WARMUP, "--weight-decay", DECAY, "--clip", CLIP, "--epsilon",
                EPSILON, *more]], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            said, weights = json.loads(done.stdout), {name: value.clone() for name, value in load_file(folder / "out.safetensors").items()}
        with float64_reference():
            losses, objectives, expected = theirs(net, given, teacher)
        self.assertLess(max(abs(a - b) for a, b in zip(said["losses"], losses, strict=True)), 1e-9)
        self.assertLess(max(abs(a - b) for a, b in zip(said["objectives"], objectives, strict=True)), 1e-9)
        self.assertEqual(set(weights), set(expected))
        apart = max((weights[name] - expected[name]).abs().max().item() for name in weights)
        self.assertLess(apart, 1e-9)
        print(f"{STEPS} steps: losses from {losses[0]:.4f} to {losses[-1]:.4f}, weights at most {apart:.1e} apart")

    def test_from_noise(self):
        self.compare()

    def test_from_noise_with_linear_projections(self):
        self.compare(use_linear_projection=True, mid_block_type=None)

    def test_from_a_teacher(self):
        whole = small(CONFIG, 2).eval()
        self.compare(teacher=whole, layers_per_block=[2, 1])


if __name__ == "__main__":
    unittest.main()
