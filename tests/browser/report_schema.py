#!/usr/bin/env python3
"""Validates the example reports against report.schema.json.

report_schema.py WRITE_EXAMPLES SCHEMA: exit status 77 (skipped) where the package jsonschema is not installed.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import jsonschema
except ImportError:
    print("skipped: the Python package jsonschema is not installed")
    sys.exit(77)

writer, schema_path = sys.argv[1:]
schema = json.loads(pathlib.Path(schema_path).read_text())
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
failed = False
with tempfile.TemporaryDirectory() as folder:
    subprocess.run([writer, folder], check=True)
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        report = json.loads(path.read_text(), parse_constant=lambda name: sys.exit(f"{path.name}: holds {name}, which is not JSON"))
        for error in validator.iter_errors(report):
            failed = True
            print(f"{path.name}: {error.json_path}: {error.message}")
        # The schema must also say no.
        report["sections"].append({"title": 1})
        if validator.is_valid(report):
            failed = True
            print(f"{path.name}: the schema accepts a section without elements")
sys.exit(failed)
