#!/usr/bin/env python3
"""What a large model costs: memory and time of `inspect` and of a pure cut, and what happens when its files change under way.

    tests/e2e/limits_test.py build/lamina

The models are made here, of holes: their headers are true, their weights are zeros that take no room on the disk.
Peaks are ru_maxrss, which counts mapped file pages too, and is never below what this script itself takes (some 27 MB).
"""
import contextlib
import json
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

LAMINA = pathlib.Path(sys.argv.pop() if len(sys.argv) > 1 else "build/lamina").resolve()
MB = 1_000_000
LLAMA_8B = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "vocab_size": 128256, "max_position_embeddings": 8192, "rope_theta": 500000.0}
ONE_GB = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 6, "num_attention_heads": 16, "num_key_value_heads": 8,
          "vocab_size": 32000, "max_position_embeddings": 2048, "rope_theta": 10000.0}


def shapes(c):
    """Every tensor of a Llama with its shape, in the order of the published files."""
    width, neurons, head = c["hidden_size"], c["intermediate_size"], c["hidden_size"] // c["num_attention_heads"]
    yield "model.embed_tokens.weight", [c["vocab_size"], width]
    for block in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{block}."
        yield prefix + "input_layernorm.weight", [width]
        yield prefix + "mlp.down_proj.weight", [width, neurons]
        yield prefix + "mlp.gate_proj.weight", [neurons, width]
        yield prefix + "mlp.up_proj.weight", [neurons, width]
        yield prefix + "post_attention_layernorm.weight", [width]
        yield prefix + "self_attn.k_proj.weight", [c["num_key_value_heads"] * head, width]
        yield prefix + "self_attn.o_proj.weight", [width, width]
        yield prefix + "self_attn.q_proj.weight", [width, width]
        yield prefix + "self_attn.v_proj.weight", [c["num_key_value_heads"] * head, width]
    yield "model.norm.weight", [width]
    yield "lm_head.weight", [c["vocab_size"], width]


def bytes_of(shape):
    size = 2  # bfloat16
    for axis in shape:
        size *= axis
    return size


def write_model(folder, sizes, shard_bytes=5_000 * MB):
    folder.mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
              "torch_dtype": "bfloat16", **sizes}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    shards, room = [], 0
    for name, shape in shapes(sizes):
        if room < bytes_of(shape):
            shards.append([])
            room = shard_bytes
        shards[-1].append((name, shape))
        room -= bytes_of(shape)
    weight_map = {}
    for number, tensors in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        header, end = {"__metadata__": {"format": "pt"}}, 0
        for name, shape in tensors:
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + bytes_of(shape)]}
            end += bytes_of(shape)
            weight_map[name] = file
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            out.truncate(8 + len(text) + end)
    total = sum(bytes_of(shape) for _, shape in shapes(sizes))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2))
    return total


def measured(*arguments):
    """Runs lamina; returns its output, seconds and peak in bytes."""
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        process = subprocess.Popen([str(LAMINA), *map(str, arguments)], stdout=output, stderr=subprocess.PIPE)
        message = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
        output.seek(0)
        return process.returncode, output.read().decode(), message.decode(errors="replace"), seconds, usage.ru_maxrss * 1024


