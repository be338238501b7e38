#!/usr/bin/env python3
"""`lamina draw` against diffusers' own pipelines, on small random models of SD1's, SD2's and SDXL's kind: final latents and pictures."""

import contextlib
import json
import pathlib
import shutil
import subprocess
import sys
import warnings

import numpy
import reference
import torch
from reference import Parity, load_file, run, save_file

try:
    import diffusers
    import PIL.Image
except ImportError as error:
    print(f"skipped: the Python package {error.name} is missing; `make parity` installs what parity is measured against")
    sys.exit(77)
from diffusers import (AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler, StableDiffusionImg2ImgPipeline,
                       StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

warnings.simplefilter("ignore", DeprecationWarning)  # of diffusers, for numpy
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
LATENTS, PIXELS = 1e-4, 2
SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
PROMPT, NEGATIVE = "a red ring, above a blue square", "ugly green"
UNET = {"in_channels": 4, "out_channels": 4, "sample_size": 16, "norm_num_groups": 8, "layers_per_block": 1, "cross_attention_dim": 32}


def words():
    """CLIP's tokenizer over letters alone, with a few merges."""
    letters = [chr(c) for c in range(33, 127)]
    merges = [("r", "e"), ("re", "d</w>"), ("r", "i"), ("n", "g</w>"), ("ri", "ng</w>"), ("b", "l")]
    vocabulary = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in merges]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(vocabulary)}, merges


