#!/usr/bin/env python3
"""The ways down in tests/golden/schedules.json, which lamina's solvers are held against, are those of the diffusers installed here."""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-8


def near(a, b):
    return abs(a - b) <= TOLERANCE * max(1, abs(b))


def main():
    try:
        import diffusers  # noqa: F401
    except ImportError:
        print("skipped: the Python package diffusers is missing; `make parity` installs what parity is measured against")
        sys.exit(77)
    golden = json.loads((ROOT / "tests/golden/schedules.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "schedules.json"
        subprocess.run([sys.executable, ROOT / "tests/golden/schedules.py", file], check=True, capture_output=True)
        again = json.loads(file.read_text())
    assert len(golden) == len(again), (len(golden), len(again))
    for kept, made in zip(golden, again):
        where = f"{made['config']} with {made['steps']} steps"
        assert (kept["config"], kept["steps"]) == (made["config"], made["steps"]), where
        assert len(kept["times"]) == len(made["times"]) and all(map(near, kept["times"], made["times"])), where
        assert near(kept["first_scale"], made["first_scale"]), where
        for x, y in zip(kept["trail"], made["trail"], strict=True):
            assert all(map(near, x, y)), where
    print(f"scheduler_parity: {len(golden)} ways as diffusers goes them")


if __name__ == "__main__":
    main()
