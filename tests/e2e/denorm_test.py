#!/usr/bin/env python3
"""lamina denorm on tiny models that lamina train makes: arms, removal, folding, refusals, and runs that are stopped.

    tests/e2e/denorm_test.py build/lamina
"""
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

LAMINA = pathlib.Path(sys.argv.pop() if len(sys.argv) > 1 else "build/lamina").resolve()
TEXTS = pathlib.Path(__file__).resolve().parents[2] / "texts"
GPT2 = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "n_inner": 64,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
         "hidden_act": "silu", "tie_word_embeddings": True}
SHORT = ["--data", TEXTS / "calibration.txt", "--length", "32", "--batch", "4", "--lr", "1e-3", "--min-lr", "5e-4", "--warmup", "3",
         "--validation-samples", "8", "--start", "5", "--no-speed"]
STEPS = ["--steps", "30"]


def run(*arguments, **options):
    return subprocess.run([LAMINA, *map(str, arguments)], capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
                          **options)


def header(folder):
    with open(folder / "model.safetensors", "rb") as file:
        return json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))


class Denorm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.place.name)
        for name, model in {"gpt2": GPT2, "llama": LLAMA}.items():
            config = cls.folder / f"{name}.json"
            config.write_text(json.dumps({"model": model, "tokenizer": "bytes", "data": [str(TEXTS / "calibration.txt")], "validation": 0.1,
                                          "length": 32, "seed": 1, "training": {"steps": 60, "batch": 8, "lr": 5e-3, "min-lr": 1e-3}}))
            done = run("train", config, "-o", cls.folder / name, "-q")
            assert done.returncode == 0, done.stderr

    @classmethod
    def tearDownClass(cls):
        cls.place.cleanup()

    def denorm(self, model, out, *more, steps=30):
        done = run("denorm", self.folder / model, "-o", self.folder / out, *SHORT, "--steps", steps, "--json", *more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def arm(self, result, name):
        return next(arm for arm in result["arms"] if arm["arm"] == name)

    def test_all_arms(self):
        result = self.denorm("gpt2", "all", "--arms", "base,vanilla,staged,one-shot,taper", "--export", "folded,gpt2-compat,transformer-lens")
        self.assertEqual([arm["arm"] for arm in result["arms"]], ["base", "frozen", "vanilla", "staged", "one-shot", "taper"])
        verdicts = {claim["id"]: claim["verdict"] for claim in result["claims"]}
        self.assertEqual(sorted(verdicts, key=lambda name: int(name[1:])), [f"A{i}" for i in range(1, 12)])
        for name in ("A1", "A2", "A7", "A8"):
            self.assertEqual(verdicts[name], "met", result["claims"])
        self.assertLessEqual(result["proof"]["float64"], 1e-9)
        self.assertLessEqual(result["proof"]["float32"], 1e-4)
        staged = self.arm(result, "staged")
        self.assertEqual([(entry["step"], entry["norm"]) for entry in staged["gone"]],
                         [(5, "mlp0"), (7, "mlp1"), (9, "qk0"), (11, "qk1"), (13, "v0"), (16, "v1"), (19, "final")])
        self.assertEqual({entry["step"] for entry in self.arm(result, "one-shot")["gone"]}, {5})
        # Until the first norm goes, all arms that freeze are one, and vanilla is another by the extra loss alone.
        curves = {name: [record["loss"] for record in self.arm(result, name)["curve"]["steps"]] for name in ("vanilla", "staged", "one-shot")}
        self.assertEqual(curves["staged"][:5], curves["one-shot"][:5])
        self.assertEqual(curves["staged"][0], curves["vanilla"][0])
        self.assertNotEqual(curves["staged"][6], curves["one-shot"][6])
        for arm in result["arms"]:
            self.assertEqual(len(arm["losses"]), 8)
            self.assertAlmostEqual(arm["loss"], sum(arm["losses"]) / 8, places=9)
        difference = staged["less_vanilla"]
        self.assertAlmostEqual(difference["mean"], staged["loss"] - self.arm(result, "vanilla")["loss"], places=9)
        self.assertLess(difference["low"], difference["mean"])

        folded = self.folder / "all" / "hf-perlayer"
        self.assertFalse([name for name in header(folded) if "ln_" in name])
        self.assertEqual(json.loads((folded / "config.json").read_text())["lamina_norms_removed"],
                         {"attention": [0, 1], "mlp": [0, 1], "final": True})
        self.assertTrue([name for name in header(self.folder / "all" / "hf-compat") if "ln_" in name])
        losses = [json.loads(run("eval", self.folder / "all" / form, "--text", TEXTS / "heldout.txt", "--length", "32", "--stride", "32", "--json").stdout)
                  for form in ("hf-perlayer", "hf-compat")]
        self.assertAlmostEqual(losses[0]["nll"], losses[1]["nll"], delta=1e-4)
        report = json.loads((self.folder / "all" / "report.json").read_text())
        self.assertIn("folded away", report["verdict"]["sentence"])
        plan = json.loads((self.folder / "all" / "plan.json").read_text())
        self.assertEqual({edit["edit"] for edit in plan["edits"]}, {"freeze_norm"})
        # What has no norm left is refused, in a sentence.
        again = run("denorm", folded, "-o", self.folder / "again", *SHORT, *STEPS)
        self.assertEqual(again.returncode, 1)
        self.assertIn("no norm left to remove", again.stderr)

    def test_rms_norms_taper(self):
        result = self.denorm("llama", "tapered", "--mode", "taper", "--control", "--no-analyses", "--weights", "bfloat16")
        self.assertLessEqual(result["proof"]["float64"], 1e-9)
        self.assertFalse([name for name in header(self.folder / "tapered") if "norm" in name])
        self.assertEqual(header(self.folder / "tapered")["lm_head.weight"]["dtype"], "BF16")
        gates = [record["gate"] for record in self.arm(result, "taper")["curve"]["steps"]]
        self.assertEqual(gates[5], 1)
        self.assertEqual(gates[-1], 0)
        self.assertEqual(gates, sorted(gates, reverse=True))

    def test_a_lambda_that_drowns_the_text_is_said(self):
        loud = self.denorm("gpt2", "loud", "--no-analyses", "--lambda", "1000000")
        self.assertTrue(any("a smaller --lambda" in warning for warning in loud["warnings"]), loud["warnings"])
        usual = self.denorm("gpt2", "usual", "--no-analyses")
        self.assertFalse(any("--lambda" in warning for warning in usual["warnings"]), usual["warnings"])

    def test_a_list_of_removals(self):
        steps = {"final": 2, "v0": 4, "qk0": 3, "v1": 4, "qk1": 4, "mlp0": 9, "mlp1": 2}
        document = self.folder / "removals.json"
        document.write_text(json.dumps({"lamina_norm_schedule": 1, "removals": [{"norm": norm, "step": step} for norm, step in steps.items()]}))
        result = self.denorm("llama", "listed", "--removals", document, "--no-analyses")
        self.assertEqual({entry["norm"]: entry["step"] for entry in self.arm(result, "staged")["gone"]}, steps)
        document.write_text('{"lamina_norm_schedule": 1, "removals": [{"norm": "mlp9", "step": 1}]}')
        refused = run("denorm", self.folder / "llama", "-o", self.folder / "x", *SHORT, *STEPS, "--removals", document)
        self.assertEqual(refused.returncode, 1)
        self.assertIn('"mlp9" is no norm of this model', refused.stderr)

    def test_refusals(self):
        for more, said in ((["--gap-v", "15"], "the last norm (final) would go after step 43, but the run has 30"),
                           (["--arms", "staged,none"], '--arms "none": base, vanilla'),
                           (["--weights", "q8_0"], "--weights"),
                           (["--mode", "taper", "--taper-from", "9", "--taper-to", "3"], "--taper-to 3"),
                           (["--export", "gpt2-compat", "--weights", "bfloat16"], "16 bits")):
            refused = run("denorm", self.folder / "gpt2", "-o", self.folder / "x", *SHORT, *STEPS, *more)
            self.assertEqual(refused.returncode, 1, (more, refused.stdout))
            self.assertIn(said, refused.stderr)
            self.assertFalse((self.folder / "x").exists())
            self.assertFalse((self.folder / "x.partial").exists(), more)

    def test_help(self):
        self.assertIn("Example: lamina denorm MODEL --data", run("denorm", "--help").stdout)

    def test_a_stopped_run_goes_on(self):
        more = ["--control", "--no-analyses", "--checkpoint-every", "50"]
        whole = self.denorm("gpt2", "whole", *more, steps=400)
        command = [LAMINA, "denorm", self.folder / "gpt2", "-o", self.folder / "stopped", *map(str, SHORT), *more, "--steps", "400", "--json"]
        running = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env={**os.environ, "OMP_NUM_THREADS": "1"})
        log, until = self.folder / "stopped.partial/training/staged.jsonl", time.time() + 60
        while running.poll() is None and time.time() < until and not (log.exists() and log.read_text().count("\n") > 12):
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        error = running.communicate(timeout=60)[1]
        self.assertEqual(running.returncode, 130, error)
        self.assertIn("--resume", error)
        self.assertFalse((self.folder / "stopped").exists())
        resumed = json.loads(run(*command[1:], "--resume").stdout)
        for name in ("vanilla", "staged"):
            one, other = self.arm(whole, name), self.arm(resumed, name)
            self.assertEqual([record["loss"] for record in one["curve"]["steps"]], [record["loss"] for record in other["curve"]["steps"]])
            self.assertEqual(one["losses"], other["losses"])
        for key in ("gone", "drift", "scales"):
            self.assertEqual(self.arm(whole, "staged")[key], self.arm(resumed, "staged")[key])
        self.assertEqual(whole["plan"]["edits"], resumed["plan"]["edits"])


if __name__ == "__main__":
    unittest.main(verbosity=0)
