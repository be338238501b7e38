#!/usr/bin/env python3
"""gloo is spoken to through libtorch alone: no object of ours refers to a symbol of gloo, and no program links its library.

Usage: symbols_test.py LIBRARY OBJECT...
"""
import re
import shutil
import subprocess
import sys

library, objects = sys.argv[1], sys.argv[2:]
if not shutil.which("nm") or not shutil.which("readelf"):
    print("skipped: nm and readelf (binutils) are needed")
    sys.exit(77)


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


bad, backend = [], 0
for name in objects + [library]:
    wanted = output("nm", *(["--dynamic"] if name == library else []), "--undefined-only", "--demangle", name).splitlines()
    backend += sum("c10d::ProcessGroupGloo::ProcessGroupGloo(" in line for line in wanted)
    bad += [f"{name}: {line.strip()}" for line in wanted if re.match(r"\s*[Uwv] ((vtable|VTT|typeinfo|typeinfo name|guard variable) for )?gloo::", line)]
needed = [line for line in output("readelf", "--dynamic", library).splitlines() if "NEEDED" in line]
bad += [f"{library}: {line.strip()}" for line in needed if "gloo" in line]
if backend < 2 or not needed:
    bad.append("the backend was found in none of the objects, or nothing is linked: this check looks at the wrong files")
print("\n".join(bad) or f"ok: {len(objects)} objects and the library refer to no symbol of gloo")
sys.exit(bool(bad))
