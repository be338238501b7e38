"""What lamina writes of a cut U-Net opens in stock diffusers: nothing missing, unexpected or of another shape, and the
outputs of the cut. Whether a config can say a plan is held against building it, loading it and running it."""

import json
import os
import pathlib
import random
import subprocess

import reference
import torch
from reference import LAMINA, Parity, edit_config, forward_of, largest_difference, load_file, run, save_file
from unet_parity import LAYOUTS, SD, XL, diffusers, inputs, parts, silence, small, theirs

diffusers.utils.logging.set_verbosity_error()
Net = diffusers.UNet2DConditionModel
MIDDLE = "UNetMidBlock2DCrossAttn"
PLANS = 1000 if os.environ.get("LAMINA_SLOW") == "1" else 120


def stock(folder, dtype=torch.float64):
    """The folder as diffusers opens it; anything it would pass over with a warning is an error."""
    net, info = Net.from_pretrained(folder, torch_dtype=dtype, output_loading_info=True, low_cpu_mem_usage=False)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(what):
            raise AssertionError(f"{folder}: {what}: {info[what]}")
    return net.eval()


def apply(model, out, removed, form, wiring="exact"):
    """Writes the form; false where lamina says that it cannot."""
    plan = pathlib.Path(str(out) + ".json")
    plan.write_text(json.dumps({"lamina_plan": 1, "edits": [{"edit": "cut", "site": site} for site in removed]}))
    done = subprocess.run([LAMINA, "apply", model, plan, "-o", out, "--force", "--quiet", "--export", form, "--wiring", wiring],
                          capture_output=True, text=True)
    if done.returncode == 0:
        return True
    if "not possible" not in done.stderr:
        raise AssertionError(f"lamina apply {form} {removed}: {done.stderr}")
    return False


