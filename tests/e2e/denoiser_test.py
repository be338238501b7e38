#!/usr/bin/env python3
"""Cut denoisers by the command line: a plan gives what `lamina prune` wrote, LoRAs fit it, `lamina verify` holds it against the
model it was cut from, and mixed kernels become plain ones.

    tests/e2e/denoiser_test.py build/lamina
"""
import copy
import json
import pathlib
import random
import shutil
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
        self.refused("not possible", "lora-remap", self.folder / "lora.safetensors", plan, "--model", self.model, "-o", self.folder / "no.safetensors")

    def test_without_a_layout_parts_are_left_out(self):
        cut = self.prune(self.model, "--params", "60%")
        self.assertNotIn("wiring", json.loads((cut / "plan.json").read_text()))
        self.done("apply", self.model, cut / "plan.json", "-o", self.folder / "again", "--export", "extended", "-q")
        self.assertEqual(tensors(cut / "unet" / WEIGHTS), tensors(self.folder / "again" / "unet" / WEIGHTS))
        self.fits(self.model, cut, cut / "plan.json", "--form", "extended")

    def test_the_example(self):
        model = ROOT / "examples" / "scenes" / "pipeline"
        cut = self.prune(model, "--layout", "bk-tiny", "--params", "95%")
        self.same(model, cut, cut / "plan.json")
        self.fits(model, cut, cut / "plan.json")


if __name__ == "__main__":
    unittest.main()
