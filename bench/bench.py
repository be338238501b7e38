#!/usr/bin/env python3
"""What lamina's speed is against: the authors' procedure, transformers, the machine's own matrix products.

    bench/bench.py [search] [decode] [limits]      all of them when none is named; tools/bench builds first
    --json FILE                                    the figures and what they were measured on
    --remove 15 --samples 4 --length 128           the search that is timed

Every figure is a ratio within one run on one thread. The two sides of a ratio take turns where they are short.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "parity"), str(ROOT / "tests" / "e2e")]
from reference import LAMINA, SHARED, SMOLLM2, reference_folder, run, torch, transformers  # noqa: E402

CALIBRATION = SHARED / "wikitext-2" / "valid.txt"
PROMPT = "The history of the city begins with a small harbour, where"


def load(folder, dtype=torch.float32):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


# ---- FinerCut, against the procedure of the authors' public code


class Masked:
    """The public code's way to try a cut: forward hooks that zero the output of o_proj and down_proj."""

    def __init__(self, model):
        self.model, self.masked = model, set()
        for name, module in model.named_modules():
            if name.endswith(("self_attn.o_proj", "mlp.down_proj")):
                module.register_forward_hook(lambda m, i, out, site=name.rpartition(".")[0]: torch.zeros_like(out) if site in self.masked else None)

    def logits(self, samples, cut):
        self.masked = set(cut)
        return torch.cat([self.model(sample.unsqueeze(0), use_cache=False).logits for sample in samples])


def public_js(dense, cut):
    """js_divergence of the public code (its arguments are swapped, which does not change what it costs)."""
    p, q = torch.log_softmax(dense, -1), torch.log_softmax(cut, -1)
    middle = 0.5 * (p.exp() + q.exp())
    divergence = torch.nn.functional.kl_div
    return 0.5 * (divergence(p, middle, reduction="sum") + divergence(q, middle, reduction="sum")) / dense.numel()


def textbook_jsd(dense, cut):
    p, q = torch.log_softmax(dense.double(), -1), torch.log_softmax(cut.double(), -1)
    middle = (0.5 * (p.exp() + q.exp())).log()
    divergence = torch.nn.functional.kl_div
    both = divergence(middle, p, reduction="sum", log_target=True) + divergence(middle, q, reduction="sum", log_target=True)
    return (0.5 * both / dense.shape[:-1].numel()).item()