class Naive:
    """A stock model out of what is left, made without lamina's rule: stages in order, the first places filled, and
    diffusers to say whether that can be built and loaded."""

    def __init__(self, net, config, removed):
        self.net, self.config, self.removed = net, dict(net.config), set(removed)
        self.moves, self.zero = {}, set()
        self.stages = len(self.config["block_out_channels"])

    def layers(self, stage):
        """Of each layer, whether the ResNet is left, and the numbers of the blocks that are, or None."""
        found = []
        for j in range(len(self.net.get_submodule(stage).resnets)):
            attention, blocks = f"{stage}.attentions.{j}", None
            if hasattr(self.net.get_submodule(stage), "attentions") and j < len(self.net.get_submodule(stage).attentions):
                depth = len(self.net.get_submodule(attention).transformer_blocks)
                left = [k for k in range(depth) if f"{attention}.transformer_blocks.{k}" not in self.removed]
                alive = attention not in self.removed and (depth < 2 or left)
                blocks = left if alive else None
            found.append((f"{stage}.resnets.{j}" not in self.removed, blocks, attention))
        return found

    def move(self, old, new):
        self.moves[new] = old

    def side(self, stage, target):
        """Moves what is left; the depth of every place, or None where the side has no transformer."""
        layers = self.layers(stage)
        kept = [j for j, layer in enumerate(layers) if layer[0]]
        alive = [j for j, layer in enumerate(layers) if layer[1] is not None]
        if len(alive) > len(kept):
            raise ValueError("more transformers than ResNets")
        places = dict(zip((kept.index(j) for j in alive), alive)) if set(alive) <= set(kept) else dict(enumerate(alive))
        for p, j in enumerate(kept):
            self.move(f"{stage}.resnets.{j}", f"{target}.resnets.{p}")
        if not alive:
            return len(kept), None
        return len(kept), [self.transformer(layers[places[p]] if p in places else None, f"{target}.attentions.{p}")
                           for p in range(len(kept))]

    def transformer(self, layer, target):
        if layer is None:
            self.zero.add(target)
            return 0
        for name in ("norm", "proj_in", "proj_out"):
            self.move(f"{layer[2]}.{name}", f"{target}.{name}")
        for k, old in enumerate(layer[1]):
            self.move(f"{layer[2]}.transformer_blocks.{old}", f"{target}.transformer_blocks.{k}")
        return len(layer[1])

    def middle(self):
        if self.net.mid_block is None:
            return None, 0
        layers = self.layers("mid_block")
        kept = [j for j, layer in enumerate(layers) if layer[0]]
        alive = layers[0][1] is not None
        for p, j in enumerate(kept):
            self.move(f"mid_block.resnets.{j}", f"mid_block.resnets.{p}")
        if len(kept) < 2:
            if alive:
                raise ValueError("a transformer in a middle block of one ResNet")
            return ("UNetMidBlock2D" if kept else None), 0
        return "UNetMidBlock2DCrossAttn", self.transformer(layers[0] if alive else None, "mid_block.attentions.0")

    def built(self, drop_stages):
        s = self.stages
        gone = lambda stage: all(not kept and blocks is None for kept, blocks, _ in self.layers(stage))
        while drop_stages and s > 1 and gone(f"down_blocks.{s - 1}") and gone(f"up_blocks.{self.stages - s}"):
            s -= 1
        config = {key: value for key, value in self.config.items() if not key.startswith("_")}
        down, up = [], []
        for i in range(s):
            there, back = f"down_blocks.{i}", f"up_blocks.{s - 1 - i}"
            down.append(self.side(there, there))
            up.append(self.side(f"up_blocks.{self.stages - 1 - i}", back))
            self.move(f"{there}.downsamplers.0", f"{there}.downsamplers.0")
            self.move(f"up_blocks.{self.stages - 1 - i}.upsamplers.0", f"{back}.upsamplers.0")
        if any(n != m + 1 for (n, _), (m, _) in zip(up, down)):
            raise ValueError("layers on the way up are those on the way down and one")
        mid, depth = self.middle()
        entries = [depths or 1 for _, depths in down]
        if down[-1][1] is None:
            entries[-1] = depth
        for key in ("block_out_channels", "attention_head_dim", "cross_attention_dim", "only_cross_attention"):
            if isinstance(config[key], (list, tuple)):
                config[key] = config[key][:s]
        config |= {"layers_per_block": [n for n, _ in down], "mid_block_type": mid, "transformer_layers_per_block": entries,
                   "reverse_transformer_layers_per_block": [depths or 1 for _, depths in reversed(up)],
                   "down_block_types": ["DownBlock2D" if d is None else "CrossAttnDownBlock2D" for _, d in down],
                   "up_block_types": ["UpBlock2D" if d is None else "CrossAttnUpBlock2D" for _, d in reversed(up)]}
        net = Net(**config).double().eval()
        old, new = self.net.state_dict(), {}
        for name, weight in net.state_dict().items():
            module = max((m for m in self.moves if name.startswith(m + ".")), key=len, default=None)
            if any(name.startswith(z + ".") for z in self.zero):
                new[name] = torch.zeros_like(weight)
            elif module:
                new[name] = old[self.moves[module] + name[len(module):]]
            else:
                new[name] = old[name]
        net.load_state_dict(new, strict=True)
        self.check_blocks(net)
        return net

    def check_blocks(self, net):
        """What no shape tells. The middle transformer has no depth of its own in a config, and no heads."""
        block = lambda path: path.rpartition(".")[0].endswith(".transformer_blocks")
        asked = {path for path, _ in net.named_modules() if block(path)}
        if asked != {path for path in self.moves if block(path)}:
            raise ValueError("other blocks than are left")
        for path in asked:
            if net.get_submodule(path).attn1.heads != self.net.get_submodule(self.moves[path]).attn1.heads:
                raise ValueError("other heads than it was trained with")


def naive(net, config, removed, drop_stages, given):
    """What can be built, loaded and run, else None: stages without layers between other widths fail in the pass only."""
    try:
        made = Naive(net, config, removed).built(drop_stages)
        theirs(made, given)
        return made
    except Exception:  # diffusers refuses with many of them
        return None


