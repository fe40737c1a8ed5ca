#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bench/figures.py BENCH_JSON FOLDER: the last results for readers: figures.json, without single runs; pictures."""
import json
import pathlib
import sys

from plot import draw


def summed_up(result):
    if isinstance(result, dict):
        return {key: summed_up(value) for key, value in result.items() if key != "runs"}
    return [summed_up(value) for value in result] if isinstance(result, list) else result


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[0])
    path, folder = map(pathlib.Path, sys.argv[1:])
    text = json.dumps(summed_up(json.loads(path.read_text(encoding="utf-8"))), indent=1)
    (folder / "figures.json").write_text(text + "\n", encoding="utf-8")
    draw(path, folder / "pictures")
