#!/usr/bin/env python3
"""Cut denoisers by the command line: a plan gives what `lamina prune` wrote, LoRAs fit it, `lamina verify` holds it against the
model it was cut from, and mixed kernels become plain ones.

    tests/e2e/denoiser_test.py build/lamina
"""
import json
import random
import struct
import unittest

import scenes_test
from scenes_test import AUTOENCODER, DENOISER, ROOT, run

# As Stable Diffusion 1: four stages, two layers in each.
FOUR = DENOISER | {"model": DENOISER["model"] | {
    "attention_head_dim": 2, "block_out_channels": [4, 8, 8, 8], "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3}}
QUICK = ["--method", "magnitude", "--pictures", "scene", "--samples", 1, "--heldout", 1, "--repeats", 1, "--rerank", 0, "--refine", 0, "--compare",
         "none", "--trajectory", 0, "-q"]
WEIGHTS = "diffusion_pytorch_model.safetensors"


def tensors(file):
    """Of a safetensors file: name to type, shape and bytes."""
    data = file.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    return {name: (info["dtype"], tuple(info["shape"]), data[start + info["data_offsets"][0]:start + info["data_offsets"][1]])
            for name, info in header.items()}


def save(file, named):
    header, data = {}, b""
    for name, (dtype, shape, raw) in named.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def modules(names):
    return {name.rpartition(".")[0] for name in names if name.endswith(".weight")}


def rename(name):
    return f"unet.{name}.lora_A.weight"


class Case(scenes_test.Case):
    @classmethod
    def setUpClass(cls):
        """One pipeline of four stages for all tests."""
        maker = scenes_test.Case()
        maker.setUp()
        cls.kept = maker
        maker.train(AUTOENCODER, "autoencoder")
        cls.model = maker.train(FOUR | {"weights": "float32"}, "four") / "pipeline"

    @classmethod
    def tearDownClass(cls):
        cls.kept.doCleanups()

    def done(self, *arguments):
        result = run(*arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def refused(self, says, *arguments):
        result = run(*arguments)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn(says, result.stderr)
        return result

    def prune(self, model, *flags):
        out = self.folder / "cut"
        self.done("prune", model, *QUICK, "-o", out, "--force", *flags)
        return out


class PlansOfPrune(Case):
    def same(self, model, cut, plan):
        """What apply makes of the plan is what prune wrote; the form is its own choice."""
        again = self.folder / "again"
        self.done("apply", model, plan, "-o", again, "--force", "-q")
        self.assertEqual(tensors(cut / "unet" / WEIGHTS), tensors(again / "unet" / WEIGHTS))
        for file in ("unet/config.json", "model_index.json"):
            self.assertEqual(json.loads((cut / file).read_text()), json.loads((again / file).read_text()))

    def fits(self, model, cut, plan, *flags):
        """A LoRA of every module comes out with modules of the cut alone, and with all of them that the cut kept."""
        whole = tensors(model / "unet" / WEIGHTS)
        save(self.folder / "lora.safetensors",
             {rename(module): ("F32", (1, whole[f"{module}.weight"][1][-1]), bytes(4 * whole[f"{module}.weight"][1][-1]))
              for module in modules(whole)})
        self.done("lora-remap", self.folder / "lora.safetensors", plan, "--model", model, "-o", self.folder / "remapped.safetensors", *flags)
        there, got = tensors(cut / "unet" / WEIGHTS), tensors(self.folder / "remapped.safetensors")
        self.assertLessEqual(set(got), {rename(module) for module in modules(there)})
        # Transformers that only fill a place get none: the numbers of what writes are zero.
        silent = {name.rpartition(".proj_out")[0] for name, (_, _, raw) in there.items() if name.endswith("proj_out.weight") and not any(raw)}
        self.assertEqual(set(got), {rename(module) for module in modules(there) if not any(module.startswith(path) for path in silent)})
        for name, (_, shape, _) in got.items():
            self.assertEqual(shape[-1], there[name[len("unet."):-len(".lora_A.weight")] + ".weight"][1][-1], name)

    def test_stock_layouts(self):
        for layout, flags in (("bk-tiny", []), ("bk-base", []), ("stock", ["--params", "60%"]), ("exact", ["--params", "85%"])):
            with self.subTest(layout=layout):
                cut = self.prune(self.model, "--layout", layout, *(flags or ["--params", "95%"]))
                plan = cut / "plan.json"
                said = json.loads(plan.read_text())
                self.assertEqual(said["wiring"], "exact" if layout == "exact" else "stock")
                self.assertEqual(said, json.loads((cut / "unet" / "plan.json").read_text()))
                self.same(self.model, cut, plan)
                self.fits(self.model, cut, plan)
                if layout.startswith("bk"):
                    for form in ("proof", "extended"):
                        self.refused("compact alone", "apply", self.model, plan, "-o", self.folder / "no", "--export", form)
                        self.refused("compact alone", "lora-remap", self.folder / "lora.safetensors", plan, "--model", self.model, "-o",
                                     self.folder / "no.safetensors", "--form", form)

    def test_a_plan_by_hand_is_told_the_wiring(self):
        cut = self.prune(self.model, "--layout", "bk-tiny", "--params", "95%")
        said = json.loads((cut / "plan.json").read_text())
        plan = self.folder / "by-hand.json"
        plan.write_text(json.dumps({"lamina_plan": 1, "edits": said["edits"]}))
        self.done("apply", self.model, plan, "-o", self.folder / "hand", "--wiring", "stock", "-q")
        self.assertEqual(tensors(cut / "unet" / WEIGHTS), tensors(self.folder / "hand" / "unet" / WEIGHTS))
        self.fits(self.model, cut, plan, "--wiring", "stock")
        self.refused("not possible", "lora-remap", self.folder / "lora.safetensors", plan, "--model", self.model, "-o",
                     self.folder / "no.safetensors")

    def test_without_a_layout_parts_are_left_out(self):
        cut = self.prune(self.model, "--params", "60%")
        self.assertNotIn("wiring", json.loads((cut / "plan.json").read_text()))
        self.done("apply", self.model, cut / "plan.json", "-o", self.folder / "again", "--export", "extended", "-q")
        self.assertEqual(tensors(cut / "unet" / WEIGHTS), tensors(self.folder / "again" / "unet" / WEIGHTS))
        self.fits(self.model, cut, cut / "plan.json", "--form", "extended")
        self.fits(self.model, cut, cut / "plan.json")  # the plan says it

    def test_the_example(self):
        model = ROOT / "examples" / "scenes" / "pipeline"
        cut = self.prune(model, "--layout", "bk-tiny", "--params", "95%")
        self.same(model, cut, cut / "plan.json")
        self.fits(model, cut, cut / "plan.json")


def change(file, name, value=None):
    """One number of a tensor; by default the first, a little."""
    named = tensors(file)
    dtype, shape, raw = named[name]
    assert dtype == "F32", dtype
    first = struct.unpack("<f", raw[:4])[0]
    named[name] = (dtype, shape, struct.pack("<f", first * 1.001 + 1e-4 if value is None else value) + raw[4:])
    save(file, named)


class Verify(Case):
    FORMS = {"hf-compact": "up_blocks.3.attentions.2.proj_out.weight", "hf-zeroed": "down_blocks.1.resnets.0.conv2.weight",
             "hf-perlayer": "conv_in.weight"}

    def verified(self, out, against, *flags, status=0):
        result = run("verify", out, "--against", against, "--json", *flags)
        self.assertEqual(result.returncode, status, result.stderr)
        entries = json.loads(result.stdout)
        self.assertEqual(all(entry["ok"] for entry in entries), status == 0)
        return entries

    def forms(self, model):
        out = self.folder / "forms"
        self.done("apply", model, "--drop", "d0.a1,u3.a1,mid", "-o", out, "--force", "-q", "--export", "compact,proof,extended")
        return out

    def test_every_form_of_pipelines_and_of_networks_alone(self):
        for model in (self.model, self.model / "unet"):
            entries = self.verified(self.forms(model), model)
            self.assertEqual([entry["form"] for entry in entries], sorted(self.FORMS))
            for entry in entries:
                self.assertLessEqual(entry["relative_difference"], 1e-5)
                self.assertEqual(entry["tensors_that_differ"], [])
                self.assertIn(entry["form"], entry["path"])
                self.assertIn("skipped", entry["reference"])
            one = self.verified(self.folder / "forms" / "hf-perlayer", model, "--side", 5, "--samples", 3)
            self.assertEqual(len(one), 1)
        text = self.done("verify", self.folder / "forms", "--against", self.model / "unet")
        self.assertEqual(text.count("as planned ("), 3)

    def test_what_prune_wrote(self):
        for flags, form, reference in ((["--params", "60%"], "hf-perlayer", "skipped"),
                                       (["--layout", "bk-tiny", "--params", "95%"], "hf-compact", "wired as the plan says"),
                                       (["--layout", "exact", "--params", "85%"], "hf-compact", "skipped")):
            cut = self.prune(self.model, *flags)
            for out, against in ((cut, self.model), (cut / "unet", self.model), (cut, self.model / "unet")):
                entry, = self.verified(out, against)
                self.assertEqual(entry["form"], form)
                self.assertIn(reference, entry["reference"])
        change(cut / "unet" / WEIGHTS, "conv_out.weight")
        entry, = self.verified(cut, self.model, status=1)
        self.assertEqual(entry["tensors_that_differ"], ["conv_out.weight"])

    def test_windows_and_kernels(self):
        plan = self.folder / "plan.json"
        window = {"window": 4, "pool": 2, "mix": "none", "log_count": True, "mask_own": True}
        for gate in ("tanh-residual", "softmax"):
            plan.write_text(json.dumps({"lamina_plan": 1, "edits": [
                {"edit": "cut", "site": "down_blocks.0.resnets.1"}, {"edit": "cut", "site": "down_blocks.0.attentions.1"},
                {"edit": "regional", "site": "down_blocks.0.attentions.0"} | window,
                {"edit": "inherit", "site": "down_blocks.0.resnets.0", "conv": "conv2", "donors": ["down_blocks.0.resnets.1.conv2"], "gate": gate,
                 "router": "t"}]}))
            self.done("apply", self.model, plan, "-o", self.folder / gate, "-q", "--export", "extended")
            self.verified(self.folder / gate, self.model)
            change(self.folder / gate / "unet" / WEIGHTS, "down_blocks.0.resnets.0.conv2.router.bias", 1.0)
            entry, = self.verified(self.folder / gate, self.model, status=1)
            self.assertEqual(entry["tensors_that_differ"], ["down_blocks.0.resnets.0.conv2.router.bias"])
            self.assertGreater(entry["relative_difference"], 0)

    def test_one_changed_weight_is_named(self):
        out = self.forms(self.model)
        for form, name in self.FORMS.items():
            change(out / form / "unet" / WEIGHTS, name, 1.0)
        entries = self.verified(out, self.model, status=1)
        for entry in entries:
            self.assertEqual(entry["tensors_that_differ"], [self.FORMS[entry["form"]]])
            self.assertGreater(entry["relative_difference"], 1e-5)
        result = run("verify", out / "hf-zeroed", "--against", self.model)
        self.assertEqual(result.returncode, 1)
        self.assertIn("NOT AS PLANNED", result.stdout)
        self.assertIn("1 tensor differs: down_blocks.1.resnets.0.conv2.weight", result.stdout)
        self.assertIn("is not what the plan says", result.stderr)

    def test_a_silent_part_that_speaks_is_named(self):
        """A number that stands where the plan has zeroes."""
        out = self.forms(self.model)
        change(out / "hf-zeroed" / "unet" / WEIGHTS, "mid_block.resnets.0.conv2.bias", 0.5)
        entry, = self.verified(out / "hf-zeroed", self.model, status=1)
        self.assertEqual(entry["tensors_that_differ"], ["mid_block.resnets.0.conv2.bias"])

    def test_what_stands_around_the_network(self):
        out = self.forms(self.model) / "hf-compact"
        tokenizer = out / "tokenizer" / "tokenizer.json"
        tokenizer.write_bytes(tokenizer.read_bytes() + b" ")
        (out / "scheduler" / "scheduler_config.json").unlink()
        entry, = self.verified(out, self.model, status=1)
        self.assertEqual(entry["files_that_differ"], ["scheduler/scheduler_config.json", "tokenizer/tokenizer.json"])
        self.assertEqual(entry["tensors_that_differ"], [])

    def test_another_plan_or_none(self):
        out = self.forms(self.model) / "hf-perlayer"
        other = self.folder / "other.json"
        other.write_text(json.dumps({"lamina_plan": 1, "edits": [{"edit": "cut", "site": "up_blocks.3.attentions.1"}]}))
        entry, = self.verified(out, self.model, "--plan", other, status=1)
        self.assertTrue(any(name.endswith("(missing)") for name in entry["tensors_that_differ"]))
        for path in (out / "plan.json", out / "unet" / "plan.json", out.parent / "plan.json"):
            path.unlink(missing_ok=True)
        self.refused("no plan.json", "verify", out, "--against", self.model)
        self.done("verify", out)

    def test_narrower_weights(self):
        self.done("apply", self.model, "--drop", "u3.a1", "-o", self.folder / "half", "-q", "--export", "proof", "--dtype", "float16")
        entry, = self.verified(self.folder / "half", self.model)
        self.assertEqual(entry["allowed"], 0.02)
        self.assertEqual(entry["tensors_that_differ"], [])


class Fold(Case):
    CONV = "down_blocks.0.resnets.0.conv2"

    def mixed(self, name, numbers, router="t"):
        """A cut whose convolution mixes two kernels, by a router with these numbers in its weight and its bias."""
        plan = self.folder / "mixed.json"
        plan.write_text(json.dumps({"lamina_plan": 1, "edits": [
            {"edit": "cut", "site": "down_blocks.0.resnets.1"}, {"edit": "cut", "site": "down_blocks.0.attentions.1"},
            {"edit": "inherit", "site": "down_blocks.0.resnets.0", "conv": "conv2", "donors": ["down_blocks.0.resnets.1.conv2"],
             "gate": "tanh-residual", "router": router}]}))
        self.done("apply", self.model, plan, "-o", self.folder / name, "-q", "--export", "extended")
        file = self.folder / name / "unet" / WEIGHTS
        named, rng = tensors(file), random.Random(3)
        for tensor, size in zip((".router.weight", ".router.bias"), numbers):
            dtype, shape, raw = named[self.CONV + tensor]
            count = len(raw) // 4
            named[self.CONV + tensor] = (dtype, shape, struct.pack(f"<{count}f", *(rng.gauss(0, size) for _ in range(count))))
        save(file, named)
        return self.folder / name

    def folded(self, model, *flags):
        text = self.done("apply", model, "--fold-gates", "-o", self.folder / "plain", "--force", "-q", *flags)
        self.assertIn("1 mixed convolution made plain", text)
        self.assertIn("root of the mean square", text)
        return json.loads((self.folder / "plain" / "plan.json").read_text())

    def test_constant_gates_fold_exactly(self):
        model = self.mixed("constant", (0, 1))
        plan = self.folded(model)
        self.assertLess(plan["fold"]["moved_most"], 1e-6)
        for form, said in (("hf-zeroed", "UNet2DConditionModel"), ("hf-perlayer", "LaminaUNet2DConditionModel")):
            config = json.loads((self.folder / "plain" / form / "unet" / "config.json").read_text())
            self.assertEqual(config["_class_name"], said)
            self.assertNotIn("lamina_experts", config)
            names = tensors(self.folder / "plain" / form / "unet" / WEIGHTS)
            self.assertFalse([name for name in names if "router" in name or "experts" in name])
            self.assertEqual(json.loads((self.folder / "plain" / form / "model_index.json").read_text())["unet"][1], said)
        self.done("verify", self.folder / "plain", "--against", model)
        change(self.folder / "plain" / "hf-zeroed" / "unet" / WEIGHTS, self.CONV + ".weight", 1.0)
        self.assertIn(self.CONV, run("verify", self.folder / "plain", "--against", model).stdout)

    def test_gates_that_time_moves(self):
        model = self.mixed("moving", (3, 0))
        plan = self.folded(model, "--samples", 7, "--side", 6, "--export", "proof")
        self.assertEqual((plan["fold"]["times"], plan["fold"]["side"]), (7, 6))
        self.assertGreater(plan["fold"]["moved_most"], 1e-6)
        self.assertLess(abs(plan["edits"][0]["gates"][0]), 1)

    def test_with_a_cut_besides(self):
        model = self.mixed("more", (0, 1))
        self.folded(model, "--drop", "u3.a1", "--export", "extended")
        text = self.done("apply", model, "--fold-gates", "--drop", "d0.r0", "-o", self.folder / "gone", "-q", "--export", "extended")
        self.assertNotIn("made plain", text)

    def test_refusals(self):
        self.refused("nothing to fold", "apply", self.model, "--fold-gates", "-o", self.folder / "no")
        self.refused("read the picture too", "apply", self.mixed("input", (0, 1), router="x+t"), "--fold-gates", "-o", self.folder / "no")
        self.assertEqual(run("apply", self.model, "--drop", "mid", "--samples", 3, "-o", self.folder / "no").returncode, 2)
        self.assertFalse((self.folder / "no").exists())


if __name__ == "__main__":
    unittest.main()
