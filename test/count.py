#!/usr/bin/env python3
"""Print "passed failed skipped" of a JUnit file that meson wrote.

usage: count.py FILE EXIT-CODE-OF-MESON

A run that failed without a failed case in its file (it crashed, or ran nothing at all) counts as
one failure, so that nothing can fail silently.
"""
import sys
import xml.etree.ElementTree as xml


def main():
    path, code = sys.argv[1], int(sys.argv[2])
    passed = failed = skipped = 0
    for case in xml.parse(path).iter("testcase"):
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
