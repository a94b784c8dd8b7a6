#!/usr/bin/env python3
"""A node that is left under load for long: everything that came goes again. Census of processes,
mounts, interfaces, cgroups and files before and after, and of the daemon's descriptors and memory
once it has warmed up and at the end. Instances are killed meanwhile, as they would be by a host that
is out of memory.

Usage: soak.py BUILD_DIR [--seconds S]"""
import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time

from load import ABSENT, Load
from node import Gone, Node, alone, bare_image, census, processes_of, wait_until

WARM_UP_S = 15
GROWTH_KIB = 8 * 1024   # a leak of 1 KiB a second would show within two hours


def say(text):
    print(f"soak: {text}", file=sys.stderr, flush=True)


def files_below(folder):
    """Names with their sizes left out: databases and logs may grow within themselves."""
    return sorted(os.path.relpath(os.path.join(d, name), folder)
                  for d, _, names in os.walk(folder) for name in names)


def weight(node):
    pid = node.process.pid
    return {"descriptors": len(os.listdir(f"/proc/{pid}/fd")), "pss_kib": node.pss_kib()}


def remove_all(node, load):
    for name in load.functions:
        node.ask("DELETE", "/system/functions", {"functionName": name})
    for name in load.images:
        node.ask("DELETE", f"/kiln/v1/images?name={name}")
    for book in [*load.functions.values(), *load.images.values()]:
        book.acknowledged(ABSENT)


def at_rest(node):
    """No instance, no run folder: what was removed has drained."""
    return not os.listdir(os.path.join(node.state, "run"))


def rest(node, load):
    remove_all(node, load)
    assert wait_until(lambda: at_rest(node), 60), "instances are left after everything was removed"
    return files_below(node.state)


def kill_one(node):
    monitors = [pid for pid, exe in processes_of(os.path.dirname(node.program)).items()
                if exe.endswith("/kiln-vmm")]
    if monitors:
        try:
            os.kill(random.choice(monitors), signal.SIGKILL)
        except ProcessLookupError:
            pass


def run_load(node, load, seconds):
    until = time.monotonic() + seconds
    load.start()
    told = time.monotonic()
    while time.monotonic() < until and not load.faults and node.process.poll() is None:
        time.sleep(0.25)
        if random.random() < 0.2:
            kill_one(node)
        if time.monotonic() - told > 60:
            told = time.monotonic()
            say(f"{until - told:.0f} s to go; {weight(node)}; {dict(sorted(load.counts.items()))}")
    load.stop()
    assert node.process.poll() is None, f"kilnd died: {node.log()[-2000:]}"
    assert not load.faults, load.faults


def soak(build, folder, seconds):
    node = Node(build, folder)
    before = census(build, node.cgroup)
    node.start()
    load = Load(node, random.random())
    guest = os.path.join(build, "test", "host", "bare-guest")
    load.archive = bare_image(guest, "image:1")
    node.import_bare(guest, "guest:1")
    run_load(node, load, min(WARM_UP_S, seconds / 4))
    files, first = rest(node, load), weight(node)
    run_load(node, load, seconds)
    assert rest(node, load) == files, (files, files_below(node.state))
    last = weight(node)
    say(f"after warm-up {first}, at the end {last}, {dict(sorted(load.counts.items()))}")
    assert last["descriptors"] <= first["descriptors"] + 4, (first, last)
    assert last["pss_kib"] <= first["pss_kib"] + GROWTH_KIB, (first, last)
    assert node.stop() == 0, node.log()[-2000:]
    assert wait_until(lambda: census(build, node.cgroup) == before), (before,
                                                                     census(build, node.cgroup))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build")
    p.add_argument("--seconds", type=float, default=600)
    options = p.parse_args()
    alone()
    folder = tempfile.mkdtemp(prefix="kn-sk", dir="/tmp")
    os.chmod(folder, 0o711)
    try:
        soak(os.path.abspath(options.build), folder, options.seconds)
    finally:
        shutil.rmtree(folder)
    say("the same census as at the beginning")


if __name__ == "__main__":
    main()
