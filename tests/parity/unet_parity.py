"""U-Nets as diffusers has them: passes of small random models of every layout that a stock config can say, and parts cut
out of them against the same models with those parts zeroed."""

import itertools
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

import reference
import torch
from reference import Parity, edit_config, float64_reference, largest_difference, load_file, save_file

try:
    import diffusers
except ImportError:
    print("skipped: the Python package diffusers is missing; `make parity` installs what parity is measured against")
    sys.exit(77)

PROGRAM = pathlib.Path(os.environ.get("UNET_FORWARD", reference.SOURCE / "build" / "tests" / "parity" / "unet_forward")).resolve()
diffusers.utils.logging.disable_progress_bar()

# Small, with every kind of block, skips of unequal width, and head widths of 4 and 8.
SD = {"in_channels": 4, "out_channels": 4, "sample_size": 16, "block_out_channels": [16, 32, 48, 48], "layers_per_block": 2,
      "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
      "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, "attention_head_dim": 4, "cross_attention_dim": 24,
      "norm_num_groups": 8}
XL = {"in_channels": 4, "out_channels": 4, "sample_size": 16, "block_out_channels": [16, 32, 64], "layers_per_block": 2,
      "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
      "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "attention_head_dim": [2, 4, 8],
      "transformer_layers_per_block": [1, 2, 4], "cross_attention_dim": 24, "norm_num_groups": 8,
      "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
      "projection_class_embeddings_input_dim": 80}
THREE = {"block_out_channels": [16, 32, 48], "down_block_types": ["CrossAttnDownBlock2D"] * 3,
         "up_block_types": ["CrossAttnUpBlock2D"] * 3}
EQUAL = {"block_out_channels": [16, 16, 16, 16]}

LAYOUTS = {
    "SD 1.5": SD,
    "SD 2.1": SD | {"attention_head_dim": [2, 4, 6, 6], "use_linear_projection": True},
    "SDXL": XL,
    "BK-Base": SD | {"layers_per_block": 1},
    "BK-Small": SD | {"layers_per_block": 1, "mid_block_type": None},
    "BK-Tiny": SD | THREE | {"layers_per_block": 1, "mid_block_type": None},
    "SSD-1B": XL | {"mid_block_type": "UNetMidBlock2D", "reverse_transformer_layers_per_block": [[4, 4, 6], [2, 1, 1], 1]},
    "Vega": XL | {"mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": [1, 1, 2]},
    "KOALA-1B": XL | {"layers_per_block": 1, "transformer_layers_per_block": [1, 2, 6]},
    "KOALA-700M": XL | {"layers_per_block": 1, "transformer_layers_per_block": [1, 2, 5], "mid_block_type": None},
    "layers 1, 2, 2, 1": SD | {"layers_per_block": [1, 2, 2, 1]},
    "no layers outside": SD | {"layers_per_block": [0, 2, 2, 2]},
    "no layers inside": SD | {"layers_per_block": [2, 2, 2, 0]},
    "no layers in the middle": SD | EQUAL | {"layers_per_block": [1, 0, 0, 2]},
    "depth 0 on one side": SD | {"transformer_layers_per_block": [[1, 0], 1, 1, 1],
                                 "reverse_transformer_layers_per_block": [1, 1, 1, [1, 0, 1]]},
    "asymmetric depths": XL | {"transformer_layers_per_block": [1, [3, 1], [2, 0]],
                               "reverse_transformer_layers_per_block": [[0, 1, 3], [2, 1, 0], 1]},
    "depth 0 in the middle": SD | {"transformer_layers_per_block": [1, 1, 1, 0]},
    "attention down, none up": SD | {"up_block_types": ["UpBlock2D"] * 4},
    "attention up, none down": SD | {"down_block_types": ["DownBlock2D"] * 4},
    "attention here and there": SD | {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"] * 2,
                                      "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"] * 2},
    "no attention": SD | {"down_block_types": ["DownBlock2D"] * 4, "up_block_types": ["UpBlock2D"] * 4,
                          "mid_block_type": "UNetMidBlock2D"},
    "the text alone": SD | {"only_cross_attention": True},
    "the text alone outside": SD | {"only_cross_attention": [True, False, False, False]},
    "the text alone, linear": XL | {"only_cross_attention": [True, True, False]},
    "widths of the text": SD | {"cross_attention_dim": [24, 24, 24, 24]},
    "one stage": SD | {"block_out_channels": [16], "down_block_types": ["CrossAttnDownBlock2D"],
                       "up_block_types": ["CrossAttnUpBlock2D"]},
    "equal widths": SD | EQUAL,
    "falling widths": SD | {"block_out_channels": [48, 32, 16, 16]},
    "sine first": SD | {"flip_sin_to_cos": False},
    "shifted frequencies": SD | {"freq_shift": 1},
    "an input in 0 to 1": SD | {"center_input_sample": True},
    "other kernels": SD | {"conv_in_kernel": 1, "conv_out_kernel": 5},
    "a wide kernel": SD | {"conv_in_kernel": 5, "conv_out_kernel": 1},
    "padding on one side": SD | {"downsample_padding": 0},
    "an epsilon": SD | {"norm_eps": 1e-2, "norm_num_groups": 4},
    "a narrow time": SD | {"time_embedding_dim": 20},
    "one head": SD | {"attention_head_dim": 1},
    "other channels": SD | {"in_channels": 9, "out_channels": 3},
}


