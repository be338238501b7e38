"""What the evidence of the small text-to-image model shares: running lamina, keeping what is measured, tables."""
import json
import pathlib
import platform
import re
import statistics
import subprocess

HERE = pathlib.Path(__file__).resolve().parent.parent
SCENES = HERE / "examples/scenes"
PIPELINE = SCENES / "pipeline"
SCORERS = [SCENES / f"scorer-{i}" for i in (1, 2)]
RATES = [1e-4, 3e-4, 1e-3, 3e-3]  # tried for each cut
SCORED = ["--pictures", "scene", "--batch", 16, "--samples", 256, "--heldout", 48]


def processor():
    for line in open("/proc/cpuinfo", encoding="utf-8"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def header(first, *rest):
    return [row(first, *rest), row("---", *["---:"] * len(rest))]


def spread(values, digits=4):
    """Mean (least-most)."""
    text = f"{statistics.mean(values):.{digits}g}"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits}g}-{max(values):.{digits}g})"


def both(scorers, digits=1):
    """Share of pictures that are all right, by both scorers."""
    return " / ".join(f"{100 * scorer['all'][0]:.{digits}f}" for scorer in scorers)


def with_interval(scorers):
    """The mean of both scorers, and the first one's 95 % interval."""
    return f"{both(scorers)} ({100 * scorers[0]['all'][1]:.1f}-{100 * scorers[0]['all'][2]:.1f})"


def rank_correlation(a, b):
    """Spearman's; of ties the mean rank."""
    def ranks(values):
        return [statistics.mean(i for i, other in enumerate(sorted(values)) if other == value) for value in values]
    return statistics.correlation(ranks(a), ranks(b))


def figures(report):
    return {f["name"]: {"before": f["before"], "after": f["after"]} for f in report["verdict"]["figures"]}


class Evidence:
    """results.json of a folder: what is in it is not measured again."""

    def __init__(self, folder, options):
        self.options = options
        self.work = pathlib.Path(options.work).resolve()
        self.work.mkdir(parents=True, exist_ok=True)
        self.path = folder / "results.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.results = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.results.setdefault("hardware", f"{processor()}, one thread")

    def run(self, *arguments):
        """What `lamina ...` prints."""
        line = [str(pathlib.Path(self.options.lamina).resolve()), *map(str, arguments)]
        print("$ lamina " + " ".join(line[1:]), flush=True)
        return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True, cwd=HERE).stdout

    def once(self, group, name, make):
        kept = self.results.setdefault(group, {})
        if name not in kept:
            kept[name] = make()
            self.path.write_text(json.dumps(self.results, indent=1) + "\n")
        return kept[name]

    def folder(self, name):
        return self.work / re.sub(r"[^a-z0-9.-]+", "-", name.replace("%", "percent"))

    def prune(self, name, *flags):
        """A pipeline that is cut so; its figures and its plan are kept, the folder is made again where it is gone."""
        folder = self.folder(name)
        if not (folder / "report.json").exists():
            self.run("prune", PIPELINE, "-o", folder, "--force", "-q", *SCORED, *flags)
        return self.once("cuts", name, lambda: {
            "figures": figures(json.loads((folder / "report.json").read_text())),
            "edits": json.loads((folder / "plan.json").read_text())["edits"]})

    def repair(self, folder, target):
        """What `lamina repair` says of a cut pipeline against the whole one."""
        return self.run("repair", folder, PIPELINE, "-o", target, "--force", "-q", *SCORED)

    def scenes(self, folder, *flags, count=None, whole=False):
        """Shares of captions that are drawn right, by both scorers, with 0.95 intervals; or all that `lamina scenes` says."""
        scorers = [flag for scorer in SCORERS for flag in ("--scorer", scorer)]
        found = json.loads(self.run("scenes", folder, *scorers, "-n", count or self.options.captions, "--json", *flags))
        shares = [{name: [rate["share"], *rate["interval"]] for name, rate in scorer["drawn"].items() if isinstance(rate, dict)}
                  for scorer in found["scorers"].values()]
        return (shares, found) if whole else shares

    def against(self, folder, other, *flags, count=None):
        """By how much more often the first draws captions right, by both scorers, with 0.95 intervals: paired, caption by caption,
        from the same noise. Of another pipeline also how far the pictures are apart."""
        scorers = [flag for scorer in SCORERS for flag in ("--scorer", scorer)]
        found = json.loads(self.run("scenes", folder, *scorers, "-n", count or self.options.captions, "--json", "--against", other, *flags))["against"]
        return [[scorer["difference"], *scorer["interval"]] for scorer in found["scorers"].values()], found

    def learn(self, folder, student, *flags):
        """The report of `lamina heal`."""
        again = ["--resume"] if folder.with_name(folder.name + ".partial").exists() else ["--force"]
        return json.loads(self.run("heal", student, "-o", folder, *again, "-q", "--json", "--pictures", "scenes", "--teacher", PIPELINE,
                                   "--batch", 16, "--warmup", 20, "--schedule", "cosine", "--weights", "float32", *flags))

    def rate(self, cut):
        """The learning rate that brought this cut nearest to the teacher within 100 steps, on scenes of its own."""
        tried = self.once("rates", cut, lambda: {str(rate): figures(self.learn(
            self.folder(f"{cut} rate {rate}"), self.folder(cut), "--steps", 100, "--lr", rate, "--seed", 99, "--scene-seed", 99, "--held-out", 128,
        ))["Distance to the teacher"]["after"] for rate in RATES})
        return min(tried, key=tried.get)

    def heal(self, name, cut, seed, *flags):
        """A pipeline that learnt for options.steps steps; of the first seed, what it draws."""
        folder = self.folder(f"{name} {seed}")

        def make():
            rate = self.rate(cut)
            made = {"rate": rate, "figures": figures(self.learn(
                folder, self.folder(cut), "--steps", self.options.steps, "--lr", rate, "--seed", seed, "--scene-seed", 1000 + seed, "--held-out", 256, *flags))}
            return made if seed else made | {"pictures": self.scenes(folder / "pipeline")}
        return self.once("heal", f"{name} / {seed}", make)

    def rates_text(self):
        rates = self.results.get("rates", {})
        if not rates:
            return []
        lines = ["\nLearning rates, 100 steps on other scenes (seed 99): distance to the teacher; the least is the one that was used.\n", *header("", *map(str, RATES))]
        return lines + [row(cut, *[f"{tried[str(rate)]:.4g}" if str(rate) in tried else "-" for rate in RATES]) for cut, tried in rates.items()]

    def grid(self, name, folder, shown=8):
        """The first pictures of the test captions in one row, beside results.json."""
        target = self.path.parent / (self.folder(name).name + ".png")
        if not target.exists():
            self.run("scenes", folder, "-n", shown, "--shown", shown, "--columns", shown, "--grid", target, "-q")
        return target.name

    def write(self, text, title):
        """The tables, behind the mark of the README."""
        readme, mark = self.path.parent / "README.md", "<!-- tables -->"
        head = readme.read_text().split(mark)[0] if readme.exists() else f"# {title}\n\n"
        readme.write_text(head + mark + "\n" + text)
        print(text)
