"""redis-benchmark, and valkey-benchmark where installed: every test of the default list that the server has.

Usage: benchmark.py PORT
"""

import csv
import shutil
import subprocess
import sys

from checks import Raw, supported

TESTS = {"ping": ["PING"], "set": ["SET"], "get": ["GET"], "incr": ["INCR"], "mset": ["MSET"]}

port = int(sys.argv[1])
has = supported(port)
tests = [name for name, commands in TESTS.items() if has.issuperset(commands)]
for program in filter(shutil.which, ["redis-benchmark", "valkey-benchmark"]):
    for pipeline in ["1", "16"]:
        command = [program, "-p", str(port), "--csv", "-n", "20000", "-P", pipeline, "-r", "1000", "-t", ",".join(tests)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert result.returncode == 0, result
        rows = {row["test"]: float(row["rps"]) for row in csv.DictReader(result.stdout.splitlines())}
        assert len(rows) == len(tests) + 1 and all(rows.values()), result
        print(f"{program} -P {pipeline}:", ", ".join(f"{name} {rps:.0f}" for name, rps in rows.items()))
raw = Raw(port)
raw("DEL", *(f"key:{number:012}" for number in range(1000)), "counter:__rand_int__")
