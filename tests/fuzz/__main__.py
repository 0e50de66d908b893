"""Run cases of the fuzz, report what was refused and why, and end with 1 if any was wrong: `make fuzz`."""

import argparse
import sys
import time
import warnings
from collections import Counter

import torch
import transformers
from fuzz_outcomes import Outcome, outcome_of

EVERY = 100  # cases between two lines of progress


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=500, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="number of the first")
    given = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    kinds: Counter[str] = Counter()
    sorts: dict[tuple[str, str], list[int]] = {}
    wrong, begun = [], time.monotonic()
    for number, seed in enumerate(range(given.seed, given.seed + given.cases), 1):
        found = outcome_of(seed)
        kinds[found.kind] += 1
        if found.kind == "wrong":
            wrong.append(seed)
        if found.kind == "wrong" or given.cases == 1:
            show(found)
        elif found.kind != "right":
            sorts.setdefault((found.kind, found.sort), []).append(seed)
        if number % EVERY == 0 or number == given.cases:
            print(f"{number} cases, {time.monotonic() - begun:.0f} s: {dict(kinds)}", flush=True)
    for (kind, sort), seeds in sorted(sorts.items(), key=lambda item: -len(item[1])):
        print(f"{len(seeds):5} {kind}, as case {seeds[0]}: {sort}")
    if wrong:
        print(f"wrong: {wrong}; one of them again: make fuzz CASES=1 SEED={wrong[0]}")
    return 1 if wrong else 0


def show(found: Outcome) -> None:
    print(f"case {found.case.seed} is {found.kind}: {found.message}\n{found.case}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
