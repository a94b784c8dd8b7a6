"""Packet functions."""
import json
import os

from demonstration.screen import heading
from demonstration.stage import ROOT, Stage


class Packets(Stage):
    def step_packets(self):
        heading(5, "A packet function: a firewall over a recorded capture")
        firewall = os.path.join(ROOT, "examples/firewall")
        config = os.path.join(firewall, "firewall.yaml")
        nf = os.path.join(self.build, "kiln-nf")
        self.need(nf, "run", config, limit=40)
        report = json.loads(self.need(nf, "run", "--json", config, shown=False))
        received, sent, dropped = (report[k]["frames"] for k in ("received", "sent", "dropped"))
        adds_up = self.check("every frame was sent or counted under a reason",
                             received == sent + dropped, f"{received} = {sent} + {dropped}")
        compared = self.run(os.path.join(firewall, "compare.py"), nf, limit=40)
        same = self.check("every frame's fate is what tshark's display filters say",
                          compared.returncode == 0)
        self.row(name="firewall", cls="nf", calls=received, right=adds_up and same)