def small(config, seed=0):
    """A model whose every tensor matters: nothing zero, norms near one."""
    torch.manual_seed(seed)
    net = diffusers.UNet2DConditionModel(**config).double().eval()
    for name, weight in net.named_parameters():
        scale = 1.2 / weight[0].numel() ** 0.5 if weight.dim() > 1 else 0.3
        weight.copy_(torch.randn_like(weight) * scale + (1 if "norm" in name and name.endswith("weight") else 0))
    return net


def inputs(config, height=16, width=16, batch=2, tokens=5, seed=1):
    made = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=made, dtype=torch.float64)
    context = config["cross_attention_dim"]
    given = {"sample": draw(batch, config["in_channels"], height, width),
             "time": torch.tensor([17.0, 951.0, 400.5][:batch], dtype=torch.float64),
             "text": draw(batch, tokens, context[0] if isinstance(context, list) else context)}
    if config.get("addition_embed_type"):
        given["text_embeds"] = draw(batch, config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"])
        given["time_ids"] = torch.tensor([[1024, 768, 0, 32, 1024, 1024]], dtype=torch.float64).repeat(batch, 1)
    return given


def theirs(net, given):
    added = {name: given[name] for name in ("text_embeds", "time_ids") if name in given}
    with float64_reference():
        return net(given["sample"], given["time"], given["text"], added_cond_kwargs=added).sample


def theirs_in(net, given, dtype):
    """In a type of 16 bits, as diffusers computes in it."""
    own = {name: tensor.to(dtype) for name, tensor in given.items()}
    added = {name: own[name] for name in ("text_embeds", "time_ids") if name in own}
    return net(own["sample"], own["time"], own["text"], added_cond_kwargs=added).sample


def ours(folder, given, *more):
    with tempfile.TemporaryDirectory(prefix="lamina-parity-") as place:
        source, out = pathlib.Path(place) / "in.safetensors", pathlib.Path(place) / "out.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in given.items()}, source)
        done = subprocess.run([PROGRAM, folder, source, out, *map(str, more)], capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"unet_forward {folder}: {done.stderr}")
        return load_file(out)["prediction"].clone()


def tensors_of(folder):
    return {name: tensor for file in sorted(pathlib.Path(folder).glob("*.safetensors")) for name, tensor in load_file(file).items()}


def parts(net):
    """Path, and the tensors that silence it: what a cut may take away."""
    found = {}
    for name, module in net.named_modules():
        if name.endswith(("resnets.0", "resnets.1", "resnets.2", "resnets.3")):
            found[name] = ["conv2"]
        elif name.rpartition(".")[0].endswith("attentions"):
            blocks = len(module.transformer_blocks)
            if blocks < 2:
                found[name] = ["proj_out"]
            for k in range(blocks if blocks > 1 else 0):
                found[f"{name}.transformer_blocks.{k}"] = ["attn1.to_out.0", "attn2.to_out.0", "ff.net.2"]
    return found


def silence(net, removed, known):
    """The same model with those parts zeroed, and the projections of transformers of which nothing is left."""
    paths = {f"{path}.{name}" for path in removed for name in known[path]}
    gone = lambda block: all(path in removed for path in known if path.startswith(block + ".transformer_blocks."))
    paths |= {path.partition(".transformer_blocks.")[0] + ".proj_out" for path in removed
              if ".transformer_blocks." in path and gone(path.partition(".transformer_blocks.")[0])}
    for path in paths:
        module = net.get_submodule(path)
        module.weight.zero_()
        module.bias.zero_()


def cut(folder, out, removed, known):
    """The folder without the tensors of these parts: what lamina writes as its own compact form."""
    shortcut = lambda name: ".conv_shortcut." in name
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    wrappers = {path.partition(".transformer_blocks.")[0] for path in removed if ".transformer_blocks." in path}
    empty = {w for w in wrappers if all(path in removed for path in known if path.startswith(w + ".transformer_blocks."))}
    left = {name: tensor for name, tensor in tensors.items()
            if shortcut(name) or not name.startswith(tuple(path + "." for path in (*removed, *empty)))}
    out.mkdir()
    save_file(left, out / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"lamina_removed": sorted(removed)}))
    return out