def tokenizer(folder, pad=None):
    vocabulary, merges = words()
    files = pathlib.Path(folder)
    files.mkdir(parents=True)
    (files / "vocab.json").write_text(json.dumps(vocabulary))
    (files / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    pad = pad or "<|endoftext|>"
    (files / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>", "pad_token": pad, "errors": "replace", "do_lower_case": True}))
    (files / "special_tokens_map.json").write_text(json.dumps({
        "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": pad}))
    return CLIPTokenizer.from_pretrained(files)


def text_encoder(cls, width, seed, activation="quick_gelu"):
    vocabulary, _ = words()
    torch.manual_seed(seed)
    return cls(CLIPTextConfig(vocab_size=len(vocabulary), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3, num_attention_heads=2,
                              max_position_embeddings=77, hidden_act=activation, projection_dim=24, bos_token_id=len(vocabulary) - 2,
                              eos_token_id=len(vocabulary) - 1, pad_token_id=1)).eval()


def vae():
    torch.manual_seed(5)
    return AutoencoderKL(block_out_channels=[8, 16], norm_num_groups=4, latent_channels=4, down_block_types=["DownEncoderBlock2D"] * 2,
                         up_block_types=["UpDecoderBlock2D"] * 2, layers_per_block=1).eval()


def unet(**more):
    torch.manual_seed(6)
    return UNet2DConditionModel(**UNET | more).eval()


def stable(folder, scheduler, **more):
    net = unet(block_out_channels=[16, 32], down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
               up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"], attention_head_dim=4, **more)
    pipeline = StableDiffusionPipeline(vae=vae(), text_encoder=text_encoder(CLIPTextModel, 32, 7), tokenizer=tokenizer(folder / "words"), unet=net,
                                       scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.save_pretrained(folder / "pipeline")
    return pipeline


def extra_large(folder, scheduler, zeros):
    net = unet(block_out_channels=[16, 32], down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
               up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"], attention_head_dim=[2, 4], transformer_layers_per_block=[1, 2],
               use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
               projection_class_embeddings_input_dim=24 + 48, )
    pipeline = StableDiffusionXLPipeline(vae=vae(), text_encoder=text_encoder(CLIPTextModel, 12, 7), tokenizer=tokenizer(folder / "words"),
                                         text_encoder_2=text_encoder(CLIPTextModelWithProjection, 20, 8, "gelu"),
                                         tokenizer_2=tokenizer(folder / "words2", "!"), unet=net, scheduler=scheduler,
                                         force_zeros_for_empty_prompt=zeros, add_watermarker=False)
    pipeline.save_pretrained(folder / "pipeline")
    return pipeline


class Draw(Parity):
    def setUp(self):
        super().setUp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def room(self, name):
        """A subtest with a folder of its own."""
        with self.subTest(name):
            above, self.folder = self.folder, self.folder / name
            self.folder.mkdir()
            try:
                yield
            finally:
                self.folder = above

    def lamina(self, noise, *options, steps=10, cfg=7.5, prompt=PROMPT):
        save_file({"latents": noise}, self.folder / "noise.safetensors")
        run("draw", self.folder / "pipeline", prompt, "-o", self.folder / "out.png", "--steps", steps, "--cfg", cfg, "--latents",
            self.folder / "noise.safetensors", "--save-latents", self.folder / "out.safetensors", *options)
        latents = load_file(self.folder / "out.safetensors")["latents"]
        return latents, numpy.asarray(PIL.Image.open(self.folder / "out.png"))

    def check(self, pipeline, *options, steps=10, cfg=7.5, size=(32, 32), **more):
        """Width and height; `more` goes to diffusers."""
        pipeline.set_progress_bar_config(disable=True)
        width, height = size
        noise = torch.randn((1, 4, height // 2, width // 2), generator=torch.Generator().manual_seed(3))
        given = {"prompt": PROMPT, "num_inference_steps": steps, "guidance_scale": cfg, "width": width, "height": height, **more}
        latents = pipeline(**given, latents=noise.clone(), output_type="latent").images
        picture = pipeline(**given, latents=noise.clone(), output_type="np").images[0]
        found, drawn = self.lamina(noise, *options, "--size", f"{width}x{height}", steps=steps, cfg=cfg)
        scale = latents.abs().max().item()
        self.within("latents, of the largest", (found - latents).abs().max().item() / max(1, scale), LATENTS)
        self.within("pixels, of 255", float(numpy.abs(numpy.round(picture * 255) - drawn.astype(float)).max()), PIXELS)

    def test_stable_diffusion_with_every_solver(self):
        for name, scheduler in {
            "pndm": PNDMScheduler(**SCHEDULE, skip_prk_steps=True),
            "ddim": DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False),
            "euler": EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading"),
            "dpm++": DPMSolverMultistepScheduler(**SCHEDULE, use_karras_sigmas=True),
        }.items():
            with self.room(name):
                self.check(stable(self.folder, scheduler))

    def test_a_negative_prompt_and_another_shape(self):
        pipeline = stable(self.folder, DDIMScheduler(**SCHEDULE, clip_sample=False))
        self.check(pipeline, "--negative", NEGATIVE, size=(40, 24), negative_prompt=NEGATIVE)

    def test_without_guidance(self):
        self.check(stable(self.folder, DDIMScheduler(**SCHEDULE, clip_sample=False)), cfg=1)

    def test_v_prediction_as_in_stable_diffusion_2(self):
        scheduler = DDIMScheduler(**SCHEDULE, clip_sample=False, prediction_type="v_prediction")
        self.check(stable(self.folder, scheduler, use_linear_projection=True))

    def test_another_solver_than_the_pipelines_own(self):
        pipeline = stable(self.folder, PNDMScheduler(**SCHEDULE, skip_prk_steps=True))
        # As read back from the file, where every field stands.
        own = PNDMScheduler.from_pretrained(self.folder / "pipeline" / "scheduler")
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(own.config)
        self.check(pipeline, "--scheduler", "dpm++")

    def test_extra_large(self):
        for zeros in (True, False):
            with self.room(f"zeros {zeros}"):
                self.check(extra_large(self.folder, EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading"), zeros), cfg=5)

    def test_from_a_picture(self):
        pipeline = stable(self.folder, DDIMScheduler(**SCHEDULE, clip_sample=False))
        pixels = (numpy.indices((32, 32)).sum(0)[..., None] * [4, 3, 2]).astype(numpy.uint8)
        PIL.Image.fromarray(pixels).save(self.folder / "init.png")
        clean = pipeline.vae.encode(torch.from_numpy(pixels).float().permute(2, 0, 1)[None] / 127.5 - 1).latent_dist.mean * 0.18215
        noise = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(3))
        found, _ = self.lamina(noise, "--init", self.folder / "init.png", "--strength", 0.6)
        again = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
        again.set_progress_bar_config(disable=True)
        from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img as module
        kept, module.randn_tensor = module.randn_tensor, lambda *_, **__: noise
        try:
            latents = again(prompt=PROMPT, image=clean, strength=0.6, num_inference_steps=10, guidance_scale=7.5, output_type="latent").images
        finally:
            module.randn_tensor = kept
        # Diffusers reads latents as they come out of the encoder, and does not scale what is given as such.
        self.within("latents from a picture", (found - latents).abs().max().item() / max(1, latents.abs().max().item()), LATENTS)

    def test_what_a_run_leaves(self):
        stable(self.folder, DDIMScheduler(**SCHEDULE, clip_sample=False))
        def draw(name, *options):
            return run("draw", self.folder / "pipeline", PROMPT, "-o", self.folder / name, "--steps", 3, *options)
        draw("a.png")
        draw("b.png")
        self.assertEqual((self.folder / "a.png").read_bytes(), (self.folder / "b.png").read_bytes())
        draw("c.png", "--inherit", "deep:1")
        draw("grid.png", "--count", 3, "--batch", 2)
        draw("each.png", "--count", 2, "--separate", "--seed", 5, "--preview", 1)
        self.assertEqual(sorted(file.name for file in self.folder.glob("*.png")),
                         ["a.png", "b.png", "c.png", "each-001.png", "each-002.png", "grid.png"])
        one, inherited = PIL.Image.open(self.folder / "a.png"), PIL.Image.open(self.folder / "c.png")
        self.assertEqual(one.tobytes(), inherited.tobytes())
        whole = PIL.Image.open(self.folder / "grid.png")
        self.assertEqual(whole.size, (66, 66))
        corner = numpy.asarray(whole.crop((0, 0, 32, 32)).convert("RGB")).astype(int)
        self.assertLessEqual(numpy.abs(corner - numpy.asarray(one).astype(int)).max(), 1)
        self.assertIn("Steps: 3, Sampler: DDIM, CFG scale: 7.5, Seed: 1, Size: 32x32", one.text["parameters"])
        self.assertEqual(json.loads(PIL.Image.open(self.folder / "each-002.png").text["lamina"])["pictures"], [{"prompt": PROMPT, "seed": 6}])
        self.assertIn("Sampler: DDIM", run("inspect", self.folder / "a.png").decode())

    def test_faster(self):
        stable(self.folder, DDIMScheduler(**SCHEDULE, clip_sample=False))
        for options in (["--inherit", "deep:2"], ["--inherit", "layer:d0.r0,u1.a0:2:front"], ["--merge", 50],
                        ["--switch", self.folder / "pipeline", "--switch-at", 0.4], ["--inherit", "deep:3:0:middle", "--merge", 25]):
            said = json.loads(run("draw", self.folder / "pipeline", PROMPT, "-o", self.folder / "out.png", "--steps", 6, "--json", *options))
            if "--switch" not in options:
                self.assertLess(said["multiply_adds"]["own"], said["multiply_adds"]["plain"])

    def test_mistakes_are_sentences(self):
        stable(self.folder, DDIMScheduler(**SCHEDULE, clip_sample=False))
        def refused(*options):
            arguments = ["draw", self.folder / "pipeline", *options]
            done = subprocess.run([str(reference.LAMINA), *map(str, arguments)], capture_output=True, text=True)
            self.assertIn(done.returncode, (1, 2))
            return done.stderr
        out = ["-o", self.folder / "out.png"]
        self.assertIn("34x32 is the nearest", refused(PROMPT, *out, "--size", "33x32"))
        self.assertIn("WIDTHxHEIGHT", refused(PROMPT, *out, "--size", "33"))
        self.assertIn("ends with .png", refused(PROMPT, "-o", self.folder / "out.jpg"))
        self.assertIn("no folder", refused(PROMPT, "-o", self.folder / "nowhere" / "out.png"))
        self.assertIn("--prompts-file", refused(*out))
        self.assertIn("no solver", refused(PROMPT, *out, "--scheduler", "heun"))
        self.assertIn("deep:INTERVAL", refused(PROMPT, *out, "--inherit", "all"))
        self.assertIn("not a PNG", refused(PROMPT, *out, "--init", self.folder / "pipeline" / "model_index.json"))


if __name__ == "__main__":
    reference.main()
