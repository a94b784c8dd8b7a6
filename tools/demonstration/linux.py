"""Events into ordinary images, in microVMs and in a container."""
import hashlib
import http.client
import json
import random
import re
import statistics
import subprocess
import time
import zlib

from demonstration.screen import Failed, heading, ms, progress, say, show, size
from demonstration.stage import Stage


class Linux(Stage):
    def get_token(self):
        with open(self.path("node/credentials")) as f:
            creds = dict(line.strip().split("=", 1) for line in f if "=" in line)
        say(f"   $ curl -u $CLIENT_ID:$CLIENT_SECRET -d grant_type=client_credentials {self.url}/oauth/token")
        # The secret goes over standard input: a command line can be read by everybody.
        r = subprocess.run(["curl", "-sS", "-K", "-", "-d", "grant_type=client_credentials",
                            self.url + "/oauth/token"], capture_output=True, text=True,
                           input=f'user = "{creds["client_id"]}:{creds["client_secret"]}"\n')
        grant = json.loads(r.stdout or "{}")
        self.token = grant.get("access_token", "")
        parts = self.token.split(".")
        show(json.dumps(dict(grant, access_token=self.token[:20] + "...")))
        self.check("the token is a signed JWT", len(parts) == 3 and all(parts))

    def curl(self, path, *args):
        """An event as a device would send it. Returns status, headers, body, seconds."""
        say("   $ curl " + " ".join(f"'{a}'" if re.search(r"[ {}\"@]", a) else a for a in args)
            + f" $GATEWAY{path}")
        head = self.path("head")
        began = time.perf_counter()
        r = subprocess.run(["curl", "-sS", "-D", head, "-K", "-", *args, self.url + path],
                           capture_output=True,
                           input=f'header = "Authorization: Bearer {self.token}"\n'.encode())
        took = time.perf_counter() - began
        with open(head) as f:
            lines = f.read().replace("\r", "").strip().split("\n\n")[-1].splitlines()
        headers = http.client.HTTPMessage()
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name] = value.strip()
        return int(lines[0].split()[1]), headers, r.stdout, took

    def deploy(self):
        self.kiln("deploy", "-f", "examples/stack.yaml")

    def hypervisor(self, name):
        return self.api("GET", f"/system/function/{name}")["kiln"].get("hypervisor")

    def image_bytes(self, name):
        return size(self.images[f"{name}:latest"]["bytes"])

    def event(self, n, value, structured=False, source="/plant/hall-2", subject="pump-7"):
        """A reading as a CloudEvent: curl's arguments."""
        attributes = {"specversion": "1.0", "type": "reading", "source": source, "id": str(n),
                      "subject": subject}
        if structured:
            return ["-H", "Content-Type: application/cloudevents+json", "-d",
                    json.dumps(dict(attributes, data={"value": value}))]
        fields = [x for k, v in attributes.items() for x in ("-H", f"ce-{k}: {v}")]
        return fields + ["-H", "Content-Type: application/json", "-d", json.dumps({"value": value})]

    def step_linux(self):
        heading(3, "Events into functions in Linux microVMs, and in a container")
        self.get_token()
        self.deploy()
        self.show_telemetry()
        self.show_checksum("checksum", "microvm")
        self.show_restored()
        if self.classes["container"]["state"] == "works":
            self.kiln("deploy", "contained", "--image", "checksum:latest", "--contract", "stdio",
                      "--class", "container")
            self.show_checksum("contained", "container")
        else:
            say("   no containers here: " + self.classes["container"]["why"])

    def show_telemetry(self):
        say("\n   telemetry: a Python HTTP server; a reading, an alarm, the last values")
        status, headers, body, cold = self.curl("/function/telemetry", *self.event(1, 21.5))
        show(f"{status} {body.decode()}", 3)
        phases = self.phases(headers)
        show(f"{headers.get('X-Kiln-Start')}, {ms(cold)}: " + ", ".join(f"{n} {ms(t)}" for n, t in phases))
        right = self.check("the first call was cold", headers.get("X-Kiln-Start") == "cold")
        right &= self.check("the reading was kept", status == 202 and
                            json.loads(body) == {"device": "pump-7", "value": 21.5, "kept": 1})

        status, headers, body, warm = self.curl("/function/telemetry", *self.event(2, 93.2))
        show(f"{status} {body.decode()}", 3)
        alarm = json.loads(body)
        right &= self.check("the next call was warm", headers.get("X-Kiln-Start") == "warm", ms(warm))
        right &= self.check("above the limit it answers with an alarm, a CloudEvent in binary mode",
                            status == 200 and headers.get("ce-type") == "io.kiln.telemetry.alarm" and
                            (alarm["device"], alarm["value"], alarm["limit"]) == ("pump-7", 93.2, 80))

        status, headers, body, _ = self.curl("/function/telemetry", *self.event(3, 88.8, True))
        show(f"{status} {body.decode()}", 3)
        alarm = json.loads(body)
        right &= self.check("the same in structured mode", status == 200 and
                            headers.get_content_type() == "application/cloudevents+json" and
                            alarm["type"] == "io.kiln.telemetry.alarm" and alarm["data"]["value"] == 88.8)

        status, _, body, _ = self.curl("/function/telemetry/devices/pump-7")
        show(f"{status} {body.decode()}", 3)
        device = json.loads(body)
        right &= self.check("the device's values are kept, newest first", status == 200 and
                            [r["value"] for r in device["last"]] == [88.8, 93.2, 21.5] and
                            device["alarms"] == 2)
        times, all_right = self.many_readings(self.args.events)
        self.row(name="telemetry", cls="microvm", hypervisor=self.hypervisor("telemetry"),
                 image=self.image_bytes("telemetry"), cold=cold, warm=statistics.median(times),
                 phases=phases, calls=4 + len(times), right=right and all_right)

    def await_snapshot(self, name):
        """The node saves a guest in which the function is ready, in the background, and logs it."""
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with open(self.path("kilnd.log"), errors="replace") as f:
                if re.search(rf'snapshot made.*of="?{name}-', f.read()):
                    return
            time.sleep(0.2)
        raise Failed(f"no snapshot of {name} was made; see the node's log")

    def show_restored(self):
        """What booted above was saved in the background: the next starts are restored from that."""
        say("\n   the same two again, asleep before each call: restored from snapshots")
        conn = self.connect()
        reading = {"Content-Type": "application/json", "ce-specversion": "1.0", "ce-id": "1",
                   "ce-type": "reading", "ce-source": "/demo", "ce-subject": "restored"}
        for name, body, fields, good in (("telemetry", b'{"value": 20.5}', reading, 202),
                                         ("checksum", b"kiln", {}, 200)):
            progress(f"{name}: waiting for its snapshot ...")
            self.await_snapshot(name)
            self.put_to_sleep(name)
            status, headers, _, took = self.call(conn, "POST", f"/function/{name}", body, fields)
            phases = self.phases(headers)
            progress(f"{name}: {headers.get('X-Kiln-Start')}, {ms(took)}: " +
                     ", ".join(f"{n} {ms(t)}" for n, t in phases), done=True)
            right = self.check(f"{name} answers out of a snapshot",
                               status == good and "restore" in dict(phases), status)
            row = next(r for r in self.rows if r["name"] == name)
            row.update(restored=took, right=row["right"] and right, calls=row["calls"] + 1)
        conn.close()

    def many_readings(self, n):
        """Readings of many devices, each reply against a model of the function in a few lines."""
        rng, kept, wrong, times = random.Random(7), {}, [], []
        conn = self.connect()
        for i in range(n):
            device, value = f"sensor-{rng.randrange(20)}", round(rng.uniform(0, 100), 2)
            kept[device] = min(kept.get(device, 0) + 1, 16)
            status, headers, body, took = self.call(
                conn, "POST", "/function/telemetry", json.dumps({"value": value}),
                {"Content-Type": "application/json", "ce-specversion": "1.0", "ce-id": str(i),
                 "ce-type": "reading", "ce-source": "/demo", "ce-subject": device})
            times.append(took)
            reply = json.loads(body)
            want = 200 if value > 80 else 202
            if status != want or reply.get("device") != device or reply.get("value") != value or \
                    want == 202 and reply["kept"] != kept[device] or headers["X-Kiln-Start"] != "warm":
                wrong.append((status, reply))
            progress(f"{i + 1} of {n} events: {ms(took)}")
        conn.close()
        progress(f"{n} events, warm: {ms(min(times))} at best, {ms(statistics.median(times))} median",
                 done=True)
        return times, self.check(f"all {n} replies are right", not wrong, wrong[:2] if wrong else "")

    def show_checksum(self, name, cls):
        where = "in a microVM" if cls == "microvm" else "the same image without one"
        say(f"\n   {name}: a C program, a process a request, {where}")
        status, headers, body, cold = self.curl(f"/function/{name}", "--data-binary", "@README.md")
        show(f"{status} {body.decode()}", 3)
        phases = self.phases(headers)
        show(f"{headers.get('X-Kiln-Start')}, {ms(cold)}: " + ", ".join(f"{n} {ms(t)}" for n, t in phases))
        digest = self.run("sha256sum", "README.md").stdout.split()[0]
        right = self.check("the first call was cold", headers.get("X-Kiln-Start") == "cold")
        right &= self.check("sha256sum says the same", status == 200 and json.loads(body)["sha256"] == digest)
        rng, wrong, times = random.Random(11), [], []
        conn = self.connect()
        n = max(1, self.args.events // 5)
        for i in range(n):
            data = rng.randbytes(rng.choice((0, 1, 55, 64, 1000, 65536, 300000)))
            status, headers, body, took = self.call(conn, "POST", f"/function/{name}", data)
            times.append(took)
            want = {"bytes": len(data), "crc32": f"{zlib.crc32(data):08x}",
                    "sha256": hashlib.sha256(data).hexdigest()}
            if status != 200 or json.loads(body) != want or headers["X-Kiln-Start"] != "warm":
                wrong.append((status, body[:100]))
            progress(f"{i + 1} of {n} calls: {ms(took)}")
        conn.close()
        progress(f"{n} warm: {ms(min(times))} at best, {ms(statistics.median(times))} median", done=True)
        right &= self.check(f"all {n} replies are those that Python computed", not wrong,
                            wrong[:2] if wrong else "")
        self.row(name=name, cls=cls, hypervisor=self.hypervisor(name),
                 image=self.image_bytes("checksum"), cold=cold, warm=statistics.median(times),
                 phases=phases, calls=1 + n, right=right)
