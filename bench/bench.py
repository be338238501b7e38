#!/usr/bin/env python3
"""What lamina's speed is against: the authors' procedure, transformers, the machine's own matrix products.

    bench/bench.py [search] [decode] [limits] [neurons] [train] [tag] [laptop] [unet] [sdxl]      all of them when none is named; tools/bench builds first
    --json FILE                                    the figures and what they were measured on; others in FILE are kept
    --remove 15 --samples 4 --length 128           the search that is timed
    --sentences 400 --rounds 3                     what tagging is timed on, and how often
    --lock FILE                                    held (flock) while neurons, train and tag are timed, a few minutes at a time

Every figure is a ratio within one run on one thread. The two sides of a ratio take turns where they are short.
"""
import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import platform
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "parity"), str(ROOT / "tests" / "e2e")]
from reference import LAMINA, SHARED, SMOLLM2, load_file, reference_folder, run, save_file, torch, transformers  # noqa: E402

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


# ---- neurons through the LM head

CHUNK, TOP, LOOPED = 1536, 8, 400


class Ways:
    """What a map is against, each in the fastest form that we found. Some return the first labels of what they looked at."""

    def __init__(self):
        weights = load_file(reference_folder(SMOLLM2) / "model.safetensors")
        self.head = weights["model.embed_tokens.weight"].clone()  # tied; [vocabulary, width]
        self.turned = self.head.t().contiguous()
        blocks = sum(name.endswith("mlp.up_proj.weight") for name in weights)
        self.rows = torch.cat([weights[f"model.layers.{block}.mlp.up_proj.weight"] for block in range(blocks)])
        self.scores = torch.empty(CHUNK, self.head.shape[0])

    def products(self):
        for rows in self.rows.split(CHUNK):
            torch.mm(rows, self.head.t(), out=self.scores)

    def batched(self):
        tokens = []
        for rows in self.rows.split(CHUNK):
            scores = torch.mm(rows, self.head.t(), out=self.scores)
            tokens.append(scores.topk(TOP).indices)
            scores.topk(TOP, largest=False)
            scores.logsumexp(1)
            scores.sub_(scores.mean(1, keepdim=True)).square_().mean(1)
            scores.square_().mean(1)
        return torch.cat(tokens)[:, 0]

    def looped(self):
        """A product with the head turned round in memory is twice as fast here as one with the head as it is stored."""
        for row in self.some():
            torch.mm(row[None], self.turned)[0].softmax(0).topk(TOP)

    def looped_as_stored(self):
        for row in self.some():
            self.head.mv(row).softmax(0).topk(TOP)

    def some(self):
        return self.rows[::len(self.rows) // LOOPED][:LOOPED]


def timed(work):
    started, used = time.perf_counter(), time.process_time()
    result = work()
    return {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - used}, result


def bench_neurons(lock):
    ways, rounds = Ways(), []
    count, loop = len(ways.rows), len(ways.rows) / LOOPED
    with tempfile.TemporaryDirectory(prefix="lamina-bench-", dir=LAMINA.parent) as folder:
        atlas = pathlib.Path(folder) / "atlas.sqlite"
        for _ in range(3):
            with held(lock):
                load_before = os.getloadavg()[0]
                products, _ = timed(ways.products)
                command = ["neurons", "map", SMOLLM2, "-o", atlas, "--rows", "up", "--random", 0, "--threads", 1, "--force", "-q"]
                wall, peak, processor = measured(command, processor=True)
                batched, tokens = timed(ways.batched)
                looped, _ = timed(ways.looped)
                stored, _ = timed(ways.looped_as_stored)
            with contextlib.closing(sqlite3.connect(atlas)) as database:
                more = json.loads(database.execute("SELECT value FROM header WHERE key = 'more'").fetchone()[0])
                first = torch.tensor(database.execute("SELECT token FROM labels WHERE pole = 0 AND rank = 1 ORDER BY neuron_id").fetchall())
            looped, stored = ({key: value * loop for key, value in way.items()} for way in (looped, stored))
            rounds.append({"gemm": products, "batched": batched, "loop_extrapolated": looped, "loop_as_stored_extrapolated": stored,
                           "map": {"seconds": more["seconds"], "decode_seconds": more["decode_seconds"], "product_seconds": more["product_seconds"]},
                           "command": {"seconds": wall, "processor_seconds": processor, "peak_mb": peak / 1e6},
                           "load_before": load_before, "other_first_labels": int((first[:, 0] != tokens).sum())})
        _, loaded = measured(["eval", SMOLLM2, "--tokens", 2, "-q"])
        finds = bench_find(atlas, pathlib.Path(folder) / "large.sqlite")

    def over_rounds(figure):
        values = sorted(map(figure, rounds))
        return {"median": statistics.median(values), "least": values[0], "most": values[-1]}

    return {
        "what": f"map of all {count} up rows of SmolLM2, {ways.head.shape[1]} wide, {ways.head.shape[0]} tokens",
        "share_of_gemm": over_rounds(lambda r: r["gemm"]["seconds"] / r["map"]["seconds"]),
        "share_of_gemm_decoding_alone": over_rounds(lambda r: r["gemm"]["seconds"] / r["map"]["decode_seconds"]),
        "share_of_gemm_whole_command": over_rounds(lambda r: r["gemm"]["seconds"] / r["command"]["seconds"]),
        "ratio_to_batched": over_rounds(lambda r: r["batched"]["seconds"] / r["map"]["seconds"]),
        "ratio_to_batched_whole_command": over_rounds(lambda r: r["batched"]["seconds"] / r["command"]["seconds"]),
        "ratio_to_loop": over_rounds(lambda r: r["loop_extrapolated"]["seconds"] / r["map"]["seconds"]),
        "ratio_to_loop_whole_command": over_rounds(lambda r: r["loop_extrapolated"]["seconds"] / r["command"]["seconds"]),
        "ratio_to_loop_as_stored": over_rounds(lambda r: r["loop_as_stored_extrapolated"]["seconds"] / r["map"]["seconds"]),
        "processor_time": {
            "what": "the same of processor seconds, which other programs touch less; the whole command",
            "share_of_gemm": over_rounds(lambda r: r["gemm"]["processor_seconds"] / r["command"]["processor_seconds"]),
            "ratio_to_batched": over_rounds(lambda r: r["batched"]["processor_seconds"] / r["command"]["processor_seconds"]),
            "ratio_to_loop": over_rounds(lambda r: r["loop_extrapolated"]["processor_seconds"] / r["command"]["processor_seconds"])},
        "loop": f"one matrix-vector product, softmax and topk a neuron, with the head transposed in memory; {LOOPED} neurons timed and multiplied by {loop:g}",
        "batched": f"chunks of {CHUNK}: matmul, logsumexp, topk {TOP} at both ends, variance, fourth moment, in place; nothing written",
        "map": "reading the rows, decoding, writing the labels; the whole command also loads, hashes, builds the indexes",
        "gemm_gflops": over_rounds(lambda r: 2 * count * ways.head.numel() / r["gemm"]["seconds"] / 1e9),
        "peak_mb": max(r["command"]["peak_mb"] for r in rounds),
        "peak_of_a_loaded_model_mb": loaded / 1e6,
        "rounds": rounds,
        "find": finds,
    }


# ---- a training step, against PyTorch + transformers (+ peft)


def bench_train(lock):
    """Processor seconds a step: of whole runs of 3 and of 9 steps, so that loading and writing cancel."""
    few, many, scratch = 3, 9, "/dev/shm" if os.path.isdir("/dev/shm") else None
    folder, rows = reference_folder(SMOLLM2), []
    with tempfile.TemporaryDirectory(prefix="lamina-bench-", dir=scratch) as work:
        samples = pathlib.Path(work) / "samples.safetensors"
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(CALIBRATION.read_text()[:100_000], return_tensors="pt").input_ids[0]
        save_file({"input_ids": ids[: many * 4 * 128].view(-1, 128).contiguous()}, samples)
        for kind, flags in (("full", []), ("lora", ["--lora", 16, "--alpha", 32])):
            ours, theirs, peaks, losses = [], [], [], []
            for _ in range(2):
                with held(lock):
                    used = {}
                    for steps in (few, many):
                        _, peak, used[steps] = measured(
                            ["heal", folder, "--samples", samples, "--batch", 4, "--steps", steps, "--lr", 5e-5, "--schedule", "constant", "--warmup", 0,
                             "--checkpoint-every", 10_000, "--threads", 1, *flags, "-o", f"{work}/out", "--force", "-q"], processor=True)
                    curve = [json.loads(line) for line in pathlib.Path(work, "out", "curve.jsonl").read_text().splitlines()]
                    done = subprocess.run([sys.executable, str(ROOT / "bench" / "train_reference.py"), str(folder), kind, str(many), str(samples), "--fused"],
                                          capture_output=True, text=True, check=True)
                reference = json.loads(done.stdout.splitlines()[-1])
                ours.append((used[many] - used[few]) / (many - few))
                theirs.append(statistics.fmean(reference["processor"][few:]))
                peaks.append((peak / 1e6, reference["peak_mb"] * 1.048576))
                steps_seen = [line["loss"] for line in curve if "loss" in line]
                losses.append(max(abs(a / b - 1) for a, b in zip(steps_seen, reference["losses"])))
            rows.append({"what": f"one step of SmolLM2-135M, {kind}, 4 x 128 tokens, float32, AdamW (fused in both), clipped, one thread",
                         "lamina_processor_seconds": ours, "reference_processor_seconds": theirs,
                         "ratio": statistics.fmean(theirs) / statistics.fmean(ours), "lamina_peak_mb": peaks[-1][0], "reference_peak_mb": peaks[-1][1],
                         "memory": peaks[-1][0] / peaks[-1][1], "largest_relative_difference_of_losses": max(losses)})
    return rows


# ---- taggers: sentences a second, and a fine-tuning step, against transformers (+ peft) with the same masks

WNUT17 = SHARED / "wnut17"
KINDS = ("corporation", "creative-work", "group", "location", "person", "product")
PLAN = "0011"  # the upper half looks right
TRAINED_BATCH, STEPS = 16, 10


def tagged_sentences(files, tokenizer, count):
    """Evenly chosen sentences of words and tags that fit a window, or made ones of like lengths where the data is not there."""
    found, rows = [], []
    if WNUT17.exists():
        for file in files:
            for line in (WNUT17 / file).read_text(errors="replace").splitlines() + [""]:
                if line.strip():
                    rows.append(line.split("\t")[:2])
                elif rows:
                    found.append(rows)
                    rows = []
    else:
        draw = random.Random(0)
        words = CALIBRATION.read_text().split()
        for _ in range(2 * count):
            first, length = draw.randrange(len(words) - 64), max(1, min(60, round(draw.gauss(17, 10))))
            found.append([[word, "B-person" if word.istitle() else "O"] for word in words[first:first + length]])
    lengths = tokenizer([[" " + word for word, _ in rows] for rows in found], is_split_into_words=True)["input_ids"]
    fit = [rows for rows, ids in zip(found, lengths) if len(ids) < 128]
    return fit[::max(1, len(fit) // count)][:count]


def write_conll(path, rows):
    path.write_text("".join("".join(f"{word}\t{tag}\n" for word, tag in sentence) + "\n" for sentence in rows))
    return path


def write_classifier(folder):
    """SmolLM2 with a classifier of random numbers on it, as transformers writes one."""
    labels = ["O", *(f"{prefix}-{kind}" for kind in KINDS for prefix in "BI")]
    source = reference_folder(SMOLLM2)
    torch.manual_seed(0)
    net = transformers.AutoModelForTokenClassification.from_pretrained(
        source, dtype=torch.float32, id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)})
    net.score.weight.normal_(std=0.2)
    net.save_pretrained(folder)
    for file in [*source.glob("tokenizer*"), *source.glob("special_tokens*")]:
        shutil.copy(file, folder)
    config = json.loads((folder / "config.json").read_text())
    config["lamina_unmasked"] = list(range(config["num_hidden_layers"] // 2, config["num_hidden_layers"]))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def tag_reference(*arguments):
    done = subprocess.run([sys.executable, str(ROOT / "bench" / "tag_reference.py"), *map(str, arguments)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def bench_tag(args):
    scratch = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="lamina-bench-", dir=scratch) as work:
        work = pathlib.Path(work)
        folder = write_classifier(work / "model")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        rows = tagged_sentences(("emerging.dev.conll", "emerging.test.annotated"), tokenizer, args.sentences)
        data, one = write_conll(work / "some.conll", rows), write_conll(work / "one.conll", rows[:1])
        figures = {"sentences": len(rows), "words": sum(map(len, rows)), "throughput": tag_throughput(args, folder, data, one)}
        learnt = tagged_sentences(("wnut17train.conll",), tokenizer, TRAINED_BATCH * STEPS)
        figures["step"] = tag_step(args, folder, write_conll(work / "train.conll", learnt), work)
    return figures


def tag_throughput(args, folder, data, one):
    """Processor seconds of a whole run on all sentences less those of a run on one: loading cancels."""
    figures, tags = {}, {}
    for dtype in ("float32", "bfloat16"):
        batches, rounds = "8,16,32,64", []
        for turn in range(args.rounds):
            with held(args.lock):
                used = {}
                for file in (one, data):
                    wall, peak, used[file] = measured(["tag", "eval", folder, "--data", file, "--dtype", dtype, "--threads", 1, "-q"], processor=True)
                theirs = tag_reference("eval", folder, data, dtype, batches)
            best = min(theirs["runs"], key=lambda batch: theirs["runs"][batch]["processor_seconds"])
            batches = best  # the best of the first round is asked for in the others
            rounds.append({"lamina": used[data] - used[one], "reference": theirs["runs"][best]["processor_seconds"], "batch": int(best),
                           "padded_tokens": theirs["runs"][best]["padded_tokens"], "tokens": theirs["runs"][best]["tokens"],
                           "lamina_peak_mb": peak / 1e6, "reference_peak_mb": theirs["peak_mb"],
                           "reference_all": {batch: run["processor_seconds"] for batch, run in theirs["runs"].items()}})
        said = run("tag", "predict", folder, data, "--input", "conll", "--format", "conll", "--dtype", dtype, "-q").decode()
        tags[dtype] = [line.split("\t")[-1] for line in said.splitlines() if line.strip()]
        reference = [tag for sentence in theirs["tags"] for tag in sentence]
        figures[dtype] = {"rounds": rounds, "lamina_seconds": statistics.median(r["lamina"] for r in rounds),
                          "reference_seconds": statistics.median(r["reference"] for r in rounds),
                          "ratio": statistics.median(r["reference"] / r["lamina"] for r in rounds),
                          "same_tags": sum(map(str.__eq__, tags[dtype], reference)) / len(reference)}
    figures["bfloat16_against_float32"] = {
        "ratio": figures["float32"]["reference_seconds"] / figures["bfloat16"]["lamina_seconds"],
        "same_tags": sum(map(str.__eq__, tags["bfloat16"], tags["float32"])) / len(tags["float32"])}
    return figures


def tag_step(args, folder, data, work):
    """Processor seconds of two epochs less those of one: the same batches, sentences of like length together, in another order."""
    rounds = []
    for _ in range(args.rounds):
        with held(args.lock):
            used = {}
            for epochs in (1, 2):
                _, peak, used[epochs] = measured(
                    ["tag", "train", reference_folder(SMOLLM2), "--train", data, "--dev", data.with_name("one.conll"), "--mask", PLAN, "--lora", 16,
                     "--alpha", 32, "--targets", "*.q_proj,*.v_proj", "--epochs", epochs, "--batch", TRAINED_BATCH, "--lr", 2e-4, "--threads", 1,
                     "-o", work / "tagger", "--force", "-q"], processor=True)
            theirs = tag_reference("train", folder, data, TRAINED_BATCH)
        rounds.append({"lamina": (used[2] - used[1]) / STEPS, "reference": statistics.fmean(step["processor_seconds"] for step in theirs["steps"]),
                       "lamina_peak_mb": peak / 1e6, "reference_peak_mb": theirs["peak_mb"]})
    return {"rounds": rounds, "tokens_a_step": theirs["padded_tokens"] / STEPS, "learnt": theirs["learnt"],
            "lamina_seconds": statistics.median(r["lamina"] for r in rounds), "reference_seconds": statistics.median(r["reference"] for r in rounds),
            "ratio": statistics.median(r["reference"] / r["lamina"] for r in rounds),
            "lamina_peak_mb": rounds[-1]["lamina_peak_mb"], "reference_peak_mb": rounds[-1]["reference_peak_mb"]}


@contextlib.contextmanager
def held(lock):
    with open(lock, "a") if lock else contextlib.nullcontext() as file:
        if file:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def bench_find(atlas, large, neurons=458_752):
    """`lamina neurons find` in an atlas as large as Llama 3.1 8B's, which is this one again and again."""
    with contextlib.closing(sqlite3.connect(large, isolation_level=None)) as database:
        database.execute(f"ATTACH '{atlas}' AS one")
        schema = database.execute("SELECT type, sql FROM one.sqlite_master WHERE sql IS NOT NULL").fetchall()
        pragmas = [(name, database.execute(f"PRAGMA one.{name}").fetchone()[0]) for name in ("application_id", "user_version")]
        header = dict(database.execute("SELECT key, value FROM one.header"))
        blocks, width = header["blocks"], header["neurons"]
        wanted = -(-neurons // width)
        for name, value in pragmas:
            database.execute(f"PRAGMA main.{name} = {value}")
        database.execute("PRAGMA main.synchronous = OFF")
        database.execute("BEGIN")
        for kind, sql in schema:
            if kind == "table":
                database.execute(sql)
        for table in ("header", "tokens", "sets", "best"):
            database.execute(f"INSERT INTO {table} SELECT * FROM one.{table}")
        database.execute("UPDATE header SET value = ? WHERE key = 'blocks'", (wanted,))
        database.execute("UPDATE header SET value = ? WHERE key = 'decoded_blocks'", (json.dumps(list(range(wanted))),))
        for first in range(0, wanted, blocks):
            end, shift = (wanted - first) * width, first * width
            database.execute("INSERT INTO neurons SELECT id + ?, set_id, block + ?, neuron, norm, mean, deviation, kurtosis, log_sum, "
                             "log_sum_negated FROM one.neurons WHERE id < ? ORDER BY id", (shift, first, end))
            database.execute("INSERT INTO labels SELECT neuron_id + ?, pole, rank, token, score, p FROM one.labels WHERE neuron_id < ? "
                             "ORDER BY neuron_id, pole, rank", (shift, end))
            database.execute("INSERT INTO angles SELECT id + ?, block + ?, neuron, gate_up, up_down, gate_down FROM one.angles "
                             "WHERE id < ? ORDER BY id", (shift, first, end))
        for kind, sql in schema:
            if kind == "index":
                database.execute(sql)
        database.execute("COMMIT")
        # Of the tokens that are a word of letters, the one that labels the most neurons.
        crowd = database.execute("SELECT word FROM labels JOIN tokens ON token = id WHERE NOT special AND word GLOB '[a-z]*[a-z]' AND "
                                 "word NOT GLOB '*[^a-z]*' GROUP BY word ORDER BY COUNT(*) DESC LIMIT 1").fetchone()[0]
        rows = []
        for word in ("dog", crowd):
            labels = database.execute("SELECT COUNT(*) FROM labels JOIN tokens ON token = id WHERE word = ?", (word,)).fetchone()[0]
            seconds = sorted(measured(["neurons", "find", large, word, "--json"])[0] for _ in range(7))
            rows.append({"word": word, "labels": labels, "neurons": wanted * width, "atlas_mb": large.stat().st_size / 1e6,
                         "seconds": {"median": statistics.median(seconds), "least": seconds[0], "most": seconds[-1]}})
    return rows


# ---- scores of a U-Net's parts


def bench_laptop(args):
    """All 38 candidates of an SD1.5-shaped U-Net with random weights: one full pass each, one walk with kept streams, and that walk with eight
    candidates in a batch. One sample, latents of 32 x 32, one thread; what else a run does is not counted."""
    import diffusers
    latent = "32x32"
    with tempfile.TemporaryDirectory(prefix="lamina-bench-", dir="/dev/shm") as folder:
        unet = pathlib.Path(folder) / "unet"
        torch.manual_seed(0)
        diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768).save_pretrained(unet)
        rounds = []
        for _ in range(args.rounds):
            seconds = {}
            for name, rows in (("full passes", 0), ("kept streams", 1), ("eight rows", 8)):
                done = json.loads(run("prune", unet, "-o", pathlib.Path(folder) / "out", "--force", "--plan-only", "--json", "--samples", 1, "--heldout", 1,
                                      "--rerank", 0, "--compare", "none", "--trajectory", 0, "--repeats", 1, "--latent", latent, "--rows", rows))
                seconds[name] = {"wall": done["seconds"]["scores"], "processor": done["seconds"]["scores, of the processor"]}
            rounds.append(seconds)
    ratio = {kind: {name: statistics.median(r[name][kind] / r["full passes"][kind] for r in rounds) for name in ("kept streams", "eight rows")}
             for kind in ("wall", "processor")}
    return {"what": f"scores of all 38 parts of an SD1.5-shaped U-Net, latents of {latent}", "rounds": rounds, "ratio": ratio}


# ---- a pass of a U-Net, against diffusers


def bench_unet(args):
    """Stable Diffusion 1.5's U-Net with random weights, one latent of 64 x 64, float32, one thread. The sides take turns, each in a process of its
    own; of each process the first pass, which also reads the weights, is not counted. Beside them what A-SDM-style acceleration saves at this size:
    windows for the attention over 64 x 64 tokens, one layer less in the outermost stages (a stock config), and both."""
    import diffusers
    program = LAMINA.parent / "tests" / "parity" / "unet_forward"
    with tempfile.TemporaryDirectory(prefix="lamina-bench-", dir="/dev/shm") as folder:
        unet, inputs = pathlib.Path(folder) / "unet", pathlib.Path(folder) / "in.safetensors"
        torch.manual_seed(0)
        diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768).save_pretrained(unet)
        save_file({"sample": torch.randn(1, 4, 64, 64), "time": torch.tensor([501.0]), "text": torch.randn(1, 77, 768)}, inputs)
        weights = (unet / "diffusion_pytorch_model.safetensors").stat().st_size
        commands = {"lamina": [program, unet, inputs, f"{folder}/lamina", "--dtype", "float32", "--passes", "3"],
                    "diffusers": [sys.executable, "-B", ROOT / "bench" / "unet_reference.py", unet, inputs, f"{folder}/diffusers", "3"]}
        smaller = pathlib.Path(folder) / "smaller"
        diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768, layers_per_block=[1, 2, 2, 2]).save_pretrained(smaller)
        shallow = [f"{block}.attentions.{i}" for block, count in (("down_blocks.0", 2), ("up_blocks.3", 3)) for i in range(count)]
        for name, made_of, sites in (("windows", unet, shallow), ("a layer less", smaller, []), ("both", smaller, [s for s in shallow if s not in (
                "down_blocks.0.attentions.1", "up_blocks.3.attentions.2")])):
            target = pathlib.Path(folder) / name.replace(" ", "-")
            target.mkdir()
            config = json.loads((made_of / "config.json").read_text())
            if sites:
                config["lamina_regional"] = [{"site": site, "window": 16, "pool": 4, "mix": "none", "log_count": True, "mask_own": True} for site in sites]
            (target / "config.json").write_text(json.dumps(config))
            (target / "diffusion_pytorch_model.safetensors").symlink_to(made_of / "diffusion_pytorch_model.safetensors")
            commands[name] = [program, target, inputs, f"{folder}/out-{target.name}", "--dtype", "float32", "--passes", "3"]
        rounds = []
        for _ in range(args.rounds):
            done = {}
            for name, command in commands.items():
                with held(args.lock):
                    made = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                done[name] = {"seconds": min(made["seconds"][1:]), "processor_seconds": min(made["processor_seconds"][1:]),
                              "mb_above_weights": (made["peak_bytes"] - made["empty_bytes"] - weights) / 1e6}
            rounds.append(done)
        ours, theirs = (load_file(f"{folder}/{name}")["prediction"] for name in ("lamina", "diffusers"))
    over = lambda key: statistics.median(r["diffusers"][key] / r["lamina"][key] for r in rounds)
    return {"what": "SD1.5's U-Net, random weights, one latent of 64 x 64", "rounds": rounds, "ratio": over("seconds"),
            "ratio_of_processor_seconds": over("processor_seconds"), "memory": 1 / over("mb_above_weights"),
            "saved": {name: {key: 1 - statistics.median(r[name][key] / r["lamina"][key] for r in rounds) for key in ("seconds", "processor_seconds")}
                      for name in ("windows", "a layer less", "both")}, "relative_difference": ((ours - theirs).abs().max() / theirs.abs().max()).item()}


SDXL = {"sample_size": 128, "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], "use_linear_projection": True,
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "transformer_layers_per_block": [1, 2, 10],
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816}


def bench_sdxl(args):
    """SDXL's U-Net with random weights (10 GB, in ROOT/out), one latent of 64 x 64, float32, one pass a side: what each says, and its memory."""
    import diffusers
    program = LAMINA.parent / "tests" / "parity" / "unet_forward"
    (ROOT / "out").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "out") as folder:
        unet, inputs = pathlib.Path(folder) / "unet", pathlib.Path(folder) / "in.safetensors"
        torch.manual_seed(0)
        net = diffusers.UNet2DConditionModel(**SDXL)
        parameters = sum(p.numel() for p in net.parameters())
        net.save_pretrained(unet, max_shard_size="20GB")
        del net
        save_file({"sample": torch.randn(1, 4, 64, 64), "time": torch.tensor([501.0]), "text": torch.randn(1, 77, 2048), "text_embeds": torch.randn(1, 1280),
                   "time_ids": torch.tensor([[512.0, 512, 0, 0, 512, 512]])}, inputs)
        weights = (unet / "diffusion_pytorch_model.safetensors").stat().st_size
        done = {}
        for name, command in (("lamina", [program, unet, inputs, f"{folder}/lamina", "--dtype", "float32", "--passes", "2"]),
                              ("diffusers", [sys.executable, "-B", ROOT / "bench" / "unet_reference.py", unet, inputs, f"{folder}/diffusers", "2"])):
            made = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            done[name] = {"seconds": made["seconds"][-1], "mb_above_weights": (made["peak_bytes"] - made["empty_bytes"] - weights) / 1e6}
        ours, theirs = (load_file(f"{folder}/{name}")["prediction"] for name in ("lamina", "diffusers"))
    return {"what": "SDXL's U-Net, random weights, one latent of 64 x 64", "parameters": parameters, "rounds": [done],
            "relative_difference": ((ours - theirs).abs().max() / theirs.abs().max()).item()}


def measured(arguments, processor=False):
    """Seconds and peak resident bytes, and processor seconds, by a small process between: ru_maxrss of a child starts
    at its parent's."""
    script = "import resource,subprocess,sys,time;s=time.perf_counter();r=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL).returncode;" \
             "t=time.perf_counter()-s;u=resource.getrusage(resource.RUSAGE_CHILDREN);print(t,u.ru_maxrss*1024,u.ru_utime+u.ru_stime);sys.exit(r)"
    done = subprocess.run([sys.executable, "-S", "-c", script, str(LAMINA), *map(str, arguments)], capture_output=True, text=True, check=True)
    seconds, peak, used = done.stdout.split()
    return (float(seconds), int(peak), float(used)) if processor else (float(seconds), int(peak))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", choices=["search", "decode", "limits", "neurons", "train", "tag", "laptop", "unet", "sdxl"], default=[])
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--lock", type=pathlib.Path)
    parser.add_argument("--remove", type=int, default=15)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--sentences", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    which = args.which or ["limits", "decode", "neurons", "train", "tag", "laptop", "unet", "sdxl", "search"]
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
    if "neurons" in which:
        f = figures["neurons"] = bench_neurons(args.lock)

        def spread(figure, unit="x"):
            return f"{figure['median']:.2f}{unit} ({figure['least']:.2f} to {figure['most']:.2f})"

        print(f"{f['what']}: medians of {len(f['rounds'])} rounds\n"
              f"    of the speed of the matrix product: {spread(f['share_of_gemm'], '')}  (must: 0.75); decoding alone {spread(f['share_of_gemm_decoding_alone'], '')}, "
              f"the whole command {spread(f['share_of_gemm_whole_command'], '')}\n"
              f"    batched PyTorch: {spread(f['ratio_to_batched'])}  (must: 1.15x); against the whole command {spread(f['ratio_to_batched_whole_command'])}\n"
              f"    a loop over neurons in PyTorch, from {LOOPED}: {spread(f['ratio_to_loop'])}  (must: 5x); with the head as stored {spread(f['ratio_to_loop_as_stored'])}\n"
              f"    by processor time of the whole command: {spread(f['processor_time']['share_of_gemm'], '')} of the matrix product, batched {spread(f['processor_time']['ratio_to_batched'])}, "
              f"loop {spread(f['processor_time']['ratio_to_loop'])}\n"
              f"    peak memory {f['peak_mb']:.0f} MB, a loaded model {f['peak_of_a_loaded_model_mb']:.0f} MB  (must: 300 MB more)\n"
              f"    first labels that batched PyTorch has otherwise: {max(r['other_first_labels'] for r in f['rounds'])}")
        for row in f["find"]:
            print(f"    find {row['word']}, {row['labels']} labels among {row['neurons']} neurons: {row['seconds']['median'] * 1e3:.0f} ms  (must: 50 ms)", flush=True)
    if "unet" in which:
        f = figures["unet"] = bench_unet(args)
        row = {name: {key: statistics.median(r[name][key] for r in f["rounds"]) for key in f["rounds"][0][name]} for name in ("diffusers", "lamina")}
        print(f"{f['what']}: diffusers {row['diffusers']['seconds']:.2f} s, lamina {row['lamina']['seconds']:.2f} s: {f['ratio']:.2f}x  (must: 1.0x); of the processor "
              f"{row['diffusers']['processor_seconds']:.2f} s and {row['lamina']['processor_seconds']:.2f} s: {f['ratio_of_processor_seconds']:.2f}x\n"
              f"    above the weights {row['diffusers']['mb_above_weights']:.0f} MB and {row['lamina']['mb_above_weights']:.0f} MB: {f['memory']:.2f}  (must: 1); "
              f"predictions within {f['relative_difference']:.1e}")
        for name, what in (("windows", "windows of 16 and cells of 4 over 64 x 64 tokens"), ("a layer less", "a layer less in the outermost stages"), ("both", "both")):
            print(f"    time saved by {what}: {100 * f['saved'][name]['seconds']:.1f} %, of the processor's {100 * f['saved'][name]['processor_seconds']:.1f} %", flush=True)
    if "sdxl" in which:
        f = figures["sdxl"] = bench_sdxl(args)
        row = f["rounds"][0]
        print(f"{f['what']}, {f['parameters']:,} parameters: diffusers {row['diffusers']['seconds']:.1f} s, lamina {row['lamina']['seconds']:.1f} s (one pass each); above the "
              f"weights {row['diffusers']['mb_above_weights']:.0f} MB and {row['lamina']['mb_above_weights']:.0f} MB; predictions within {f['relative_difference']:.1e}  (must: 1e-4)",
              flush=True)
    if "train" in which:
        figures["train"] = bench_train(args.lock)
        for f in figures["train"]:
            print(f"{f['what']}: {statistics.fmean(f['reference_processor_seconds']):.2f} s against {statistics.fmean(f['lamina_processor_seconds']):.2f} s of the "
                  f"processor: {f['ratio']:.2f}x  (must: 1.0x)\n    peak memory {f['lamina_peak_mb']:.0f} MB against {f['reference_peak_mb']:.0f} MB: {f['memory']:.2f}  "
                  f"(must: 1); losses within {f['largest_relative_difference_of_losses']:.1e}", flush=True)
    if "tag" in which:
        f = figures["tag"] = bench_tag(args)
        print(f"tagging with SmolLM2-135M, plan {PLAN}, {f['sentences']} sentences of {f['words']} words, one thread, loading not counted; medians of {args.rounds} rounds")
        for dtype in ("float32", "bfloat16"):
            row = f["throughput"][dtype]
            last = row["rounds"][-1]
            print(f"    {dtype}: lamina {f['sentences'] / row['lamina_seconds']:.1f} sentences/s, transformers {f['sentences'] / row['reference_seconds']:.1f} in its best "
                  f"batches, of {last['batch']}: {row['ratio']:.2f}x" + ("  (must: 1.5x)" if dtype == "float32" else "") +
                  f"; same tags {row['same_tags']:.4f}; peak memory {last['lamina_peak_mb']:.0f} MB against {last['reference_peak_mb']:.0f} MB")
        row = f["throughput"]["bfloat16_against_float32"]
        print(f"    lamina in bfloat16 against transformers in float32: {row['ratio']:.2f}x; of lamina's own tags in float32 {row['same_tags']:.4f} stay")
        row = f["step"]
        print(f"one step of fine-tuning, LoRA of rank 16 on q and v and the classifier, {TRAINED_BATCH} sentences of {row['tokens_a_step']:.0f} tokens in all, float32: "
              f"{row['reference_seconds']:.2f} s against {row['lamina_seconds']:.2f} s of the processor: {row['ratio']:.2f}x  (must: 1.0x)\n"
              f"    peak memory {row['lamina_peak_mb']:.0f} MB against {row['reference_peak_mb']:.0f} MB", flush=True)
    if "laptop" in which:
        f = figures["laptop"] = bench_laptop(args)
        print(f"{f['what']}, of the time of one full pass each: kept streams {f['ratio']['wall']['kept streams']:.2f}, eight candidates in a batch "
              f"{f['ratio']['wall']['eight rows']:.2f}  (must: 0.6); of the processor's time {f['ratio']['processor']['kept streams']:.2f} and "
              f"{f['ratio']['processor']['eight rows']:.2f}", flush=True)
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
        if args.json.exists():
            figures = json.loads(args.json.read_text()) | figures
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
