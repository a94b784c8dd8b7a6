"""A function in a microVM that has no kernel."""
import json
import os
import random
import statistics
import subprocess

from demonstration.screen import heading, ms, progress, say, show
from demonstration.stage import Stage


class Bare(Stage):
    def cold_and_warm(self, name, make, n_cold, n_warm):
        """Call a function n_cold times cold and n_warm times warm, checking every reply.

        make(i) gives a request's body and the reply that is right."""
        cold, warm, phases, wrong, not_cold, not_warm = [], [], [], [], 0, 0
        conn = self.connect()
        for i in range(n_cold):
            self.put_to_sleep(name)
            body, want = make(i)
            status, headers, data, took = self.call(conn, "POST", f"/function/{name}", body)
            cold.append(took)
            phases.append(self.phases(headers))
            not_cold += headers.get("X-Kiln-Start") != "cold"
            if status != 200 or not want(data):
                wrong.append((status, data[:80]))
            progress(f"cold {i + 1} of {n_cold}: {ms(took)}")
        progress(f"{n_cold} cold: {ms(min(cold))} at best, {ms(statistics.median(cold))} median, "
                 f"{ms(max(cold))} at worst", done=True)
        for i in range(n_warm):
            body, want = make(i)
            status, headers, data, took = self.call(conn, "POST", f"/function/{name}", body)
            warm.append(took)
            not_warm += headers.get("X-Kiln-Start") != "warm"
            if status != 200 or not want(data):
                wrong.append((status, data[:80]))
            if i % 500 == 499:
                progress(f"warm {i + 1} of {n_warm}: {ms(took)}")
        conn.close()
        warm.sort()
        progress(f"{n_warm} warm: {ms(warm[0])} at best, {ms(statistics.median(warm))} median, "
                 f"{ms(warm[len(warm) * 99 // 100])} at the 99th of 100", done=True)
        self.check(f"all {n_cold} cold calls were cold, each in a microVM of its own", not_cold == 0)
        self.check(f"all {n_warm} warm calls were warm", not_warm == 0)
        right = self.check(f"all {n_cold + n_warm} replies are those that Python computed",
                           not wrong, wrong[:2] if wrong else "")
        return cold, warm, phases, right

    @staticmethod
    def middle_phases(all_phases):
        """The phases of the start whose whole took the median time."""
        whole = sorted(all_phases, key=lambda p: sum(s for _, s in p))
        return whole[len(whole) // 2] if whole else []

    def samples(self, i):
        """Samples of a sensor with spikes, and a check of the reply against medians by sorting."""
        if i not in self.sample_cache:
            rng = random.Random(i)
            level = rng.uniform(10, 30)
            xs = [round(level + rng.gauss(0, 0.2) + (rng.random() < 0.1) * rng.uniform(20, 60), 3)
                  for _ in range(rng.randrange(1, 200))]
            reach = [min(k, len(xs) - 1 - k, 2) for k in range(len(xs))]
            want = [sorted(xs[k - r:k + r + 1])[r] for k, r in enumerate(reach)]
            self.sample_cache[i] = json.dumps(xs).encode(), want
        body, want = self.sample_cache[i]
        return body, lambda data: json.loads(data) == want

    def step_bare(self):
        heading(4, "A function in a microVM without a kernel")
        bare = self.classes["bare"]
        if bare["state"] != "works":
            say(f"   not here: {bare['why']}")
            status = subprocess.run([os.path.join(self.build, "kiln"), "invoke", "denoise", "-d", "[]"],
                                    env=self.env, capture_output=True).returncode
            self.check("the node refuses it", status == 1)
            return
        self.sample_cache = {}
        show('denoise: sliding median over sensor samples, C with the SDK')
        self.kiln("invoke", "-v", "denoise", "-d", "[20.1, 20.2, 85.0, 20.3, 20.2]")
        cold, warm, phases, right = self.cold_and_warm(
            "denoise", lambda i: self.samples(i % 64), self.args.cold, self.args.warm)
        self.row(name="denoise", cls="bare", hypervisor=self.hypervisor("denoise"),
                 image=self.image_bytes("denoise"), cold=statistics.median(cold),
                 warm=statistics.median(warm), phases=self.middle_phases(phases),
                 calls=1 + len(cold) + len(warm), right=right)
