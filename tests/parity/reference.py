"""What the parity tests share: the reference packages, ways to run lamina, small models, and a float64 reference.

Every test file runs alone, `python tests/parity/forward_parity.py [Class.test]`, on build/lamina or on what LAMINA
names. It exits with 77 and one sentence where nothing could run: without the packages, without ../shared, without the
fetched model. LAMINA_SLOW=1 adds what takes minutes.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

SOURCE = pathlib.Path(__file__).resolve().parents[2]
SHARED = SOURCE.parent / "shared" / "data"
LAMINA = pathlib.Path(os.environ.get("LAMINA", SOURCE / "build" / "lamina")).resolve()
STORIES = SHARED / "weights" / "stories260K" / "stories260K.gguf"
SMOLLM2 = SOURCE / ".cache" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
try:
    import gguf
    import numpy
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
except ImportError as error:
    print(f"skipped: the Python package {error.name} is missing; `make parity` installs what parity is measured against")
    sys.exit(77)

torch.set_num_threads(1)
torch.set_grad_enabled(False)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

needs_shared = unittest.skipUnless(STORIES.exists(), "skipped: ../shared/data is not there")
needs_smollm2 = unittest.skipUnless(SMOLLM2.is_file(), "skipped: the model is not there; tools/get_model fetches it")
slow = unittest.skipUnless(os.environ.get("LAMINA_SLOW") == "1", "skipped: takes minutes; LAMINA_SLOW=1 runs it")


# ---- lamina


def run(*arguments, **options) -> bytes:
    """Standard output of lamina; what it says on standard error is the failure's message."""
    done = subprocess.run([str(LAMINA), *map(str, arguments)], capture_output=True, **options)
    if done.returncode != 0:
        raise AssertionError(f"lamina {' '.join(map(str, arguments))}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def forward(model, ids, mask=None, dtype="float64", tap="", skip="") -> dict:
    return forward_of(model, {"input_ids": ids, **({} if mask is None else {"attention_mask": mask})}, dtype, tap, skip)


def forward_of(model, tensors, dtype="float64", tap="", skip="") -> dict:
    """A pass of a model of any kind on the tensors that it reads, by name."""
    with tempfile.TemporaryDirectory(prefix="lamina-parity-") as folder:
        inputs, out = pathlib.Path(folder) / "in.safetensors", pathlib.Path(folder) / "out.safetensors"
        save_file(tensors, inputs)
        run("forward", model, "--inputs", inputs, "-o", out, "--dtype", dtype,
            *(["--tap", tap] if tap else []), *(["--skip", skip] if skip else []))
        return {name: tensor.clone() for name, tensor in load_file(out).items()}


def apply(model, drop, out, forms, *more) -> pathlib.Path:
    """Cuts `drop` out of the model; the folder that was written."""
    run("apply", model, "--drop", drop, "-o", out, "--export", forms, *more)
    return pathlib.Path(out)


# ---- transformers


@contextlib.contextmanager
def float64_reference():
    """transformers computes norms and rotary angles in float32 whatever the model's type, which leaves differences of
    1e-8 between two right answers. Here the word float32 means float64 to it: its own formulas, all of them, in
    double precision. What is left between us is a rounding of 1e-13 or a bug."""
    wide = torch.float64
    with mock.patch.object(torch, "float", wide), mock.patch.object(torch, "float32", wide), \
         mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
        yield


def open_reference(folder, dtype, **options):
    """The model of a folder, opened with nothing left over and nothing made up."""
    # Not eager attention, which rounds the softmax; not flash, which refuses masks.
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="sdpa", output_loading_info=True, **options)
    left = {key: value for key, value in info.items() if value}
    if left:
        raise AssertionError(f"{folder}: transformers does not take it as it is: {left}")
    return model.eval()


def open_float64(folder):
    """To be run inside float64_reference() only; opened outside, as readers of files must know what float32 is."""
    model = open_reference(folder, torch.float64)
    with float64_reference():
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return model


def logits(folder, ids, mask=None, dtype=torch.float64, without=()):
    """Logits of a folder; `without` holds (block, "attention" or "mlp"), silenced as FinerCut's authors do: the last
    projection's output is set to zero by a hook."""
    wide = dtype == torch.float64
    model = open_float64(folder) if wide else open_reference(folder, dtype)
    silence(model, without)
    with float64_reference() if wide else contextlib.nullcontext():
        return model(ids, attention_mask=mask).logits


def silence(model, without):
    for block, kind in without:
        layer = model.model.layers[block]
        last = layer.self_attn.o_proj if kind == "attention" else layer.mlp.down_proj
        last.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))


def seen_by_parts(folder, ids, mask) -> dict:
    """What `lamina forward --tap all,end` writes, read off transformers with hooks, in float64."""
    seen = {}
    model = open_float64(folder)
    for number, layer in enumerate(model.model.layers):
        attention, mlp = f"model.layers.{number}.self_attn", f"model.layers.{number}.mlp"

        def enters(module, inputs, at=attention):
            seen[f"{at}.before"] = inputs[0]

        def between(module, inputs, at=attention, to=mlp):
            seen[f"{at}.after"] = seen[f"{to}.before"] = inputs[0]

        def leaves(module, inputs, output, to=mlp):
            seen[f"{to}.after"] = output[0] if isinstance(output, tuple) else output

        layer.input_layernorm.register_forward_pre_hook(enters)
        layer.post_attention_layernorm.register_forward_pre_hook(between)
        layer.register_forward_hook(leaves)

    def end(module, inputs, output):
        seen["end.before_norm"], seen["end.after_norm"] = inputs[0], output

    model.model.norm.register_forward_hook(end)
    with float64_reference():
        seen["logits"] = model(ids, attention_mask=mask).logits
    return seen


