#!/usr/bin/env python3
"""`lamina train` on generated scenes and `lamina scenes`: from JSON files to a text-to-image pipeline and its score, and what is refused.

    tests/e2e/scenes_test.py build/lamina

The networks are so small that they learn nothing; what they learn is shown in evidence/scenes.
"""
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

LAMINA = pathlib.Path(sys.argv.pop() if len(sys.argv) > 1 else "build/lamina").resolve()
ROOT = pathlib.Path(__file__).resolve().parents[2]

TRAINING = {"steps": 4, "batch": 2, "lr": 0.001, "schedule": "constant", "checkpoint-every": 2}
SCENES = {"seed": 1, "side": 16}
SCORER = {"kind": "scorer", "scenes": SCENES, "seed": 1, "averages": 0.9, "training": TRAINING,
          "model": {"architectures": ["LaminaSceneScorer"], "model_type": "lamina_scene_scorer", "image_size": 16, "channels": [4, 8], "norm_groups": 2,
                    "squeezed": 3, "features": 8}}
AUTOENCODER = {"kind": "autoencoder", "scenes": SCENES, "seed": 1, "weights": "float16", "training": TRAINING,
               "model": {"_class_name": "AutoencoderTiny", "encoder_block_out_channels": [4, 4], "decoder_block_out_channels": [4, 4],
                         "num_encoder_blocks": [0, 1], "num_decoder_blocks": [1, 0], "latent_channels": 4, "scaling_factor": 1.0}}
