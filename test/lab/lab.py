#!/usr/bin/env python3
"""The lab: tests that want another kernel than this machine's run in a virtual one. QEMU without KVM
boots Debian's cloud kernel as an ordinary host: cgroup version 2 alone, and, with an emulated AMD
processor, a /dev/kvm as hardware gives it. The programs are this build's, with the libraries that
they use; the first process is a busybox script. Output is one TAP stream.

Usage: lab.py BUILD_DIR [NAME...]"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMIT_S = 400

# name: (modules it wants, command). Words that name a file below the build folder, or from the root,
# are copied with what they need; those with + are for the others to start.
TESTS = {
    "host/cgroup": ([], ["test/unit/test-host_cgroup"]),
    "host/bare": (["virt/lib/irqbypass", "arch/x86/kvm/kvm", "arch/x86/kvm/kvm-amd"],
                  ["test/host/bare-test", ".", "test/host/bare-guest", "test/host/denoise.elf",
                   "+kiln-vmm"]),
    "host/container": (["drivers/block/loop", "lib/libcrc32c", "fs/erofs/erofs", "fs/overlayfs/overlay"],
                       ["test/host/test-container", ".", "+kiln-agent", "+test/host/payload",
                        "+test/host/hostile", "+/usr/bin/mkfs.erofs"]),
}

# pivot_root works from no initramfs: the first script moves everything into a root of its own.
INIT = """#!/bin/busybox sh
B=/bin/busybox
if [ "$1" != again ]; then
	$B mkdir /new && $B mount -t tmpfs -o size=700m root /new
	for f in /*; do
		case $f in /new|/dev|/proc|/sys|/root) ;; *) $B cp -a "$f" /new ;; esac
	done
	exec $B switch_root /new /init again   # which empties the initramfs
fi
$B --install -s /bin; $B mkdir -p /proc /sys /dev
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /tmp /run
mount -t devpts pts /dev/pts; mount -t tmpfs shm /dev/shm; mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo "+memory +pids +cpu" >/sys/fs/cgroup/cgroup.subtree_control
ip link set lo up
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/ CMOCKA_MESSAGE_OUTPUT=TAP KN_DECLARED="$(cat /declared)"
echo "lab: up"
cat /tests | while read name modules command; do
	for m in $(echo "$modules" | tr , ' '); do
		[ "$m" = - ] || insmod "/modules/$m.ko" || echo "lab: $m was not loaded"
	done
	echo "lab: begin $name"
	(cd /build && timeout 240 $command 2>&1)
	echo "lab: end $name $?"
done
echo "lab: down"
poweroff -f
"""


def need(path, how):
    if not path or not os.path.exists(path):
        print(f"1..0 # SKIP {how}")
        sys.exit(77)
    return path


def libraries(program):
    """Shared libraries and the loader, as the host's loader finds them."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return set(re.findall(r"(/\S+) \(0x", said))


def kernel_module(folder, name):
    base = os.path.join(folder, "lib/modules", os.listdir(os.path.join(folder, "lib/modules"))[0],
                        "kernel", name + ".ko")
    return need(base, f"the kernel's package has no {name}.ko")


def make_root(build, names, root):
    busybox = need(shutil.which("busybox"), "busybox-static is not installed")
    for d in ("bin", "proc", "sys", "dev", "tmp", "run", "modules", "build", "etc"):
        os.makedirs(os.path.join(root, d))

    def copy(path, to):
        to = root + to
        os.makedirs(os.path.dirname(to), exist_ok=True)
        if not os.path.exists(to):
            shutil.copy2(path, to)

    copy(busybox, "/bin/busybox")
    lines = []
    for name in names:
        modules, command = TESTS[name]
        for m in modules:
            copy(kernel_module(os.path.join(ROOT, ".deps/kernel"), m),
                 f"/modules/{os.path.basename(m)}.ko")
        words = []
        for word in command:
            path = os.path.join(build, word.removeprefix("+"))
            if os.path.isfile(path):
                copy(path, path.replace(build, "/build", 1))
                for lib in libraries(path):
                    copy(lib, lib)
            if not word.startswith("+"):
                words.append("/build/" + word if os.path.exists(path) else word)
        lines.append(f"{name} {','.join(os.path.basename(m) for m in modules) or '-'} "
                     + " ".join(words))
    for path, text, mode in (("init", INIT, 0o755), ("tests", "\n".join(lines) + "\n", 0o644),
                             ("declared", "root kvm namespaces cgroups users\n", 0o644),
                             ("etc/hostname", "lab\n", 0o644),
                             ("etc/passwd", "root:x:0:0::/:/bin/sh\n", 0o644),
                             ("etc/group", "root:x:0:\n", 0o644)):
        with open(os.path.join(root, path), "w") as f:
            f.write(text)
        os.chmod(os.path.join(root, path), mode)


def make_initramfs(root, out):
    files = subprocess.run(["find", "."], cwd=root, capture_output=True, check=True).stdout
    with open(out, "wb") as f:
        subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], cwd=root, input=files,
                       stdout=f, check=True)


def kernel():
    boot = os.path.join(ROOT, ".deps/kernel/boot")
    found = [f for f in os.listdir(boot) if f.startswith("vmlinuz-")] if os.path.isdir(boot) else []
    return need(os.path.join(boot, found[0]) if found else None,
                "the guest kernel is missing: run tools/setup")


def boot(initramfs):
    qemu = need(shutil.which("qemu-system-x86_64"), "qemu-system-x86 is not installed")
    # q35 has an HPET: on a busy host the kernel's clock is right from the start.
    return subprocess.Popen(
        [qemu, "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,+svm", "-smp", "2", "-m", "1G",
         "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
         "-kernel", kernel(), "-initrd", initramfs,
         "-append", "console=ttyS0 quiet panic=-1 tsc=reliable"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")


class Tap:
    """Many TAP streams into one, each case with the name of its test before it."""

    def __init__(self):
        self.n, self.test, self.seen, self.planned = 0, None, 0, None

    def case(self, good, text):
        self.n += 1
        print(f"{'ok' if good else 'not ok'} {self.n} - {text}", flush=True)

    def line(self, line):
        if m := re.fullmatch(r"lab: begin (\S+)", line):
            self.test, self.seen, self.planned = m[1], 0, None
        elif m := re.fullmatch(r"lab: end (\S+) (\d+)", line):
            good = m[2] == "0" and self.seen > 0 and self.planned in (None, self.seen)
            self.case(good, f"{m[1]} ended, status {m[2]}, {self.seen} cases")
            self.test = None
        elif m := re.fullmatch(r"(ok|not ok) \d+ - (.*)", line):
            self.seen += 1
            self.case(m[1] == "ok", f"{self.test} {m[2]}")
        elif m := re.fullmatch(r"1\.\.(\d+)", line):
            self.planned = int(m[1])
        else:
            print("# " + line, flush=True)


def run(vm, names):
    tap, ended = Tap(), []
    limit = threading.Timer(LIMIT_S, vm.kill)
    limit.start()
    for line in vm.stdout:
        line = line.rstrip().replace("\x1b[?7h", "")
        if line.startswith("lab: end "):
            ended.append(line.split()[2])
        tap.line(line)
    vm.wait()
    limit.cancel()
    for name in names:
        if name not in ended:
            tap.case(False, f"{name} did not end")
    print(f"1..{tap.n}")


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build")
    p.add_argument("name", nargs="*", help="only these: " + ", ".join(TESTS))
    args = p.parse_args()
    names = args.name or list(TESTS)
    with tempfile.TemporaryDirectory(prefix="kn-lab-") as folder:
        make_root(os.path.abspath(args.build), names, os.path.join(folder, "root"))
        initramfs = os.path.join(folder, "initramfs")
        make_initramfs(os.path.join(folder, "root"), initramfs)
        shutil.rmtree(os.path.join(folder, "root"))
        vm = boot(initramfs)
        try:
            run(vm, names)
        finally:
            vm.kill()
            vm.wait()


if __name__ == "__main__":
    main()
