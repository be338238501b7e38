"""Autoencoders as diffusers has them: pixels to latents and back through small random models of every layout, under the
names and shapes that old files have too."""

import json
import sys

import reference
import torch
from reference import Parity, float64_reference, forward_of, largest_difference, load_file, save_file

try:
    import diffusers
except ImportError:
    print("skipped: the Python package diffusers is missing; `make parity` installs what parity is measured against")
    sys.exit(77)

diffusers.utils.logging.disable_progress_bar()
WEIGHTS = "diffusion_pytorch_model.safetensors"
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def stages(*channels):
    return {"block_out_channels": list(channels), "down_block_types": ["DownEncoderBlock2D"] * len(channels),
            "up_block_types": ["UpDecoderBlock2D"] * len(channels)}


KL = {
    "two stages": stages(8, 16),
    "four stages, two layers": {**stages(8, 8, 16, 16), "layers_per_block": 2},
    "one stage": stages(12),
    "no convolutions beside the latents": {**stages(8, 16), "use_quant_conv": False, "use_post_quant_conv": False},
    "nothing attends": {**stages(8, 16), "mid_block_add_attention": False},
    "shifted": {**stages(8, 16), "scaling_factor": 0.3611, "shift_factor": 0.1159, "latent_channels": 6},
    "channel by channel": {**stages(8, 16), "scaling_factor": 0.13025, "latents_mean": [0.1, -0.2, 0.3, 0.0],
                           "latents_std": [0.5, 1.0, 2.0, 1.5]},
    "one channel": {**stages(8, 16), "in_channels": 1, "out_channels": 1},
}
TINY = {
    "two stages": {"encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8], "num_encoder_blocks": [1, 2],
                   "num_decoder_blocks": [2, 1]},
    "other widths": {"encoder_block_out_channels": [6, 6, 6], "decoder_block_out_channels": [10, 10, 10],
                     "num_encoder_blocks": [1, 0, 1], "num_decoder_blocks": [1, 2, 0], "latent_channels": 5,
                     "scaling_factor": 0.5},
}


def randomize(net, seed):
    torch.manual_seed(seed)
    for name, weight in net.named_parameters():
        scale = 1.2 / weight[0].numel() ** 0.5 if weight.dim() > 1 else 0.2
        norm = "norm" in name and name.endswith("weight")
        weight.copy_(torch.randn_like(weight) * scale + (1 if norm else 0))
    return net.double().eval()


def numbers(*sizes, seed=5):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved(net, latents):
    """From what the encoder says to what the denoiser reads, as the pipelines have it."""
    config = net.config
    if config.get("latents_mean"):
        mean, deviation = (torch.tensor(config[key], dtype=torch.float64).view(1, -1, 1, 1) for key in ("latents_mean", "latents_std"))
        return (latents - mean) * config.scaling_factor / deviation
    return (latents - (config.get("shift_factor") or 0)) * config.scaling_factor


def moved_back(net, latents):
    config = net.config
    if config.get("latents_mean"):
        mean, deviation = (torch.tensor(config[key], dtype=torch.float64).view(1, -1, 1, 1) for key in ("latents_mean", "latents_std"))
        return latents * deviation / config.scaling_factor + mean
    return latents / config.scaling_factor + (config.get("shift_factor") or 0)


def spell_old(folder, out, shape):
    """The attention's maps under their old names, as matrices or as convolutions of 1x1."""
    out.mkdir()
    (out / "config.json").write_text((folder / "config.json").read_text())
    tensors = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        for new, old in OLD.items():
            if f"attentions.0.{new}." not in name:
                continue
            name = name.replace(f".{new}.", f".{old}.")
            if name.endswith("weight") and shape == 4:
                tensor = tensor[:, :, None, None].contiguous()
        tensors[name] = tensor
    save_file(tensors, out / WEIGHTS, {"format": "pt"})
    return out


class Vae(Parity):
    def same(self, what, folder, given, expected, bound=1e-9):
        ours = forward_of(folder, given)
        self.assertEqual(set(ours), set(expected))
        for name, value in expected.items():
            self.within(f"{what}, {name}", largest_difference(ours[name], value), bound)

    def test_kl(self):
        for number, (name, changes) in enumerate(KL.items()):
            with self.subTest(layout=name):
                net = randomize(diffusers.AutoencoderKL(**{"norm_num_groups": 4, **changes}), number)
                folder = self.folder / str(number)
                net.save_pretrained(folder)
                pixels = numbers(2, net.config.in_channels, 24, 16)
                latents = numbers(2, net.config.latent_channels, 3, 5)
                with float64_reference():
                    expected = {"latents": moved(net, net.encode(pixels).latent_dist.mode()),
                                "pixels": net.decode(moved_back(net, latents)).sample}
                given = {"pixels": pixels, "latents": latents}
                self.same("float64", folder, given, expected)
                if name in ("two stages", "shifted"):
                    for shape in (2, 4):
                        old = spell_old(folder, self.folder / f"{number}-{shape}", shape)
                        self.same("float64, old names", old, given, expected)
                single = forward_of(folder, {"latents": latents}, dtype="float32")["pixels"]
                self.within("float32 pixels, relative", largest_difference(single, expected["pixels"]) /
                            expected["pixels"].abs().max().item(), 1e-5)

    def test_odd_sizes(self):
        net = randomize(diffusers.AutoencoderKL(norm_num_groups=4, **stages(8, 8, 16)), 3)
        net.save_pretrained(self.folder / "model")
        for height, width in ((13, 7), (4, 4), (5, 31)):
            pixels = numbers(1, 3, height, width)
            with float64_reference():
                expected = {"latents": moved(net, net.encode(pixels).latent_dist.mode())}
            self.same("float64, odd sizes", self.folder / "model", {"pixels": pixels}, expected)

    def test_tiny(self):
        for number, (name, changes) in enumerate(TINY.items()):
            with self.subTest(layout=name):
                net = randomize(diffusers.AutoencoderTiny(**changes), number)
                folder = self.folder / str(number)
                net.save_pretrained(folder)
                pixels, latents = numbers(2, 3, 24, 16), 3 * numbers(2, net.config.latent_channels, 3, 5)
                with float64_reference():
                    expected = {"latents": net.encode(pixels).latents * net.config.scaling_factor,
                                "pixels": net.decode(latents / net.config.scaling_factor).sample}
                self.same("float64, tiny", folder, {"pixels": pixels, "latents": latents}, expected)

    def test_what_is_refused(self):
        net = randomize(diffusers.AutoencoderKL(norm_num_groups=4, **stages(8, 16)), 0)
        net.save_pretrained(self.folder / "model")
        for given, message in (({"pixels": numbers(1, 4, 8, 8)}, r"pixels must be \[batch, 3, height, width\]"),
                               ({"pixels": numbers(1, 3, 1, 8)}, "2x2 is the least"),
                               ({"latents": numbers(1, 3, 8, 8)}, r"latents must be \[batch, 4"),
                               ({"other": numbers(1)}, "neither pixels nor latents")):
            with self.assertRaisesRegex(AssertionError, message):
                forward_of(self.folder / "model", given)
        config = json.loads((self.folder / "model" / "config.json").read_text())
        (self.folder / "model" / "config.json").write_text(json.dumps({**config, "act_fn": "mish"}))
        with self.assertRaisesRegex(AssertionError, "act_fn"):
            forward_of(self.folder / "model", {"latents": numbers(1, 4, 8, 8)})


if __name__ == "__main__":
    reference.main()