def drawn(known, rng):
    """A plan: transformers, the middle block, whole layers, or anything, in turns."""
    resnets = [path for path in known if ".resnets." in path]
    transformers = [path for path in known if ".resnets." not in path]
    mid = [path for path in known if path.startswith("mid_block")]
    removed = set()
    kind = rng.random()
    if kind < 0.4:
        removed |= {path for path in transformers if rng.random() < rng.choice((0.15, 0.5, 0.9))}
    elif kind < 0.8:
        stages = sorted({path.split(".")[1] for path in known if path.startswith("down_blocks")})
        for i in rng.sample(stages, rng.randint(1, len(stages))):
            count = rng.choice((1, 1, 1, 1, 2))
            for side, stage in (("down_blocks", i), ("up_blocks", str(len(stages) - 1 - int(i)))):
                places = sorted({path.split(".")[3] for path in known if path.startswith(f"{side}.{stage}.")})
                for j in "1" if count == 1 and rng.random() < 0.7 else rng.sample(places, min(len(places), count)):
                    removed |= {path for path in known if path.startswith((f"{side}.{stage}.resnets.{j}", f"{side}.{stage}.attentions.{j}"))}
        removed |= {path for path in transformers if rng.random() < 0.1}
    else:
        removed |= set(rng.sample(resnets + transformers, rng.randint(1, 5)))
    if mid and rng.random() < 0.4:
        removed |= set(rng.choice(([m for m in mid if "resnets" in m], mid, [m for m in mid if not m.endswith("resnets.0")],
                                   [m for m in mid if not m.endswith("resnets.1")], [m for m in mid if "attentions" in m])))
    return sorted(removed)


