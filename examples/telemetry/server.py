#!/usr/bin/env python3
"""Telemetry: keeps the last readings of each device and raises an alarm when a limit is passed.

An ordinary HTTP server on port 8080; nothing in it knows of Kiln.

POST /             one sensor reading as a CloudEvent, binary (ce-* headers, JSON body) or structured
                   (application/cloudevents+json). The device is the event's subject, or "device" in
                   the data; the reading is the number "value" in the data.
                   202 {"device", "value", "kept"}; above LIMIT 200 with an alarm: a CloudEvent of
                   type io.kiln.telemetry.alarm in the mode of the request, whose data is
                   {"device", "value", "limit", "time"}.
GET /devices       the devices that have been heard of
GET /devices/ID    {"device", "last": [{"value", "time"}, ...] newest first, "alarms"}
GET /_/health      200 "ok"

Environment: LIMIT (80), KEEP readings a device (16), PORT (8080).
Source: CloudEvents 1.0, JSON event format and HTTP protocol binding."""
import collections
import json
import os
import signal
import socketserver
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LIMIT = float(os.environ.get("LIMIT", "80"))
KEEP = int(os.environ.get("KEEP", "16"))
MAX_BODY = 64 * 1024
MAX_DEVICES = 10000
ALARM = "io.kiln.telemetry.alarm"

lock = threading.Lock()
devices = {}      # id -> Device
alarms_sent = 0


class Device:
    def __init__(self):
        self.last = collections.deque(maxlen=KEEP)   # (value, time), newest first
        self.alarms = 0


class Refused(Exception):
    """What is wrong with a request: an HTTP status and a reason."""

    def __init__(self, status, reason):
        super().__init__(reason)
        self.status = status


def now():
    t = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(t)) + ".%03dZ" % (t % 1 * 1000)


def parse_json(body):
    def no_constant(name):
        raise ValueError(name + " is not JSON")
    try:
        return json.loads(body, parse_constant=no_constant)
    except (ValueError, RecursionError) as e:
        raise Refused(400, f"the body is not JSON: {e}") from None


def event_of(headers, body):
    """The attributes and the data of a CloudEvent, and whether it came structured."""
    kind = headers.get_content_type()
    if kind == "application/cloudevents+json":
        event = parse_json(body)
        if not isinstance(event, dict):
            raise Refused(400, "a structured event must be a JSON object")
        data = event.pop("data", None)
        structured = True
    elif "ce-specversion" in headers:
        if kind != "application/json":
            raise Refused(415, f"data of type {kind} is not understood; send application/json")
        event = {k[3:].lower(): urllib.parse.unquote(v) for k, v in headers.items()
                 if k.lower().startswith("ce-")}
        data = parse_json(body)
        structured = False
    else:
        raise Refused(415, "send a CloudEvent: ce-* headers, or application/cloudevents+json")
    for name in ("specversion", "id", "source", "type"):
        if not isinstance(event.get(name), str) or not event[name]:
            raise Refused(400, f"the event has no {name}")
    if event["specversion"] != "1.0":
        raise Refused(400, f"specversion {event['specversion']} is not understood; 1.0 is")
    return event, data, structured


def reading_of(event, data):
    if not isinstance(data, dict):
        raise Refused(400, "the event's data must be a JSON object")
    device = event.get("subject") or data.get("device")
    value = data.get("value")
    if not isinstance(device, str) or not 0 < len(device) <= 128:
        raise Refused(400, "the event names no device: give a subject")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e300:
        raise Refused(400, 'the data has no number "value"')
    return device, value


def keep(device, value, when):
    """Remember a reading. Returns how many are kept, and the number of the alarm it raised or 0."""
    global alarms_sent
    with lock:
        if device not in devices and len(devices) >= MAX_DEVICES:
            raise Refused(507, f"more than {MAX_DEVICES} devices")
        d = devices.setdefault(device, Device())
        d.last.appendleft((value, when))
        if value <= LIMIT:
            return len(d.last), 0
        d.alarms += 1
        alarms_sent += 1
        return len(d.last), alarms_sent


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "telemetry/1"
    wbufsize = -1                     # headers and body leave in one packet
    disable_nagle_algorithm = True
    timeout = 60

    def reply(self, status, data, kind="application/json", headers=()):
        body = data if isinstance(data, bytes) else (json.dumps(data) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, e):
        self.reply(e.status, {"error": str(e)})

    def read_body(self):
        if "Transfer-Encoding" in self.headers:
            return self.read_chunks()
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit():
            self.close_connection = True
            raise Refused(400, "Content-Length is not a number")
        if int(length) > MAX_BODY:
            self.close_connection = True
            raise Refused(413, f"more than {MAX_BODY} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            raise Refused(400, "the body is cut short")
        return body

    def read_chunks(self):
        body = b""
        self.close_connection = True  # until the whole body was read
        while True:
            try:
                size = int(self.rfile.readline(64).split(b";")[0], 16)
            except ValueError:
                raise Refused(400, "a chunk has no size") from None
            if size < 0 or len(body) + size > MAX_BODY:
                raise Refused(413, f"more than {MAX_BODY} bytes")
            if size == 0:
                break
            body += self.rfile.read(size)
            self.rfile.readline(3)
        while self.rfile.readline(8192).strip():
            pass
        self.close_connection = self.headers.get("Connection", "").lower() == "close"
        return body

    def alarm(self, number, device, value, when, structured):
        attributes = {"specversion": "1.0", "id": f"alarm-{number}", "source": "/telemetry",
                      "type": ALARM, "subject": device, "time": when}
        data = {"device": device, "value": value, "limit": LIMIT, "time": when}
        if structured:
            attributes.update(datacontenttype="application/json", data=data)
            self.reply(200, attributes, "application/cloudevents+json")
        else:
            self.reply(200, data, headers=[("ce-" + k, urllib.parse.quote(v, safe="/:-. "))
                                           for k, v in attributes.items()])

    def do_POST(self):
        try:
            body = self.read_body()
            if urllib.parse.urlsplit(self.path).path != "/":
                raise Refused(404, "events go to /")
            event, data, structured = event_of(self.headers, body)
            device, value = reading_of(event, data)
            when = event.get("time") if isinstance(event.get("time"), str) else now()
            kept, number = keep(device, value, when)
        except Refused as e:
            self.refuse(e)
            return
        if number:
            print(f"alarm {number}: {device} says {value}, the limit is {LIMIT:g}", flush=True)
            self.alarm(number, device, value, when, structured)
        else:
            self.reply(202, {"device": device, "value": value, "kept": kept})

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        if path == "/_/health":
            self.reply(200, b"ok\n", "text/plain")
        elif path == "/devices":
            with lock:
                names = sorted(devices)
            self.reply(200, {"devices": names})
        elif path.startswith("/devices/"):
            self.device(urllib.parse.unquote(path[len("/devices/"):]))
        else:
            self.refuse(Refused(404, "no such page"))

    do_HEAD = do_GET

    def device(self, name):
        with lock:
            d = devices.get(name)
            last = [{"value": v, "time": t} for v, t in d.last] if d else []
            alarms = d.alarms if d else 0
        if not d:
            self.refuse(Refused(404, f"device {name!r} has not been heard of"))
            return
        self.reply(200, {"device": name, "last": last, "alarms": alarms})

    def log_message(self, format, *args):
        pass                          # one line a request is the platform's business


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self):
        # HTTPServer asks the resolver for this machine's name, which takes seconds without a network.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


def main():
    server = Server(("", int(os.environ.get("PORT", "8080"))), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"telemetry listens on port {server.server_port}, the limit is {LIMIT:g}", flush=True)
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
