"""The last table."""
from demonstration.screen import heading, ms, say
from demonstration.stage import Stage


class Table(Stage):
    def step_table(self):
        heading(7, "What ran")
        head = ("function", "class", "hypervisor", "image", "cold start", "restored", "warm", "calls", "result")
        lines = [head]
        for r in self.rows:
            lines.append((r["name"], r["cls"], r.get("hypervisor") or "-", r.get("image") or "-",
                          ms(r["cold"]) if r.get("cold") else "-",
                          ms(r["restored"]) if r.get("restored") else "-",
                          ms(r["warm"]) if r.get("warm") else "-",
                          f"{r['calls']:,}", "right" if r["right"] else "WRONG"))
        width = [max(len(l[i]) for l in lines) for i in range(len(head))]
        for i, line in enumerate(lines):
            say("   " + "  ".join(c.ljust(w) for c, w in zip(line, width)).rstrip())
            if i == 0:
                say("   " + "  ".join("-" * w for w in width))
        say()
        for r in self.rows:
            if r.get("phases"):
                say(f"   cold start of {r['name']}: " +
                    " + ".join(f"{n} {ms(s)}" for n, s in r["phases"]))
