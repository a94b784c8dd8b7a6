#!/usr/bin/env python3
"""kiln-nf's firewall held against tshark: for every frame of the example's capture, what passes,
what is dropped, and by which rule or for which reason, must be what equivalent display filters
say about the same file. Then the same program as a stranger meets it: wrong files, wrong
arguments, cut captures, signals.

Usage: packet.py BUILD_DIR"""
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "examples/firewall"))
import compare  # the filters, and both sides' verdicts

NF = os.path.abspath(os.path.join(sys.argv[1] if len(sys.argv) > 1 else "build", "kiln-nf"))
EXAMPLE, CAPTURE = compare.CONFIG, compare.CAPTURE


def read_pcap(path):
    """[(time in nanoseconds, bytes)] of a little-endian pcap, micro- or nanoseconds."""
    data = pathlib.Path(path).read_bytes()
    magic, = struct.unpack_from("<I", data)
    scale = {0xa1b2c3d4: 1000, 0xa1b23c4d: 1}[magic]
    frames, at = [], 24
    while at < len(data):
        sec, frac, caplen, _ = struct.unpack_from("<IIII", data, at)
        frames.append((sec * 10**9 + frac * scale, data[at + 16:at + 16 + caplen]))
        at += 16 + caplen
    return frames


def write_pcap(path, frames):
    with open(path, "wb") as f:
        f.write(struct.pack("<IHHiIII", 0xa1b23c4d, 2, 4, 0, 0, 262144, 1))
        for ns, data in frames:
            f.write(struct.pack("<IIII", ns // 10**9, ns % 10**9, len(data), len(data)) + data)


def nf(*args, expect=0, **kwargs):
    r = subprocess.run([NF, *args], capture_output=True, text=True, timeout=60, **kwargs)
    assert r.returncode == expect, f"{args}: exit {r.returncode}, not {expect}: {r.stderr}"
    return r


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="kiln-packet.")
        self.addCleanup(shutil.rmtree, self.dir)

    def path(self, name, text=None):
        path = os.path.join(self.dir, name)
        if text is not None:
            with open(path, "w") as f:
                f.write(text)
        return path

    def run_example(self, *args, config=EXAMPLE):
        """(report, {frame number: (verdict, rule)}) of a run."""
        return compare.kiln_fates(NF, *args, config=config)


class AgainstTshark(Case):
    maxDiff = None

    def test_every_frame_has_the_fate_that_display_filters_say(self):
        _, fates = self.run_example()
        self.assertEqual(fates, compare.tshark_fates())

    def test_counts_agree(self):
        report, _ = self.run_example()
        want = list(compare.tshark_fates().values())
        self.assertEqual(report["received"]["frames"], len(want))
        self.assertEqual(report["sent"]["frames"], sum(v == "sent" for v, _ in want))
        reasons = {}
        for verdict, _ in want:
            if verdict != "sent":
                reasons[verdict] = reasons.get(verdict, 0) + 1
        self.assertEqual(report["dropped"]["by_reason"], reasons)
        self.assertEqual(report["dropped"]["frames"], sum(reasons.values()))
        acl = next(s for s in report["stages"] if s["stage"] == "acl")
        self.assertEqual([r["name"] for r in acl["rules"]], [*compare.RULES, "default"])
        for rule in acl["rules"]:
            name = "-" if rule["name"] == "default" else rule["name"]
            self.assertEqual(rule["frames"], sum(r == name and v not in compare.FAULTS for v, r in want),
                             rule["name"])
        tagged = next(s for s in report["stages"] if s["stage"] == "count")
        self.assertEqual(tagged["frames"], len(compare.tshark(CAPTURE, "vlan and not vlan.id#3")))

    def test_the_capture_has_something_for_every_rule_and_fault(self):
        fates = compare.tshark_fates().values()
        for rule in compare.RULES:
            self.assertTrue(any(r == rule for _, r in fates), rule)
        for reason in compare.FAULTS:
            self.assertTrue(any(v == reason for v, _ in fates), reason)

    def test_what_passes_passes_byte_for_byte(self):
        passed = self.path("passed.pcap")
        self.run_example("--port", f"out=pcap:{passed}")
        want = compare.tshark_fates()
        frames = read_pcap(CAPTURE)
        self.assertEqual(read_pcap(passed),
                         [f for n, f in enumerate(frames, 1) if want[n][0] == "sent"])

    def test_the_comparison_of_the_demo_finds_no_difference(self):
        out = subprocess.run([ROOT / "examples/firewall/compare.py", NF], capture_output=True,
                             text=True, timeout=120)
        self.assertEqual(out.returncode, 0, out.stdout)
        self.assertIn("0 frames on which they differ", out.stdout)

    def test_pcapng_gives_the_same(self):
        other = self.path("traffic.pcapng")
        subprocess.run(["tshark", "-n", "-r", CAPTURE, "-F", "pcapng", "-w", other], check=True,
                       capture_output=True, timeout=60)
        _, fates = self.run_example()
        _, again = self.run_example("-p", f"in=pcap:{other}")
        self.assertEqual(again, fates)

    def test_rewritten_headers_have_right_checksums(self):
        config = self.path("ttl.yaml", f"ports:\n  in: pcap:{CAPTURE}\n  out: pcap:out.pcap\n"
                           "chain:\n  - receive: in\n  - parse: { verify_checksum: true }\n"
                           "  - map: ttl\n  - map: mac_swap\n  - send: out\n")
        report, fates = self.run_example(config=config)
        out = self.path("out.pcap")
        sent = [f for n, f in enumerate(read_pcap(CAPTURE), 1) if fates[n][0] == "sent"]
        self.assertEqual(len(read_pcap(out)), len(sent))
        self.assertGreater(len(compare.tshark(out, "ip.checksum.status == 1", "-o",
                                      "ip.check_checksum:TRUE")), 50)
        self.assertEqual(compare.tshark(out, "ip.checksum.status == 0 and not icmp", "-o",
                                "ip.check_checksum:TRUE"), set())
        ttl_before = report["dropped"]["by_reason"].get("ttl_expired", 0)
        self.assertEqual(ttl_before, len([n for n in compare.tshark(
            CAPTURE, "(ip.ttl#1 <= 1 or ipv6.hlim#1 <= 1)") if fates[n][0] == "ttl_expired"]))
        for (_, before), (_, after) in zip(sent, read_pcap(out)):
            self.assertEqual((after[:6], after[6:12]), (before[6:12], before[:6]))
            at = 12
            while before[at:at + 2] == b"\x81\x00":
                at += 4
            ip, kind = at + 2, before[at:at + 2]
            changed = {b"\x08\x00": (8, 10, 11), b"\x86\xdd": (7,)}.get(kind, ())
            for i in range(12, len(before)):
                if i - ip == changed[:1] or (changed and i == ip + changed[0]):
                    self.assertEqual(after[i], before[i] - 1)
                elif not (changed and i - ip in changed):
                    self.assertEqual(after[i], before[i])


class BadInput(Case):
    def test_a_cut_capture_shows_what_was_counted_then_fails(self):
        data = pathlib.Path(CAPTURE).read_bytes()
        cut = self.path("cut.pcap")
        with open(cut, "wb") as f:
            f.write(data[:len(data) - 7])
        r = nf("run", "--json", "-p", f"in=pcap:{cut}", EXAMPLE, expect=1)
        total = len(read_pcap(CAPTURE))
        self.assertEqual(json.loads(r.stdout)["received"]["frames"], total - 1)
        self.assertIn(f"cut or damaged after frame {total - 1}", r.stderr)

    def test_random_damage_never_crashes_and_every_frame_is_counted(self):
        seed = random.randrange(2**32)
        rng = random.Random(seed)
        frames = read_pcap(CAPTURE)
        for _ in range(30):
            damaged = []
            for ns, data in frames:
                data = bytearray(data)
                for _ in range(rng.randrange(4)):
                    data[rng.randrange(12, len(data))] = rng.randrange(256)
                damaged.append((ns, bytes(data[:rng.randrange(len(data) + 1)]
                                          if rng.random() < 0.3 else data)))
            path = self.path("damaged.pcap")
            write_pcap(path, damaged)
            report, fates = self.run_example("-p", f"in=pcap:{path}")
            with self.subTest(seed=seed):
                self.assertEqual(report["received"]["frames"], len(frames))
                self.assertEqual(report["sent"]["frames"] + report["dropped"]["frames"],
                                 len(frames))
                self.assertEqual(sum(report["dropped"]["by_reason"].values()),
                                 report["dropped"]["frames"])
                self.assertEqual(len(fates), len(frames))

    def test_files_that_are_not_what_they_should_be(self):
        for name, text, says in [
                ("missing.pcap", None, "No such file"),
                ("text.pcap", "this is no capture, just some text\n", "no capture file"),
                ("empty.pcap", "", "no capture file")]:
            path = self.path(name, text)
            r = nf("run", "-p", f"in=pcap:{path}", EXAMPLE, expect=1)
            self.assertIn(says, r.stderr)
            self.assertIn(name, r.stderr)
        r = nf("run", "-p", f"out=pcap:{self.dir}/no/such/folder.pcap", EXAMPLE, expect=1)
        self.assertIn("No such file", r.stderr)
        r = nf("run", "-p", "out=pcap:/dev/full", EXAMPLE, expect=1)
        self.assertIn("No space left", r.stderr)

    def test_wrong_configurations_name_the_line(self):
        good = pathlib.Path(EXAMPLE).read_text()
        for find, replace, line_of, says in [
                ("proto: icmpv6, icmp_type", "proto: icmpv6, icmp_typ", "neighbours",
                 "did you mean 'icmp_type'"),
                ("default: drop", "default: reject", "default:", "pass, drop"),
                ("10.20.0.66", "10.20.0.666", "name: stolen-sensor,", "no address or prefix"),
                ("  - parse\n", "", "tagged", "needs 'parse' before it"),
                ("send: out", "send: outside", "send:", "no port 'outside'")]:
            text = good.replace(find, replace, 1)
            self.assertNotEqual(text, good)
            path = self.path("wrong.yaml", text)
            line = next(n for n, l in enumerate(text.splitlines(), 1)
                        if line_of in l and not l.lstrip().startswith("#"))
            for verb in ("check", "run"):
                r = nf(verb, path, expect=1)
                self.assertIn(f"{path}:{line}: ", r.stderr)
                self.assertIn(says, r.stderr)
                self.assertEqual(r.stdout, "")

    def test_a_wrong_configuration_empties_no_file(self):
        kept = self.path("kept.pcap", "precious")
        path = self.path("wrong.yaml", pathlib.Path(EXAMPLE).read_text() + "  - send: out\n")
        nf("run", "-p", f"in=pcap:{CAPTURE}", "-p", f"out=pcap:{kept}", path, expect=1)
        self.assertEqual(pathlib.Path(kept).read_text(), "precious")

    def test_wrong_arguments(self):
        for args in [["run"], ["run", "a", "b"], ["run", "--jsn", EXAMPLE], ["check"], ["bnch"],
                     ["run", "-p", "in", EXAMPLE], ["bench", "--turns", "0"],
                     ["bench", "--engine", "mmx"], []]:
            self.assertNotEqual(nf(*args, expect=2).stderr, "", args)

    def test_help_teaches(self):
        for args in [["--help"], ["run", "--help"], ["check", "--help"], ["bench", "--help"]]:
            self.assertIn("xample" if len(args) > 1 else "COMMAND", nf(*args).stdout)


class Ordinary(Case):
    def test_check_accepts_the_example(self):
        self.assertIn("5 stages, 8 rules", nf("check", EXAMPLE).stdout)

    def test_the_table_adds_up(self):
        out = nf("run", EXAMPLE).stdout
        total = {}
        for line in out.splitlines():
            words = line.split()
            if words and words[0] in ("received", "sent", "dropped"):
                total[words[0]] = int(words[1])
        self.assertEqual(total["received"], total["sent"] + total["dropped"])
        self.assertIn("pass  mqtt", out)

    def test_standard_input_and_a_signal(self):
        # A capture that does not end: the run waits for more until it is told to stop.
        for number in (signal.SIGINT, signal.SIGTERM):
            p = subprocess.Popen([NF, "run", "--json", "-p", "in=pcap:-", EXAMPLE],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE)
            p.stdin.write(pathlib.Path(CAPTURE).read_bytes())
            p.stdin.flush()
            time.sleep(0.3)
            self.assertIsNone(p.poll())
            p.send_signal(number)
            out, err = p.communicate(timeout=10)
            self.assertEqual(p.returncode, 0, err)
            report = json.loads(out)
            self.assertGreater(report["received"]["frames"], 100)
            self.assertEqual(report["received"]["frames"],
                             report["sent"]["frames"] + report["dropped"]["frames"])

    def test_standard_output_takes_the_frames(self):
        verdicts = subprocess.run([NF, "run", "-p", "out=pcap:/dev/stderr", EXAMPLE],
                                  capture_output=True, timeout=30)
        self.assertEqual(verdicts.returncode, 0)
        self.assertEqual(verdicts.stderr[:4], b"\x4d\x3c\xb2\xa1")

    @unittest.skipUnless(os.getuid() == 0, "not root")
    def test_it_works_without_root(self):
        def nobody():
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        # The checkout may lie where nobody cannot look: hand the files over.
        os.chmod(self.dir, 0o755)
        program, config = self.path("kiln-nf"), self.path("firewall.yaml")
        shutil.copy(NF, program)
        shutil.copy(EXAMPLE, config)
        shutil.copy(CAPTURE, self.path("traffic.pcap"))
        r = subprocess.run([program, "run", "--json", config], capture_output=True, text=True,
                           preexec_fn=nobody, timeout=30)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertEqual(json.loads(r.stdout)["received"]["frames"], len(read_pcap(CAPTURE)))

    def test_bench_measures_and_checks(self):
        report = json.loads(nf("bench", "--json", "--turns", "2").stdout)
        self.assertEqual([r["order"] for r in report["results"]], ["anew", "same"])
        for r in report["results"]:
            self.assertGreater(r["chain_ns"]["p50"], 0)
            self.assertGreater(r["ratio_cpu"]["p50"], 0)


if __name__ == "__main__":
    if not shutil.which("tshark"):
        print("tshark is missing: nothing to hold the firewall against")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1], verbosity=2)