class Unet(Parity):
    def test_every_layout(self):
        for number, (name, config) in enumerate(LAYOUTS.items()):
            with self.subTest(layout=name):
                net = small(config, number)
                net.save_pretrained(self.folder / str(number))
                for height, width in ((16, 16), (10, 14)):
                    given = inputs(config, height, width)
                    self.within("float64 predictions",
                                largest_difference(ours(self.folder / str(number), given), theirs(net, given)), 1e-9)

    def test_single_precision(self):
        for name in ("SD 1.5", "SDXL", "padding on one side", "the text alone"):
            config = LAYOUTS[name]
            net = small(config)
            net.float().save_pretrained(self.folder / name)
            given, expected = inputs(config), None
            expected = theirs(net.double(), given)
            single = ours(self.folder / name, given, "--dtype", "float32")
            packed = ours(self.folder / name, given, "--dtype", "float32", "--pack", "float32")
            for what, made in (("float32 predictions, relative", single), ("float32 packed, relative", packed)):
                self.within(what, largest_difference(made, expected) / expected.abs().max().item(), 2e-5)

    def test_half_precision(self):
        """Files of 16 bits: opened wide they are those weights; computed in their own type they are near what diffusers makes
        in it, and no farther from the truth. The network is calm, as two right answers in bfloat16 are 0.02 apart
        behind one that makes much of every rounding."""
        for name in ("SD 1.5", "SDXL"):
            config, given = LAYOUTS[name], inputs(LAYOUTS[name])
            calm = {key: weight * 0.5 if weight.dim() > 1 else weight for key, weight in small(config).state_dict().items()}
            for dtype in (torch.bfloat16, torch.float16):
                word, folder = str(dtype).removeprefix("torch."), self.folder / f"{name} {dtype}"
                net = diffusers.UNet2DConditionModel(**config).eval()
                net.load_state_dict(calm)
                net.to(dtype).save_pretrained(folder)
                self.assertEqual({tensor.dtype for tensor in tensors_of(folder).values()}, {dtype})
                their_narrow = theirs_in(net, given, dtype)
                expected = theirs(net.double(), given)
                size = expected.abs().max().item()
                self.within("files of 16 bits, float64 predictions", largest_difference(ours(folder, given), expected), 1e-9)
                single = ours(folder, given, "--dtype", "float32")
                self.within("files of 16 bits, float32 predictions, relative", largest_difference(single, expected) / size, 2e-5)
                narrow = ours(folder, given, "--dtype", word)
                self.assertEqual(narrow.dtype, dtype)
                self.within(f"{word} predictions, relative", largest_difference(narrow, their_narrow) / size, 1e-2)
                error = lambda made: (made.double() - expected).norm().item()
                self.within(f"{word}, error as a share of diffusers' own", error(narrow) / error(their_narrow), 1.5)
                self.assertGreater(error(narrow) / expected.norm().item(), 1e-4, "rounded to that type")

    def test_shards(self):
        config, given = LAYOUTS["SDXL"], inputs(LAYOUTS["SDXL"])
        net = small(config)
        net.save_pretrained(self.folder / "whole")
        net.save_pretrained(self.folder / "shards", max_shard_size="500KB")
        self.assertGreater(len(list((self.folder / "shards").glob("*.safetensors"))), 2)
        # Not to the bit, as sums of products hang on where in a file a weight lies.
        self.within("float64 predictions, sharded", largest_difference(ours(self.folder / "shards", given), theirs(net, given)), 1e-9)
        written = [tensors_of(reference.apply(self.folder / form, "mid.r1", self.folder / f"{form} cut", "proof")) for form in ("shards", "whole")]
        self.assertEqual(written[0].keys(), written[1].keys())
        kept = tensors_of(self.folder / "shards")
        for name, tensor in written[0].items():
            self.assertTrue(torch.equal(tensor, written[1][name]), name)
            if not name.startswith("mid_block.resnets.1.conv2"):
                self.assertTrue(torch.equal(tensor, kept[name]), name)

    def test_one_sample_of_one_pixel(self):
        config = LAYOUTS["SD 1.5"]
        net = small(config)
        net.save_pretrained(self.folder / "model")
        for height, width in ((1, 1), (1, 9), (3, 2)):
            given = inputs(config, height, width, batch=1, tokens=1)
            self.within("float64 predictions, small maps", largest_difference(ours(self.folder / "model", given), theirs(net, given)), 1e-9)

    def test_cuts(self):
        """Parts that are skipped, parts that are gone, and parts zeroed in diffusers make one prediction."""
        choose = random.Random(0)
        for name in ("SD 1.5", "SDXL", "asymmetric depths", "no layers in the middle"):
            config = LAYOUTS[name]
            net = small(config)
            folder = self.folder / name
            net.save_pretrained(folder)
            known = parts(net)
            groups = [[p for p in known if p.startswith(w + ".transformer_blocks.")] for w in
                      sorted({p.partition(".transformer_blocks.")[0] for p in known if ".transformer_blocks." in p})]
            plans = [choose.sample(sorted(known), choose.randint(1, len(known) - 1)) for _ in range(5)]
            plans += [sorted(known), *([groups[0], sorted(set(itertools.chain(*groups)))] if groups else [])]
            for number, plan in enumerate(plans):
                with self.subTest(layout=name, plan=plan):
                    removed, given = set(plan), inputs(config, 10, 14)
                    zeroed = small(config)
                    silence(zeroed, removed, known)
                    expected = theirs(zeroed, given)
                    self.within("skipped against zeroed",
                                largest_difference(ours(folder, given, "--skip", ",".join(plan)), expected), 1e-9)
                    without = cut(folder, self.folder / f"{name}-{number}", removed, known)
                    self.within("cut against zeroed", largest_difference(ours(without, given), expected), 1e-9)

    def test_what_is_refused(self):
        config = LAYOUTS["SD 1.5"]
        net = small(config)
        net.save_pretrained(self.folder / "model")
        given = inputs(config)
        for changes, words in (({"sample": given["sample"][:, :3]}, "channels"), ({"text": given["text"][:1]}, "batch"),
                               ({"text": given["text"][..., :20]}, "reads a text of width 24, not of 20")):
            with self.assertRaisesRegex(AssertionError, words):
                ours(self.folder / "model", given | changes)
        edit_config(self.folder / "model", lambda kept: kept.update(dual_cross_attention=True))
        with self.assertRaisesRegex(AssertionError, "dual_cross_attention"):
            ours(self.folder / "model", given)


if __name__ == "__main__":
    if not PROGRAM.exists():
        print(f"skipped: {PROGRAM} is not built")
        sys.exit(77)
    reference.main()