DENOISER = {"kind": "denoiser", "scenes": SCENES, "seed": 1, "weights": "float16", "averages": 0.9, "snr-cap": 5, "training": TRAINING,
            "autoencoder": "autoencoder/model",
            "model": {"_class_name": "UNet2DConditionModel", "attention_head_dim": 1, "block_out_channels": [4, 8], "cross_attention_dim": 8,
                      "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "in_channels": 4, "layers_per_block": 1, "norm_num_groups": 2,
                      "out_channels": 4, "sample_size": 8, "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]},
            "text-encoder": {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_act": "quick_gelu", "hidden_size": 8,
                             "intermediate_size": 16, "num_attention_heads": 1, "num_hidden_layers": 1},
            "scheduler": {"_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
                          "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "epsilon", "set_alpha_to_one": False,
                          "steps_offset": 1}}


def run(*arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([str(LAMINA), *map(str, arguments)], timeout=300, capture_output=True, text=True, env=environment, **options)


def dtypes(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return {tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"}


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lamina-scenes-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def write(self, document, name):
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    def train(self, document, name, *flags):
        result = run("train", self.write(document, name), "-o", self.folder / name, "-q", *flags)
        self.assertEqual(result.returncode, 0, result.stderr)
        return self.folder / name

    def refused(self, document, says):
        result = run("train", self.write(document, "refused"), "-o", self.folder / "refused", "-q")
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn(says, result.stderr)
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)
        self.assertFalse((self.folder / "refused").exists())

    def cut(self, pipeline, part="mid.r1"):
        """A pipeline without this part."""
        result = run("apply", pipeline, "--drop", part, "-o", self.folder / "cut", "--export", "extended", "-q")
        self.assertEqual(result.returncode, 0, result.stderr)
        return self.folder / "cut"

    def whole(self):
        self.train(AUTOENCODER, "autoencoder")
        self.train(SCORER, "scorer")
        return self.train(DENOISER, "denoiser") / "pipeline"


class Train(Case):
    def test_from_files_to_a_score(self):
        pipeline = self.whole()
        for part in ("model_index.json", "tokenizer/tokenizer.json", "scheduler/scheduler_config.json", "unet/config.json", "text_encoder/config.json"):
            self.assertTrue((pipeline / part).is_file(), part)
        self.assertEqual(dtypes(pipeline / "unet/diffusion_pytorch_model.safetensors"), {"F16"})
        self.assertEqual(dtypes(pipeline / "text_encoder/model.safetensors"), {"F16"})
        scaling = json.loads((pipeline / "vae/config.json").read_text(encoding="utf-8"))["scaling_factor"]
        self.assertNotEqual(scaling, 1.0)
        grid = self.folder / "grid.png"
        scored = run("scenes", pipeline, "--scorer", self.folder / "scorer/model", "--scorer", self.folder / "scorer/model", "-n", 6, "--steps", 2,
                     "--grid", grid, "--json")
        self.assertEqual(scored.returncode, 0, scored.stderr)
        report = json.loads(scored.stdout)
        self.assertEqual(report["pictures"], 6)
        self.assertEqual(report["agreement"], 1)
        view = report["scorers"][next(iter(report["scorers"]))]
        self.assertEqual(view["drawn"]["all"]["asked"], 6)
        self.assertTrue(grid.read_bytes().startswith(b"\x89PNG"))

    def test_what_makes_calls_cheaper_is_said(self):
        pipeline = self.whole()
        score = ["scenes", pipeline, "--scorer", self.folder / "scorer/model", "-n", 3, "--batch", 2, "--steps", 4, "--json"]
        plain = run(*score)
        self.assertEqual(plain.returncode, 0, plain.stderr)
        self.assertNotIn("inherit", json.loads(plain.stdout))
        for flags in (["--inherit", "deep:1"], ["--switch", pipeline, "--switch-at", 0.5]):
            same = run(*score, *flags)
            self.assertEqual(same.returncode, 0, same.stderr)
            self.assertEqual(json.loads(same.stdout)["scorers"], json.loads(plain.stdout)["scorers"], flags)
        done = run(*score, "--inherit", "deep:2", "--merge", 25)
        self.assertEqual(done.returncode, 0, done.stderr)
        said = json.loads(done.stdout)
        self.assertEqual((said["inherit"], said["merge"], said["calls"]), ("deep:2", 25, 4))
        self.assertLess(said["multiply_adds"]["own"], said["multiply_adds"]["plain"])
        self.assertGreater(said["denoiser_seconds"], 0)
        said = json.loads(run(*score, "--switch", pipeline / "unet").stdout)
        self.assertEqual(said["switch"], {"unet": "unet", "at": 0.4})
        self.assertEqual(said["multiply_adds"]["own"], said["multiply_adds"]["plain"])
        # A smaller network for `front` of 4 calls: both together take front / 4 of its calls and the rest of the own.
        smaller = self.cut(pipeline)
        every = json.loads(run(*score, "--switch", smaller, "--switch-at", 1).stdout)["multiply_adds"]
        self.assertLess(every["own"], every["plain"])
        for at, front in ((0, 0), (0.25, 1), (0.4, 2), (0.75, 3)):
            spent = json.loads(run(*score, "--switch", smaller, "--switch-at", at).stdout)["multiply_adds"]
            self.assertAlmostEqual(spent["own"], every["own"] * front / 4 + every["plain"] * (4 - front) / 4, delta=1)
            self.assertEqual(spent["plain"], every["plain"])
        both = json.loads(run(*score, "--switch", smaller, "--switch-at", 0.5, "--inherit", "deep:2").stdout)["multiply_adds"]
        self.assertLess(both["own"], (every["own"] + every["plain"]) / 2)
        for flags, says in [(["--merge", 80], "75"), (["--switch-at", 0.5], "--switch"), (["--inherit", "shallow"], "shallow")]:
            refused = run(*score, *flags)
            self.assertEqual(refused.returncode, 1, flags)
            self.assertIn(says, refused.stderr)

    def test_the_same_again(self):
        first = (self.train(SCORER, "one") / "model/model.safetensors").read_bytes()
        self.assertEqual(first, (self.train(SCORER, "two") / "model/model.safetensors").read_bytes())
        self.assertNotEqual(first, (self.train(SCORER, "three", "--seed", 2) / "model/model.safetensors").read_bytes())

    def test_a_stopped_run_goes_on(self):
        self.train(AUTOENCODER, "autoencoder")
        long = {**DENOISER, "training": {**TRAINING, "steps": 60}}
        expected = self.train(long, "straight") / "pipeline"
        config, out = self.write(long, "stopped"), self.folder / "stopped"
        process = subprocess.Popen([str(LAMINA), "train", str(config), "-o", str(out), "-q"], stderr=subprocess.DEVNULL)
        state = self.folder / "stopped.partial/training/run"
        for _ in range(1000):
            if process.poll() is not None or (state.exists() and any(state.glob("step-*"))):
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=100)
        if not out.exists():  # else it was faster than we
            result = run("train", config, "-o", out, "-q", "--resume")
            self.assertEqual(result.returncode, 0, result.stderr)
        for part in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
            self.assertEqual((expected / part).read_bytes(), (out / "pipeline" / part).read_bytes(), part)

    def test_what_is_refused(self):
        self.refused({**SCORER, "kind": "painter"}, says="scorer, autoencoder and denoiser are possible")
        self.refused({**SCORER, "snr-cap": 5}, says="snr-cap")
        self.refused({**SCORER, "scenes": {"side": 4}}, says="side")
        self.refused({**SCORER, "training": {**TRAINING, "stepz": 3}}, says="stepz")
        self.refused({**SCORER, "model": {**SCORER["model"], "channels": [5]}}, says="5 channels")
        self.refused({**DENOISER, "autoencoder": "nowhere"}, says="nowhere")
        self.refused({**AUTOENCODER, "model": SCORER["model"] | {"heads": {"a": 2}}}, says="no autoencoder")


class Against(Case):
    def test_caption_by_caption(self):
        pipeline, scorer = self.whole(), self.folder / "scorer/model"
        cut = self.cut(pipeline, "u1.r1")
        score = ["scenes", cut, "--scorer", scorer, "-n", 6, "--steps", 2]
        saved = self.folder / "whole.json"
        saved.write_text(run("scenes", pipeline, *score[2:], "--json").stdout, encoding="utf-8")
        marks = json.loads(saved.read_text(encoding="utf-8"))["scorers"][str(scorer)]["marks"]["drawn"]
        self.assertEqual(set(marks), {"shape", "colour", "size", "relation", "count", "ground", "all"})
        self.assertRegex(marks["all"], "^[01]{6}$")
        by_file = run(*score, "--against", saved, "--json")
        self.assertEqual(by_file.returncode, 0, by_file.stderr)
        report = json.loads(by_file.stdout)
        ours = report["scorers"][str(scorer)]["marks"]["drawn"]["all"]
        view = report["against"]["scorers"][str(scorer)]
        self.assertEqual((view["right_here_alone"], view["right_there_alone"], view["asked"]),
                         (sum(a > b for a, b in zip(ours, marks["all"])), sum(a < b for a, b in zip(ours, marks["all"])), 6))
        self.assertNotIn("psnr", report["against"])
        # The other pipeline drawn now says the same, and how far the pictures are apart.
        by_pipeline = json.loads(run(*score, "--against", pipeline, "--json").stdout)["against"]
        drawn = by_pipeline["scorers"][str(scorer)]
        self.assertEqual({**drawn, "frechet_distance": None}, {**view, "frechet_distance": None})
        self.assertGreaterEqual(drawn["frechet_distance"], 0)
        self.assertGreater(by_pipeline["psnr"]["mean"], 0)
        self.assertLess(by_pipeline["equal_pictures"], 6)
        same = json.loads(run(*score, "--against", cut, "--json").stdout)["against"]
        self.assertEqual((same["equal_pictures"], same["scorers"][str(scorer)]["difference"]), (6, 0))
        self.assertAlmostEqual(same["scorers"][str(scorer)]["frechet_distance"], 0, places=6)
        self.assertNotIn("psnr", same)
        self.assertIn("every picture is the same", run(*score, "--against", cut).stdout)

    def test_the_interval_of_a_known_case(self):
        """6 captions, 2 of them right there alone: 1/8 - 3/8, half a width z sqrt((4/8 - 1/16) / 8)."""
        pipeline, scorer = self.whole(), self.folder / "scorer/model"
        score = ["scenes", pipeline, "--scorer", scorer, "-n", 6, "--steps", 2]
        other = json.loads(run(*score, "--json").stdout)
        marks = other["scorers"][str(scorer)]["marks"]["drawn"]
        self.assertEqual(marks["all"], "000000")  # these networks have learnt nothing
        marks["all"] = "010010"
        saved = self.write(other, "other")
        view = json.loads(run(*score, "--against", saved, "--json").stdout)["against"]["scorers"][str(scorer)]
        self.assertEqual((view["right_here_alone"], view["right_there_alone"]), (0, 2))
        self.assertAlmostEqual(view["difference"], -1 / 3)
        half = 1.959963984540054 * (0.4375 / 8) ** 0.5
        self.assertAlmostEqual(view["interval"][0], -0.25 - half)
        self.assertAlmostEqual(view["interval"][1], -0.25 + half)
        self.assertIn("all right -33.3 points (-70.8 to +20.8)", run(*score, "--against", saved).stdout)

    def test_what_is_refused(self):
        pipeline, scorer = self.whole(), self.folder / "scorer/model"
        score = ["scenes", pipeline, "--scorer", scorer, "-n", 3, "--steps", 1]
        saved = self.folder / "saved.json"
        saved.write_text(run(*score, "--json").stdout, encoding="utf-8")
        document = json.loads(saved.read_text(encoding="utf-8"))
        shutil.copytree(scorer, self.folder / "another")
        real = json.loads(json.dumps(document))
        real["scorers"][str(scorer)]["marks"]["real"]["all"] = "010" if real["scorers"][str(scorer)]["marks"]["real"]["all"] == "000" else "000"
        short = json.loads(json.dumps(document))
        short["scorers"][str(scorer)]["marks"]["drawn"]["all"] = "00"
        for arguments, says in (
                ([*score, "--seed", 1, "--against", saved], "seed"),
                ([*score, "--first", 1, "--against", saved], "first"),
                ([*score, "--split", "novel", "--against", saved], "split"),
                (["scenes", pipeline, "--scorer", scorer, "-n", 4, "--against", saved], "pictures"),
                ([*score, "--scorer", self.folder / "another", "--against", saved], "was not asked there"),
                ([*score, "--against", self.write({**document, "captions_sha256": "00"}, "captions")], "captions_sha256"),
                ([*score, "--against", self.write({**document, "latent": [4, 4, 4]}, "latent")], "latent"),
                ([*score, "--against", self.write({"pictures": 3}, "little")], "says no"),
                ([*score, "--against", self.write([], "list")], "says no"),
                ([*score, "--against", self.write(real, "real")], "real pictures"),
                ([*score, "--against", self.write(short, "short")], "captions"),
                ([*score, "--against", self.folder / "nowhere.json"], "nowhere.json"),
                ([*score, "--against", self.folder], "lamina-scenes-"),
                (["scenes", "--scorer", scorer, "-n", 3, "--against", saved], "PIPELINE"),
                (["scenes", pipeline, "-n", 3, "--against", saved], "--scorer")):
            result = run(*arguments)
            self.assertEqual(result.returncode, 1, (arguments, result.stdout))
            self.assertIn(says, result.stderr)
            self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)


class Scenes(Case):
    def test_without_a_pipeline_real_pictures_are_scored(self):
        self.train(SCORER, "scorer")
        result = run("scenes", "--scorer", self.folder / "scorer/model", "-n", 5, "--split", "novel")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("real pictures", result.stdout)

    def test_what_is_refused(self):
        for arguments, says in ((["--split", "best", "--grid", "x.png"], "train, validation, test and novel"), ([self.folder / "nothing", "--grid", "x.png"], "nothing"),
                                ([], "a PIPELINE is expected"), ([self.folder / "nothing"], "--scorer is expected"),
                                (["p", "--grid", "x.png", "--cfg", "nan"], "--cfg")):
            result = run("scenes", *arguments)
            self.assertEqual(result.returncode, 1)
            self.assertIn(says, result.stderr)


if __name__ == "__main__":
    unittest.main()