class Limits(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lamina-limits-"))
        self.model = self.folder / "model"

    def tearDown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def sparse(self, sizes):
        try:
            return write_model(self.model, sizes)
        except OSError as error:
            self.skipTest(f"skipped: this file system does not hold files of holes ({error})")

    def need(self, size):
        if shutil.disk_usage(self.folder).free < size:
            self.skipTest(f"skipped: {size // MB} MB of disk are needed")

    def test_inspect_of_eight_billion(self):
        self.sparse(LLAMA_8B)
        status, text, message, seconds, peak = measured("inspect", self.model)
        print(f"inspect of 8.03 billion parameters: {seconds:.3f} s (the aim is 0.2), peak {peak / MB:.1f} MB")
        self.assertEqual(status, 0, message)
        for part in ("LlamaForCausalLM, 32 blocks, width 4096, vocabulary 128,256, context 8,192, head of its own", "8,030,261,248", "16.1 GB bfloat16",
                     "131,072", "0-31", "41,947,136", "176,164,864", "hf-compact"):
            self.assertIn(part, text)
        self.assertLess(peak, 60 * MB)
        self.assertLess(seconds, 5)

    def test_a_pure_cut_streams(self):
        total = self.sparse(ONE_GB)
        self.need(total)
        largest = max(bytes_of(shape) for _, shape in shapes(ONE_GB))
        out = self.folder / "out"
        status, _, message, seconds, peak = measured("apply", self.model, "--drop=1,4", "--export", "hf-compact", "-o", out)
        print(f"cut of {total / MB:.0f} MB: {seconds:.1f} s, peak {peak / MB:.1f} MB, largest tensor {largest / MB:.1f} MB")
        self.assertEqual(status, 0, message)
        self.assertLess(peak, largest + 64 * MB)
        self.assertEqual(json.loads((out / "config.json").read_text())["num_hidden_layers"], 4)

    def interrupted(self, act, *arguments):
        """Runs a cut; does `act` once a hundred megabytes are written."""
        out = self.folder / "out"
        process = subprocess.Popen([str(LAMINA), "apply", str(self.model), "--drop=1", "-o", str(out), "--export", "hf-zeroed", *arguments],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        partial = pathlib.Path(f"{out}.partial")
        for _ in range(5000):
            with contextlib.suppress(FileNotFoundError):  # what is written gets its name between two looks
                if sum(path.stat().st_size for path in partial.glob("*.partial")) > 100 * MB:
                    break
            time.sleep(0.002)
        act(process)
        _, message = process.communicate(timeout=120)
        self.assertFalse(out.exists())
        return process.returncode, message.decode(), partial

    def test_files_that_shrink_while_they_are_read(self):
        self.need(self.sparse(ONE_GB))
        shard = self.model / "model-00001-of-00001.safetensors"
        status, message, _ = self.interrupted(lambda _: os.truncate(shard, 10 * MB))
        self.assertEqual(status, 1, message)
        self.assertIn("model-00001-of-00001.safetensors: became shorter while it was being read", message)

    def test_signals_while_it_writes(self):
        self.need(self.sparse(ONE_GB))
        for number, expected in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            status, message, partial = self.interrupted(lambda process, number=number: process.send_signal(number))
            self.assertEqual((status, message), (expected, "lamina: stopped\n"))
            self.assertFalse(partial.exists(), "something was left behind")

    def test_small_files_that_ask_for_much(self):
        """Files of a few bytes that claim everything: refused at once, in a few megabytes."""
        text = lambda value: struct.pack("<Q", len(value)) + value
        gguf = lambda tensors, pairs, rest: b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + rest
        array = lambda element, count: text(b"a") + struct.pack("<IIQ", 9, element, count)
        tensor = lambda sizes, kind=0: text(b"t") + struct.pack("<I", len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes) + struct.pack("<IQ", kind, 0)
        alignment = text(b"general.alignment") + struct.pack("<II", 4, 1 << 30)
        files = {"array of 2^63 bytes": gguf(0, 1, array(0, 1 << 63)), "array of 2^63 texts": gguf(0, 1, array(8, 1 << 63)),
                 "array of 2^30 texts": gguf(0, 1, array(8, 1 << 30)), "array of arrays": gguf(0, 1, array(9, 1 << 62)),
                 "2^63 pairs": gguf(0, 1 << 63, b""), "2^63 tensors": gguf(1 << 63, 0, b""), "text of 1 GB": gguf(0, 1, text(b"a") + struct.pack("<IQ", 8, 1 << 30)),
                 "alignment 2^30": gguf(1, 1, alignment + tensor([4])), "tensor of 2^40": gguf(1, 0, tensor([1 << 40])),
                 "tensor of 2^62 beside 2^62": gguf(1, 0, tensor([1 << 62, 1 << 62])), "blocks of 2^50": gguf(1, 0, tensor([1 << 50], 2))}
        for name, data in files.items():
            with self.subTest(file=name):
                self.assertLess(len(data), 200)
                path = self.folder / "m.gguf"
                path.write_bytes(data + b"\0" * max(0, 43 - len(data)))
                status, _, message, seconds, peak = measured("inspect", path)
                self.assertEqual(status, 1, message)
                self.assertTrue(message.startswith("lamina: "), message)
                self.assertLess(seconds, 5)
                self.assertLess(peak, 60 * MB)

    def test_a_config_that_asks_for_much(self):
        tiny = {**ONE_GB, "hidden_size": 2, "intermediate_size": 2, "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 2}
        for changes in ({"num_hidden_layers": 100_000}, {"num_hidden_layers": 10**9}, {"vocab_size": 1 << 32}, {"hidden_size": 1 << 32, "num_attention_heads": 1 << 20},
                        {"hidden_size": ["x" * 1_000_000]}, {"layer_types": ["y" * 1_000_000] * 2}):
            shutil.rmtree(self.model, ignore_errors=True)
            self.sparse({**tiny, "num_hidden_layers": 2})
            config = json.loads((self.model / "config.json").read_text())
            (self.model / "config.json").write_text(json.dumps({**config, **changes}))
            with self.subTest(config=str(changes)[:60]):
                status, _, message, seconds, peak = measured("inspect", self.model)
                self.assertEqual(status, 1, message[:1000])
                self.assertLess(len(message), 600)
                self.assertLess(seconds, 5)
                self.assertLess(peak, 100 * MB)

    def test_many_small_blocks(self):
        """As many blocks as are believed: no step may be quadratic."""
        self.sparse({**ONE_GB, "hidden_size": 2, "intermediate_size": 2, "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 2,
                     "num_hidden_layers": 4000})
        for arguments in (["inspect", self.model], ["inspect", self.model, "--json"], ["apply", self.model, "--drop=0-3998", "-o", self.folder / "out"]):
            status, _, message, seconds, _ = measured(*arguments)
            print(f"{arguments[0]} of 4,000 blocks: {seconds:.2f} s")
            self.assertEqual(status, 0, message)
            self.assertLess(seconds, 30)


if __name__ == "__main__":
    unittest.main(verbosity=2)