def reference_from_gguf(path: pathlib.Path):
    """The model that transformers makes of a GGUF, all of it in float32."""
    # It asks for accelerate, which this way of loading does not use.
    with mock.patch.object(transformers.modeling_utils, "is_accelerate_available", lambda: True):
        config = transformers.AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        if (config.pad_token_id or 0) >= config.vocab_size:
            config.pad_token_id = None  # "none" is 2^32 - 1 in some files, which transformers takes for an id
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, config=config, attn_implementation="sdpa",
            output_loading_info=True, quantization_config=transformers.GgufConfig(dequantize=True))
    left = {key: value for key, value in info.items() if value}
    if left:
        raise AssertionError(f"{path}: transformers does not take it as it is: {left}")
    return model.eval()


def reference_folder(path: pathlib.Path) -> pathlib.Path:
    """The float32 folder that transformers makes of a GGUF by itself, kept beside the build for the next test.
    The tokenizer's files come from lamina: transformers takes every byte-level GGUF for GPT-2's."""
    cache = LAMINA.parent / "parity"
    cache.mkdir(exist_ok=True)
    folder = cache / path.stem
    stamp = f"{transformers.__version__} {path.stat().st_size} {path.stat().st_mtime_ns}"
    with open(cache / f"{path.stem}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "stamp").exists() or (folder / "stamp").read_text() != stamp:
            shutil.rmtree(folder, ignore_errors=True)
            reference_from_gguf(path).save_pretrained(folder)
            (folder / "stamp").write_text(stamp)
        with tempfile.TemporaryDirectory(prefix="cut-", dir=cache) as work:
            # The least that lamina can write of this model. Moved, as another test may be reading the folder.
            ours = apply(path, f"1-{blocks_of(folder) - 1}", pathlib.Path(work) / "out", "hf-compact")
            for file in [*ours.glob("tokenizer*"), *ours.glob("chat_template*"), *ours.glob("special_tokens*")]:
                os.replace(file, folder / file.name)
    return folder


def blocks_of(folder) -> int:
    return json.loads((pathlib.Path(folder) / "config.json").read_text())["num_hidden_layers"]


def read_gguf(path) -> "gguf.GGUFReader":
    """As the gguf package reads it, but from an array: its million small slices are slow on a mapped file."""
    with mock.patch.object(numpy, "memmap", lambda file, mode: numpy.fromfile(file, numpy.uint8)):
        return gguf.GGUFReader(path)


# ---- small models


def small(kind, seed=0, **changes):
    """A model of random weights large enough that a slip anywhere moves the logits."""
    names = {"llama": ("LlamaConfig", "LlamaForCausalLM"), "mistral": ("MistralConfig", "MistralForCausalLM"),
             "qwen2": ("Qwen2Config", "Qwen2ForCausalLM")}
    sizes = {"hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 4, "num_attention_heads": 6,
             "num_key_value_heads": 3, "vocab_size": 97, "max_position_embeddings": 128, "rms_norm_eps": 1e-5}
    config, model = (getattr(transformers, name) for name in names[kind])
    torch.manual_seed(seed)
    net = model(config(**{**sizes, **changes})).double()
    for name, weight in net.named_parameters():
        scale = 1.5 / weight.shape[-1] ** 0.5 if weight.dim() > 1 else 0.3
        weight.copy_(torch.randn_like(weight) * scale + (1 if "norm" in name else 0))
    return net


def save_small(net, folder, shard_size="1GB") -> pathlib.Path:
    net.save_pretrained(folder, max_shard_size=shard_size)
    return pathlib.Path(folder)


def edit_config(folder, change):
    path = pathlib.Path(folder) / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config, indent=2))


def batch(vocabulary=97, tokens=23, seed=1):
    """Three rows of ids with their mask: one padded on the left, one on the right, one whole."""
    ids = torch.randint(0, vocabulary, (3, tokens), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[0, :7] = 0
    mask[1, -5:] = 0
    return ids, mask


def largest_difference(ours, theirs, mask=None) -> float:
    """At the positions that are real."""
    difference = (ours.double() - theirs.double()).abs()
    if mask is not None:
        difference = difference[mask.bool()]
    return float("inf") if difference.isnan().any() else difference.max().item()


class Parity(unittest.TestCase):
    """A folder of its own for each test, and figures that are shown when all went well."""

    figures: dict = {}

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lamina-parity-"))

    def tearDown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def within(self, what, value, bound):
        Parity.figures[what] = max(value, Parity.figures.get(what, 0.0))
        self.assertLessEqual(value, bound, what)


def main():
    if not LAMINA.exists():
        print(f"skipped: {LAMINA} is not built")
        sys.exit(77)
    program = unittest.main(module="__main__", exit=False, verbosity=2)
    for what, value in Parity.figures.items():
        print(f"largest difference, {what}: {value:.2g}")
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if result.testsRun == len(result.skipped) else 0)