class Export(Parity):
    def write(self, name, config, seed=0, dtype=torch.float64):
        net = small(config, seed)
        net.to(dtype).save_pretrained(self.folder / name)
        return net.double()

    def test_every_layout_in_both_stock_forms(self):
        rng = random.Random(5)
        for number, (name, config) in enumerate(LAYOUTS.items()):
            with self.subTest(layout=name):
                net, model = self.write(f"m{number}", config, number), self.folder / f"m{number}"
                known = parts(net)
                removed = [path for path in known if ".resnets." not in path and not path.startswith("mid") and rng.random() < 0.4]
                if net.mid_block is not None and rng.random() < 0.5:
                    removed += [path for path in known if path.startswith("mid_block")]
                given = inputs(config)
                apply(model, self.folder / "proof", removed, "proof")
                compact = apply(model, self.folder / "compact", removed, "compact")
                silence(net, removed, known)
                expected = theirs(net, given)
                self.within("float64, proof", largest_difference(theirs(stock(self.folder / "proof"), given), expected), 1e-9)
                self.assertEqual(compact, naive(small(config, number), config, removed, False, given) is not None, removed)
                if compact:
                    self.within("float64, compact", largest_difference(theirs(stock(self.folder / "compact"), given), expected), 1e-9)

    def test_single_precision(self):
        for name, config in (("sd", SD), ("xl", XL)):
            net, given = self.write(name, config, 3, torch.float32), inputs(config)
            known = parts(net)
            removed = [p for p in known if ".resnets." not in p and p.startswith("up_blocks.1")] + [p for p in known if p.startswith("mid")]
            silence(net, removed, known)
            net = net.float()
            single = {key: value.float() for key, value in given.items()}
            expected = net(single["sample"], single["time"], single["text"],
                           added_cond_kwargs={k: single[k] for k in ("text_embeds", "time_ids") if k in single}).sample
            for form in ("proof", "compact"):
                self.assertTrue(apply(self.folder / name, self.folder / form, removed, form))
                got = stock(self.folder / form, torch.float32)(
                    single["sample"], single["time"], single["text"],
                    added_cond_kwargs={k: single[k] for k in ("text_embeds", "time_ids") if k in single}).sample
                scale = expected.abs().max().item()
                self.within("float32, relative", largest_difference(got, expected) / scale, 1e-5)

    def test_random_plans(self):
        rng, counts = random.Random(11), {"exact": 0, "stock": 0, "neither": 0}
        nets = {name: (self.write(name, config, 7), config) for name, config in (("sd", SD), ("xl", XL))}
        given = {name: inputs(config, 8, 8, batch=1) for name, (_, config) in nets.items()}
        for number in range(PLANS):
            name = rng.choice(("sd", "sd", "xl"))
            net, config = nets[name]
            known = parts(net)
            removed = drawn(known, rng)
            with self.subTest(plan=removed):
                out = self.folder / "out"
                made = naive(net, config, removed, False, given[name])
                same = False
                if made is not None:
                    cut = Net(**net.config).double().eval()
                    cut.load_state_dict(net.state_dict())
                    silence(cut, removed, known)
                    expected = theirs(cut, given[name])
                    same = largest_difference(theirs(made, given[name]), expected) < 1e-9
                exact = apply(self.folder / name, out, removed, "compact")
                self.assertEqual(exact, same)
                if exact:
                    self.within("float64, compact", largest_difference(theirs(stock(out), given[name]), expected), 1e-9)
                rewired = apply(self.folder / name, out, removed, "compact", "stock")
                made = naive(net, config, removed, True, given[name])
                self.assertEqual(rewired, made is not None)
                if rewired:
                    there = stock(out)
                    predicted = theirs(there, given[name])
                    self.assertEqual(sum(p.numel() for p in there.parameters()), sum(p.numel() for p in made.parameters()))
                    paired = all(path.replace("attentions", "resnets").partition(".transformer_blocks")[0] not in removed or path in removed
                                 for path in known if "attentions" in path and not path.startswith("mid"))
                    if paired:
                        self.within("float64, wired anew", largest_difference(predicted, theirs(made, given[name])), 1e-9)
                counts["exact" if exact else "stock" if rewired else "neither"] += 1
        print(f"{PLANS} plans: {counts}")
        self.assertGreater(min(counts.values()), PLANS // 20)

    def test_the_innermost_stage_goes(self):
        """And with it the heads that the middle block had, where they were others than the next stage's."""
        for number, (heads, middle, possible) in enumerate(((4, False, True), (4, True, True), ([2, 4, 6, 12], True, False),
                                                            ([2, 4, 6, 12], False, True), ([2, 4, 6, 6], True, True))):
            with self.subTest(heads=heads, middle=middle):
                config = SD | {"attention_head_dim": heads}
                net, given = self.write(f"s{number}", config, number), inputs(config)
                gone = ("down_blocks.3", "up_blocks.0") if middle else ("down_blocks.3", "up_blocks.0", "mid_block")
                removed = [path for path in parts(net) if path.startswith(gone)]
                made = naive(net, config, removed, True, given)
                self.assertEqual(made is not None, possible)
                self.assertEqual(apply(self.folder / f"s{number}", self.folder / "out", removed, "compact", "stock"), possible)
                if possible:
                    there = theirs(stock(self.folder / "out"), given)
                    self.within("float64, wired anew", largest_difference(there, theirs(made, given)), 1e-9)

    def test_the_extended_form_is_refused(self):
        self.write("model", SD)
        self.assertTrue(apply(self.folder / "model", self.folder / "out", ["down_blocks.1.resnets.1"], "extended"))
        with self.assertRaisesRegex(ValueError, "LaminaCrossAttnDownBlock2D"):
            Net.from_pretrained(self.folder / "out")
        self.assertTrue(apply(self.folder / "out", self.folder / "back", [], "proof"))  # zeroes where it was cut
        net, known, given = small(SD), parts(small(SD)), inputs(SD)
        silence(net, ["down_blocks.1.resnets.1"], known)
        self.within("float64, proof of a cut", largest_difference(theirs(stock(self.folder / "back"), given), theirs(net, given)), 1e-9)

    def test_kernels_that_time_mixes_fold_to_plain_ones(self):
        """With gates that no time moves diffusers gives what lamina gives of the mixture; with others it opens all the same."""
        for number, (size, exact) in enumerate(((0.0, True), (2.0, False))):
            self.write(f"model{number}", SD)
            conv, plan = "down_blocks.0.resnets.0.conv2", self.folder / "plan.json"
            plan.write_text(json.dumps({"lamina_plan": 1, "edits": [
                {"edit": "cut", "site": "down_blocks.0.resnets.1"}, {"edit": "cut", "site": "up_blocks.3.attentions.1"},
                {"edit": "inherit", "site": conv[:-6], "conv": "conv2", "donors": ["down_blocks.0.resnets.1.conv2"]}]}))
            mixed, out = self.folder / f"mixed{number}", self.folder / f"plain{number}"
            run("apply", self.folder / f"model{number}", plan, "-o", mixed, "--export", "extended", "--quiet")
            file = mixed / "diffusion_pytorch_model.safetensors"
            tensors, generator = load_file(file), torch.Generator().manual_seed(7)
            tensors[f"{conv}.router.weight"].normal_(generator=generator).mul_(size)
            tensors[f"{conv}.router.bias"].normal_(generator=generator)
            save_file(tensors, file, metadata={"format": "pt"})
            with self.assertRaises(ValueError):
                Net.from_pretrained(mixed)
            said = run("apply", mixed, "--fold-gates", "--samples", "20", "-o", out, "--export", "proof", "--quiet").decode()
            self.assertIn("1 mixed convolution made plain", said)
            given = inputs(SD)
            expected = forward_of(mixed, given)["prediction"]
            off = largest_difference(theirs(stock(out), given), expected)
            if exact:
                self.within("float64, folded", off, 1e-9)
                self.within("float64, as it was said", json.loads((out / "plan.json").read_text())["fold"]["moved_most"], 1e-12)
            else:
                self.assertGreater(off, 1e-6)

    def test_a_pipeline(self):
        folder = self.folder / "pipeline"
        self.write("pipeline/unet", SD)
        diffusers.DDIMScheduler().save_pretrained(folder / "scheduler")
        (folder / "model_index.json").write_text(json.dumps(
            {"_class_name": "DDIMPipeline", "unet": ["diffusers", "UNet2DConditionModel"], "scheduler": ["diffusers", "DDIMScheduler"]}))
        for form, refused in (("compact", False), ("proof", False), ("extended", True)):
            self.assertTrue(apply(folder, self.folder / form, ["up_blocks.3.attentions.1"], form))
            same = lambda name: (self.folder / form / name).read_bytes() == (folder / name).read_bytes()
            self.assertTrue(same("scheduler/scheduler_config.json"))
            self.assertEqual(same("model_index.json"), not refused)
            if refused:
                with self.assertRaises(Exception):
                    diffusers.DiffusionPipeline.from_pretrained(self.folder / form)
            else:
                diffusers.DiffusionPipeline.from_pretrained(self.folder / form)
                stock(self.folder / form / "unet")

    def test_files_that_are_not_what_the_config_says(self):
        self.write("model", XL)
        edit_config(self.folder / "model", lambda config: config.update(use_linear_projection=False))
        with self.assertRaisesRegex(AssertionError, "use_linear_projection"):
            run("inspect", self.folder / "model")
        edit_config(self.folder / "model", lambda config: config.update(use_linear_projection=True, layers_per_block=1))
        with self.assertRaisesRegex(AssertionError, r"norm1\.weight has the shape \[128\] where config\.json asks for \[96\]"):
            run("inspect", self.folder / "model")
        edit_config(self.folder / "model", lambda config: config.update(layers_per_block=2, mid_block_type=None))
        with self.assertRaisesRegex(AssertionError, "mid_block.* no place in this model"):
            run("inspect", self.folder / "model")
        edit_config(self.folder / "model", lambda config: config.update(layers_per_block=3, mid_block_type=MIDDLE))
        with self.assertRaisesRegex(AssertionError, "missing"):
            run("inspect", self.folder / "model")


if __name__ == "__main__":
    reference.main()
