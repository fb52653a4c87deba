#!/usr/bin/env python3
# Runs the program "counts", and then counts by callgrind the instructions that a message takes (the
# kernel's apart): the difference of a longer and a shorter run, so that start and end drop out.
# Usage: counts.py path-to-the-program [rounds]
#
# SPDX-License-Identifier: MIT
import re
import shutil
import subprocess
import sys
import tempfile

SHORT, LONG = 1000, 3000
KINDS = {
    "parse": "parse one message",
    "receive-link": "receive a message on a link, hand it over, confirm it",
    "receive-one-shot": "receive a one-shot, hand it over, confirm it",
    "send-link": "send a message on a link and await its confirmation",
}


def instructions(program, kind, count):
    with tempfile.TemporaryDirectory() as directory:
        run = subprocess.run(
            ["valgrind", "--tool=callgrind", "--fair-sched=yes",
             f"--callgrind-out-file={directory}/out.%p", program, kind, str(count)],
            capture_output=True, text=True, timeout=300, check=True)
    # The process that was started reports last; the raw other side is a child of it.
    started = re.search(r"==(\d+)==", run.stderr).group(1)
    return int(re.search(rf"=={started}== Collected : (\d+)", run.stderr).group(1))


def main():
    program = sys.argv[1]
    subprocess.run(sys.argv[1:], check=True)
    print("\ninstructions for a message (callgrind, without the kernel's)")
    if not shutil.which("valgrind"):
        print("  skipped: this needs valgrind")
        return
    for kind, what in KINDS.items():
        short = instructions(program, kind, SHORT)
        long = instructions(program, kind, LONG)
        print(f"  {what:58} {(long - short) / (LONG - SHORT):8.0f}", flush=True)


if __name__ == "__main__":
    main()
