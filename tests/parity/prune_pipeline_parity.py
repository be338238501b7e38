#!/usr/bin/env python3
"""`lamina prune` on small pipelines of SD1's and SDXL's kind: what a stock layout writes opens in diffusers without a word, and
budgets hold; all else of the pipeline stays as it is."""

import json
import sys

import reference
from reference import Parity, run

try:
    from draw_parity import SCHEDULE, DDIMScheduler, EulerDiscreteScheduler, extra_large, stable
    from diffusers import UNet2DConditionModel
except ImportError as error:
    print(f"skipped: the Python package {error.name} is missing; `make parity` installs what parity is measured against")
    sys.exit(77)

QUICK = ["--samples", 4, "--heldout", 2, "--rerank", 4, "--refine", 4, "--rerank-samples", 2, "--repeats", 1, "--trajectory-steps", 2, "-q"]


class Prune(Parity):
    def opened(self, folder):
        unet, loading = UNet2DConditionModel.from_pretrained(folder / "unet", output_loading_info=True)
        for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            self.assertFalse(loading[key], key)
        return unet.eval()

    def test_captions_and_a_stock_layout(self):
        stable(self.folder / "sd", DDIMScheduler(**SCHEDULE), **{"layers_per_block": 2})
        pipeline, out = self.folder / "sd" / "pipeline", self.folder / "out"
        (self.folder / "captions.txt").write_text("a red ring\na green disc above a blue square\n")
        answer = json.loads(run("prune", pipeline, "-o", out, "--params", "80%", "--layout", "stock", "--captions", self.folder / "captions.txt",
                                "--draw-steps", 2, "--json", *QUICK))
        before, after = UNet2DConditionModel.from_pretrained(pipeline / "unet"), self.opened(out)
        self.assertLessEqual(after.num_parameters(), 0.8 * before.num_parameters())
        self.assertGreater(len(answer["removed"]), 0)
        for file in ("model_index.json", "vae/config.json", "text_encoder/model.safetensors"):
            self.assertEqual((pipeline / file).read_bytes(), (out / file).read_bytes())

    def test_two_budgets_of_an_sdxl(self):
        extra_large(self.folder / "xl", EulerDiscreteScheduler(**SCHEDULE), True)
        pipeline, out = self.folder / "xl" / "pipeline", self.folder / "out"
        run("prune", pipeline, "-o", out, "--params", "85%", "--macs", "85%", "--layout", "exact", "--pictures", "scene", *QUICK)
        self.opened(out)


if __name__ == "__main__":
    reference.main()