def bench_search(args):
    with tempfile.TemporaryDirectory(prefix="lamina-bench-") as folder:
        command = ["prune", SMOLLM2, "-o", f"{folder}/out", "--remove", args.remove, "--samples", args.samples, "--length", args.length,
                   "--calibration", CALIBRATION, "--no-measure", "--plan-only", "--baselines", "none", "--threads", 1, "-q"]
        run(*command)
        plan = json.loads(pathlib.Path(folder, "out", "plan.json").read_text())
    order, work = [edit["site"] for edit in plan["edits"]], plan["work"]

    reference = reference_folder(SMOLLM2)
    model = Masked(load(reference))
    text = " ".join(line.strip() for line in CALIBRATION.read_text().splitlines() if line.strip())
    tokenizer = transformers.AutoTokenizer.from_pretrained(reference)
    ids = tokenizer(text[: 20 * args.samples * args.length], return_tensors="pt").input_ids[0]
    samples = ids[: args.samples * args.length].view(args.samples, args.length)
    units = [f"model.layers.{b}.{part}" for b in range(len(model.model.model.layers)) for part in ("self_attn", "mlp")]
    dense = model.logits(samples, [])

    # Two whole steps of the naive search, the first and one in the middle: their time a candidate, and their winners.
    seconds, agree = [], True
    for step in (0, args.remove // 2):
        best = {}
        for unit in units:
            if unit in order[:step]:
                continue
            started = time.perf_counter()
            logits = model.logits(samples, order[:step] + [unit])
            public_js(dense, logits)
            seconds.append(time.perf_counter() - started)
            best[unit] = textbook_jsd(dense, logits)
        winner = min(best, key=best.get)
        agree = agree and winner == order[step] and abs(best[winner] / plan["edits"][step]["score"] - 1) < 1e-4
    candidates = sum(len(units) - k for k in range(args.remove))
    naive = statistics.median(seconds) * candidates
    floor = work["matrix_flops"] / work["gemm_flops_a_second"]
    return {
        "what": f"FinerCut, {args.samples} x {args.length} tokens, {args.remove} of {len(units)} removed, no frozen front",
        "lamina_seconds": work["seconds"],
        "reference_seconds_extrapolated": naive,
        "reference_candidates_timed": len(seconds),
        "ratio": naive / work["seconds"],
        "winners_of_two_steps_agree": agree,
        "matrix_tflop": work["matrix_flops"] / 1e12,
        "naive_tflop": candidates * args.samples * args.length * 2 * sum(p.numel() for p in model.model.parameters()) / 1e12,
        "gemm_gflops": work["gemm_flops_a_second"] / 1e9,
        "floor_seconds": floor,
        "share_in_matrix_products": floor / work["seconds"],
        "order": order,
    }


# ---- greedy decoding of a cut model


def bench_decode():
    tokens = 96
    with tempfile.TemporaryDirectory(prefix="lamina-bench-", dir=LAMINA.parent) as folder:
        rows = []
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            out = pathlib.Path(folder) / name
            run("apply", SMOLLM2, "--drop", "11,12,17,22", "-o", out, "--export", "hf-compact", "--dtype", name, "-q")
            theirs = {kind: load(out, kind) for kind in {torch.float32, dtype}}
            tokenizer = transformers.AutoTokenizer.from_pretrained(out)
            prompt = tokenizer(PROMPT, return_tensors="pt")
            speeds = {"lamina": []} | {str(kind).removeprefix("torch."): [] for kind in theirs}
            for _ in range(3):
                answer = json.loads(run("generate", out, "-p", PROMPT, "--tokens", tokens, "--threads", 1, "--json"))
                speeds["lamina"].append(answer["tokens_per_second"])
                for kind, model in theirs.items():
                    started = time.perf_counter()
                    model.generate(**prompt, max_new_tokens=1, do_sample=False)
                    first = time.perf_counter()
                    ids = model.generate(**prompt, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
                    end = time.perf_counter()
                    count = ids.shape[1] - prompt.input_ids.shape[1] - 1
                    speeds[str(kind).removeprefix("torch.")].append(count / (end - first - (first - started)))
            ours = max(speeds.pop("lamina"))
            best = {kind: max(values) for kind, values in speeds.items()}
            weights = sum(p.numel() for p in theirs[torch.float32].parameters())
            rows.append({"what": f"greedy decoding, {name} folder, 4 of 30 blocks cut", "lamina_tokens_a_second": ours,
                         "transformers_tokens_a_second": best, "ratio": ours / max(best.values()),
                         "weight_bytes_a_token": weights * (4 if name == "float32" else 2),
                         "gigabytes_a_second": ours * weights * (4 if name == "float32" else 2) / 1e9})
    return rows


def read_speed():
    """Bytes a second that one core reads in a sum over an array far larger than its caches: the best of eight."""
    array = torch.ones(1 << 27)
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        array.sum()
        seconds.append(time.perf_counter() - started)
    return array.numel() * 4 / min(seconds)


# ---- memory of a pure cut, time of inspect


def bench_limits():
    import limits_test as limits

    limits.LAMINA = LAMINA
    with tempfile.TemporaryDirectory(prefix="lamina-bench-", dir=LAMINA.parent) as folder:
        folder = pathlib.Path(folder)
        limits.write_model(folder / "8b", limits.LLAMA_8B)
        limits.write_model(folder / "1gb", limits.ONE_GB)
        inspect, cut = [], []
        for turn in range(3):
            inspect.append(measured(["inspect", folder / "8b"]))
            cut.append(measured(["apply", folder / "1gb", "--drop", "2", "-o", folder / f"out{turn}", "--export", "hf-compact", "-q"]))
        largest = max(limits.bytes_of(shape) for _, shape in limits.shapes(limits.ONE_GB))
    return {"inspect_8b_seconds": min(t for t, _ in inspect), "inspect_8b_peak_mb": max(m for _, m in inspect) / 1e6,
            "cut_1gb_seconds": min(t for t, _ in cut), "cut_1gb_peak_mb": max(m for _, m in cut) / 1e6,
            "cut_1gb_allowed_mb": largest / 1e6 + 64}


def measured(arguments):
    """Seconds and peak resident bytes, by a small process between: ru_maxrss of a child starts at its parent's."""
    script = "import resource,subprocess,sys,time;s=time.perf_counter();r=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL).returncode;" \
             "print(time.perf_counter()-s,resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss*1024);sys.exit(r)"
    done = subprocess.run([sys.executable, "-S", "-c", script, str(LAMINA), *map(str, arguments)], capture_output=True, text=True, check=True)
    seconds, peak = done.stdout.split()
    return float(seconds), int(peak)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", choices=["search", "decode", "limits"], default=[])
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--remove", type=int, default=15)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    args = parser.parse_args()
    which = args.which or ["limits", "decode", "search"]
    figures = {"machine": {"processor": next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine()),
                           "threads": 1, "torch": torch.__version__, "transformers": transformers.__version__}}
    if "limits" in which:
        f = figures["limits"] = bench_limits()
        print(f"inspect, 8 billion parameters   {f['inspect_8b_seconds']:.3f} s, {f['inspect_8b_peak_mb']:.0f} MB       (must: 0.2 s, 60 MB)")
        print(f"cut of a 1 GB model             {f['cut_1gb_peak_mb']:.0f} MB peak             (must: {f['cut_1gb_allowed_mb']:.0f} MB), {f['cut_1gb_seconds']:.1f} s", flush=True)
    if "decode" in which:
        figures["read_gigabytes_a_second"] = read_speed() / 1e9
        figures["decode"] = bench_decode()
        for f in figures["decode"]:
            theirs = ", ".join(f"{kind} {speed:.1f}" for kind, speed in f["transformers_tokens_a_second"].items())
            print(f"{f['what']}: lamina {f['lamina_tokens_a_second']:.1f} tokens/s, transformers {theirs}: {f['ratio']:.2f}x  (must: 1.5x)\n"
                  f"    floor: the weights are read once a token, {f['gigabytes_a_second']:.1f} GB/s of {figures['read_gigabytes_a_second']:.1f} GB/s that a core reads", flush=True)
    if "search" in which:
        f = figures["search"] = bench_search(args)
        print(f"{f['what']}:\n"
              f"    lamina {f['lamina_seconds']:.0f} s, the authors' procedure {f['reference_seconds_extrapolated']:.0f} s (from {f['reference_candidates_timed']} candidates): "
              f"{f['ratio']:.1f}x  (must: 5x)\n"
              f"    floor: {f['matrix_tflop']:.1f} TFLOP at {f['gemm_gflops']:.0f} GFLOP/s are {f['floor_seconds']:.0f} s, {f['share_in_matrix_products']:.2f} of the time (must: 0.6); "
              f"naive: {f['naive_tflop']:.0f} TFLOP\n"
              f"    same winners in two whole steps: {'yes' if f['winners_of_two_steps_agree'] else 'NO'}")
    failed = "search" in figures and not figures["search"]["winners_of_two_steps_agree"]
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
