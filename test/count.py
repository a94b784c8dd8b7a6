#!/usr/bin/env python3
"""Print "passed failed skipped" of a test run, and on standard error what failed and why.

usage: count.py FOLDER EXIT-CODE-OF-MESON     FOLDER is the meson-logs of a build

A run that failed without a failed case in its files (it crashed, or ran nothing at all) counts as
one failure, so that nothing can fail silently.
"""
import json
import pathlib
import sys
import xml.etree.ElementTree as xml


def show_failures(folder):
    """meson shows standard error alone; what a TAP test says about its failures is in its output."""
    for line in (folder / "testlog.json").read_text().splitlines():
        test = json.loads(line)
        if test["result"] in ("OK", "SKIP"):
            continue
        print(f"-- {test['name']}: {test['result']}", file=sys.stderr)
        for said in test.get("stdout", "").splitlines()[-200:]:
            if not said.startswith("ok "):
                print(f"   {said}", file=sys.stderr)


def main():
    folder, code = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    if code != 0:
        show_failures(folder)
    passed = failed = skipped = 0
    for case in xml.parse(folder / "testlog.junit.xml").iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            failed += 1
        elif "skipped" in kinds:
            skipped += 1
        else:
            passed += 1
    if code != 0 and failed == 0:
        failed = 1
    print(passed, failed, skipped)


if __name__ == "__main__":
    try:
        main()
    except (OSError, xml.ParseError) as why:
        print(f"count.py: {why}", file=sys.stderr)
        sys.exit(1)
