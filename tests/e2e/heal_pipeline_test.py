#!/usr/bin/env python3
"""`lamina heal` of a pipeline: a denoiser that learns from generated scenes or a folder of pictures, and from a teacher; resumed, and what is refused.

    tests/e2e/heal_pipeline_test.py build/lamina

The networks are so small that they learn nothing of use; whether they learn at all is looked at.
"""
import copy
import importlib.util
import json
import signal
import struct
import subprocess
import time
import unittest
import zlib

import scenes_test
from scenes_test import DENOISER, run

DIFFUSERS = importlib.util.find_spec("diffusers") is not None
OF_A_RUN = ["README.md", "report.html", "report.json", "repair.json", "scores.csv"]
FLAGS = ["--batch", 2, "--held-out", 4, "--steps", 6, "--checkpoint-every", 2, "-q"]


def metadata(folder):
    with open(folder / "diffusion_pytorch_model.safetensors", "rb") as file:
        return json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))["__metadata__"]


def weights(folder):
    return (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()


def png(path, side, colour):
    chunk = lambda name, body: struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    rows = b"".join(b"\0" + bytes(colour) * side for _ in range(side))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) +
                     chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


class HealPipeline(scenes_test.Case):
    def setUp(self):
        super().setUp()
        self.teacher = self.whole()
        other = copy.deepcopy(DENOISER) | {"seed": 2}
        self.student = self.train(other, "other") / "pipeline"

    def heal(self, *flags, name="healed"):
        done = run("heal", self.student, "-o", self.folder / name, *FLAGS, *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.folder / name

    def test_from_scenes_and_a_teacher(self):
        done = run("heal", self.student, "--teacher", self.teacher, "--pictures", "scenes", "--scenes", 50, "--ema", 0.9, "--lr", 0.001,
                   "-o", self.folder / "healed", *FLAGS, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        steps = report["training"]["steps"]
        self.assertEqual(len(steps), 6)
        for step in steps:
            terms = [step[name] for name in ("task", "output", "down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")]
            self.assertAlmostEqual(sum(terms), step["objective"], delta=1e-5 * step["objective"])
        self.assertIn("gradient ratio", steps[0])
        healed = self.folder / "healed" / "pipeline"
        for name in ("vae", "text_encoder", "tokenizer", "scheduler"):
            for path in (self.student / name).iterdir():
                self.assertEqual(path.read_bytes(), (healed / name / path.name).read_bytes(), path)
        self.assertEqual((self.student / "unet" / "config.json").read_bytes(), (healed / "unet" / "config.json").read_bytes())
        self.assertNotEqual(weights(self.student), weights(healed))
        said = json.loads(metadata(healed / "unet")["lamina_heal"])
        self.assertEqual((said["steps"], said["batch"], said["features"], said["ema"]), (6, 2, "teacher-norm", 0.9))
        self.assertTrue((self.folder / "healed" / "report.html").is_file())

    def test_goes_on_to_the_same_bytes(self):
        flags = ["--batch", 2, "--held-out", 4, "--steps", 60, "--checkpoint-every", 1, "-q", "--pictures", "scenes",
                 "--teacher", self.teacher, "--features", "ema-loss", "--ema", 0.9]
        for name in ("whole", "halves"):
            if name == "halves":
                self.killed("heal", self.student, "-o", self.folder / name, *flags)
            if not (self.folder / name).exists():
                done = run("heal", self.student, "-o", self.folder / name, *flags, *(["--resume"] if name == "halves" else []))
                self.assertEqual(done.returncode, 0, done.stderr)
        # The header says how long it took.
        strip = lambda data: data[8 + struct.unpack("<Q", data[:8])[0]:]
        self.assertEqual(*(strip(weights(self.folder / name / "pipeline")) for name in ("whole", "halves")))

    def killed(self, *arguments):
        """Once it has a checkpoint."""
        process = subprocess.Popen([str(scenes_test.LAMINA), *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline and not any(self.folder.glob("halves.partial/training/*/step-*")):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def cut(self, name="cut", *flags):
        done = run("prune", self.teacher, "--method", "magnitude", "--params", "85%", "--pictures", "scenes", "--samples", 2, "--heldout", 2,
                   "--compare", "none", "--trajectory", 0, "-q", "-o", self.folder / name, *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.folder / name

    def test_incubates_stage_by_stage(self):
        cut = self.cut()
        for order in ("sequential", "independent"):
            done = run("heal", cut, "--teacher", self.teacher, "--pictures", "scenes", "--incubate", order, "--lr", 0.001,
                       "-o", self.folder / order, *FLAGS, "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            report = json.loads(done.stdout)
            incubation = report["incubation"]
            self.assertEqual(incubation["order"], order)
            self.assertEqual(sum(stage["steps"] for stage in incubation["stages"]), 6)
            self.assertEqual(incubation["stages"][-1]["stage"], "all together")
            self.assertEqual([step["step"] for step in report["training"]["steps"]], [1, 2, 3, 4, 5, 6])
            distance = next(figure for figure in report["verdict"]["figures"] if figure["name"] == "Distance to the teacher")
            self.assertEqual(incubation["stages"][-1]["after"], distance["after"])
            self.assertAlmostEqual(sum(dict(report["shares"]).values()), 1, delta=1e-6)
            self.assertEqual(json.loads(metadata(self.folder / order / "pipeline" / "unet")["lamina_heal"])["incubate"], order)
            self.assertEqual((cut / "unet" / "config.json").read_bytes(),
                             (self.folder / order / "pipeline" / "unet" / "config.json").read_bytes())

    def test_an_incubation_goes_on_to_the_same_bytes(self):
        cut = self.cut()
        flags = ["--batch", 2, "--held-out", 4, "--steps", 60, "--checkpoint-every", 1, "-q", "--pictures", "scenes", "--teacher", self.teacher,
                 "--incubate", "sequential", "--ema", 0.9]
        self.killed("heal", cut, "-o", self.folder / "halves", *flags)
        for name in ("whole", "halves"):
            if (self.folder / name).exists():
                continue
            done = run("heal", cut, "-o", self.folder / name, *flags, *(["--resume"] if name == "halves" else []))
            self.assertEqual(done.returncode, 0, done.stderr)
        strip = lambda data: data[8 + struct.unpack("<Q", data[:8])[0]:]
        self.assertEqual(*(strip(weights(self.folder / name / "pipeline")) for name in ("whole", "halves")))

    def repair(self, cut, name, *flags):
        return run("repair", cut, self.teacher, "--pictures", "scenes", "--samples", 2, "--heldout", 1, "-q", "-o", self.folder / name, *flags)

    def test_every_pipeline_has_a_card_of_its_own(self):
        for name in OF_A_RUN:
            (self.teacher / name).write_text("of another model", encoding="utf-8")
        stock, own = self.cut("stock", "--layout", "stock"), self.cut("own")
        for name in OF_A_RUN[1:3]:
            self.assertNotIn("of another model", (stock / name).read_text(encoding="utf-8"))
        self.student = stock
        healed = self.heal("--pictures", "scenes") / "pipeline"
        done = self.repair(own, "repaired")
        self.assertEqual(done.returncode, 0, done.stderr)
        repaired = self.folder / "repaired"
        for folder, base, tag in [(stock, "pipeline", "pruned"), (own, "pipeline", "pruned"), (healed, "stock", "healed"), (repaired, "own", "pruned")]:
            with self.subTest(folder=folder.name, base=base):
                card = (folder / "README.md").read_text(encoding="utf-8")
                for line in (f'base_model: "{base}"', f'- "{tag}"', "## What was measured", "## How to make it again", "lamina draw . "):
                    self.assertIn(line, card)
                stock_class = json.loads((folder / "unet" / "config.json").read_text())["_class_name"]
                self.assertEqual(json.loads((folder / "model_index.json").read_text())["unet"], ["diffusers", stock_class])
                opens = folder in (stock, healed)
                self.assertEqual(stock_class == "UNet2DConditionModel", opens)
                self.assertEqual('StableDiffusionPipeline.from_pretrained(".")' in card, opens, card)
                self.assertEqual("diffusers does not open the denoiser" in card, not opens, card)
        for folder in (healed, repaired):
            for name in OF_A_RUN[1:]:
                self.assertEqual((folder / name).exists(), (folder, name) == (repaired, "repair.json"), name)
        # What is healed again says nothing of what was repaired before.
        self.student = repaired
        again = self.heal("--pictures", "scenes", name="again") / "pipeline"
        self.assertFalse((again / "repair.json").exists())
        if DIFFUSERS:
            import diffusers
            for folder in (stock, healed):
                unet, loading = diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet", output_loading_info=True)
                self.assertFalse(any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading)
                self.assertIsInstance(diffusers.StableDiffusionPipeline.from_pretrained(folder).unet, diffusers.UNet2DConditionModel)
            # It would make another function of these.
            for folder in (own, repaired):
                with self.assertRaises(Exception):
                    diffusers.StableDiffusionPipeline.from_pretrained(folder)

    def test_cuts_that_stock_configs_say_are_refused_in_a_sentence(self):
        stock = self.cut("stock", "--layout", "stock")
        done = self.repair(stock, "refused")
        incubated = run("heal", stock, "--teacher", self.teacher, "--pictures", "scenes", "--incubate", "sequential", "-o", self.folder / "refused", *FLAGS)
        for refused in (done, incubated):
            self.assertEqual(refused.returncode, 1, refused.stdout)
            self.assertIn("prune with --layout any, or", refused.stderr)
            self.assertEqual(len(refused.stderr.strip().splitlines()), 1, refused.stderr)
        self.assertFalse((self.folder / "refused").exists())

    def test_a_scorer_says_what_pictures_mean(self):
        flags = ["--teacher", self.teacher, "--pictures", "scenes", "--semantic", 0.5]
        scorer = ["--scorer", self.folder / "scorer" / "model"]
        done = run("heal", self.student, *flags, *scorer, "-o", self.folder / "meant", *FLAGS, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        for step in report["training"]["steps"]:
            self.assertGreater(step["semantic"], 0)
        shares = dict(report["shares"])
        self.assertGreater(shares["semantic"], 0)
        self.assertAlmostEqual(sum(shares.values()), 1, delta=1e-6)
        for more, says in [([*scorer, "--size", 32], "16 x 16"), (["--scorer", self.teacher / "unet"], "LaminaSceneScorer")]:
            done = run("heal", self.student, *flags, *more, "-o", self.folder / "refused", *FLAGS)
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertIn(says, done.stderr)

    def test_from_a_folder_without_a_teacher(self):
        pictures = self.folder / "pictures"
        pictures.mkdir()
        for i in range(8):
            png(pictures / f"{i}.png", 20 + i, (30 * i, 0, 255 - 30 * i))
            (pictures / f"{i}.txt").write_text("a small red disc on white\n", encoding="utf-8")
        healed = self.heal("--pictures", pictures, "--lora", 2, "--lr", 0.01)
        self.assertNotEqual(weights(self.student), weights(healed / "pipeline"))

    def test_refusals(self):
        for flags, says in [(["--pictures", self.folder / "nowhere"], "no such folder"),
                            (["--pictures", "scenes", "--features", "loud", "--teacher", self.teacher], "teacher-norm"),
                            (["--pictures", "scenes", "--features", "plain"], "--teacher"),
                            (["--pictures", "scenes", "--caption-dropout", 1], "captions"),
                            (["--pictures", "scenes", "--device", "cuda"], "cpu"),
                            (["--pictures", self.folder, "--scenes", 5], "--pictures scenes"),
                            (["--pictures", "scenes", "--incubate", "sequential"], "--teacher"),
                            (["--pictures", "scenes", "--incubate", "sequential", "--teacher", self.teacher], "plan.json"),
                            (["--pictures", "scenes", "--semantic", 1, "--teacher", self.teacher], "--scorer"),
                            (["--pictures", self.folder], "no PNG")]:
            with self.subTest(flags=flags):
                done = run("heal", self.student, "-o", self.folder / "refused", *FLAGS, *flags)
                self.assertEqual(done.returncode, 1, done.stdout)
                self.assertIn(says, done.stderr)
                self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
                self.assertFalse((self.folder / "refused").exists())


if __name__ == "__main__":
    unittest.main()
