#!/usr/bin/env python3
"""Writes `dpu/*.toml` for targets that are described, not executed, from a JSON list of the vendor's target descriptions.

    python3 targets/describe.py LIST.json

LIST.json has `targets`: name, type, isa_version, fingerprint, batch, parallelism, bank_groups, engines, status.
The files are the source of truth afterwards: executed targets (those without `missing`) are never written here.
"""

import json
import sys
from pathlib import Path

PARTLY = "of its instructions only LOAD and SAVE have public fields"
LISTED = "its instructions are listed, and what they compute is not known"
HIDDEN = "its instruction set is not public"
# What is missing before a target could be compiled for and simulated: by family, or by family and ISA version.
MISSING = {
    ("DPUCZDX8G", 0): PARTLY,
    ("DPUCVDX8G", 0): HIDDEN,
    ("DPUCVDX8G", 1): PARTLY,
    ("DPUCVDX8G", 2): PARTLY,
    ("DPUCVDX8G", 3): LISTED + ": convolutions run in tiles on an array of AI engines",
    "DPUCV2DX8G": LISTED + ": feature maps lie in the memory tiles of an array of AI engines",
    "DPUCAHX8H": PARTLY,
    "DPUCAHX8L": PARTLY,
    ("DPUCVDX8H", 0): HIDDEN,
    ("DPUCVDX8H", 1): PARTLY,
    "DPUCADF8H": HIDDEN,
    "DPUCZDI4G": HIDDEN + ", and it computes with 4 bits",
    "IPU_PHX": "it runs overlays of AI engines, whose programs have no public form",
    "IPUCVDX8G": "it runs overlays of AI engines, whose programs have no public form",
}


def value(v):
    """A TOML value on one line."""
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, (int, float)):
        return repr(v)
    if isinstance(v, str):
        return json.dumps(v)
    if isinstance(v, list):
        return "[" + ", ".join(value(x) for x in v) + "]"
    if isinstance(v, dict):
        return "{ " + ", ".join(f"{k} = {value(x)}" for k, x in v.items()) + " }" if v else "{}"
    raise TypeError(v)


def grouped(hexadecimal):
    digits = f"{int(hexadecimal, 16):016X}"
    return "0x" + "_".join(digits[i : i + 4] for i in range(0, 16, 4))


def text(t):
    family, version = t["type"], t["isa_version"]
    missing = MISSING.get((family, version)) or MISSING[family]
    lines = [
        f"# {t['name']}: facts from the vendor's public target description (DOC).",
        f"name = {value(t['name'])}",
        f"family = {value(family)}",
        f"isa_version = {version}",
        f"missing = {value(missing)}",
        f"expired = {value(t['status'].startswith('expired'))}",
        f"batch = {t['batch']}",
    ]
    if t.get("fingerprint"):
        lines.append(f"fingerprint = {grouped(t['fingerprint'])}")
    p = t["parallelism"]
    lines += ["", "[parallelism]"]
    lines += [f"{k} = {p[k]}" for k in ("pixel", "input_channel", "output_channel") if k in p]
    lines.append(f"peak_ops_per_cycle = {p['peak_ops_per_cycle_per_batch']}")
    for b in t["bank_groups"]:
        lines += [
            "",
            "[[banks]]",
            f"name = {value(b['name'])}",
            f"kind = {value(b['type'].lower())}",
            f"first = {b['base_id']}",
            f"count = {b['bank_num']}",
            f"depth = {b['bank_depth']}",
            f"width = {b['bank_width_bytes']}",
        ]
        if b["word_width_bits"] != 8:
            lines.append(f"word_bits = {b['word_width_bits']}")
    plain = {k: v for k, v in t["engines"].items() if not isinstance(v, dict)}
    if plain:
        lines += ["", "[engines]"] + [f"{k} = {value(v)}" for k, v in plain.items()]
    for name, engine in t["engines"].items():
        if name in plain:
            continue
        lines += ["", f"[engines.{name}]"]
        lines += [f"{k} = {value(v)}" for k, v in engine.items()]
    return "\n".join(lines) + "\n"


def main():
    folder = Path(__file__).parent / "dpu"
    written = 0
    for t in json.loads(Path(sys.argv[1]).read_text())["targets"]:
        if (t["type"], t["isa_version"]) == ("DPUCZDX8G", 1):
            continue
        (folder / f"{t['name']}.toml").write_text(text(t))
        written += 1
    print(f"{written} files in {folder}")


if __name__ == "__main__":
    main()
