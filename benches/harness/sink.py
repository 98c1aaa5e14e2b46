"""What listens at the other end: an OTLP/HTTP receiver, a Datadog agent and a small web server in one.

Reads every request whole, answers 200 and counts. `--silent` accepts and never answers. Prints its port.
`GET /count` answers `{"exports": …, "spans": …}`: requests that bring traces, and spans, counted in
OTLP/JSON bodies and in the trace count that ddtrace announces (the burst makes traces of one span).
"""

import asyncio
import json
import re
import sys

COUNT = {"exports": 0, "spans": 0}
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
TRACES = re.compile(rb"\r\nx-datadog-trace-count: *(\d+)", re.I)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.I)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"


class Sink(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer = transport, bytearray()

    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[: end + 2])
            body = self.body(head, end + 4)
            if body is None:
                return
            self.answer(head, body)

    def body(self, head, start):
        """The body, cut from the buffer, or `None` while it is incomplete."""
        if CHUNKED.search(head):
            stop, parts = start, []
            while (line := self.buffer.find(b"\r\n", stop)) >= 0:
                size = int(self.buffer[stop:line].split(b";")[0], 16)
                stop = line + 2 + size + 2
                if stop > len(self.buffer):
                    return None
                if not size:
                    break
                parts.append(self.buffer[line + 2 : line + 2 + size])
            else:
                return None
            body = b"".join(parts)
        else:
            found = LENGTH.search(head)
            stop = start + (int(found[1]) if found else 0)
            if stop > len(self.buffer):
                return None
            body = bytes(self.buffer[start:stop])
        del self.buffer[:stop]
        return body

    def answer(self, head, body):
        method, path = head.split(b" ", 2)[:2]
        if path == b"/count":
            kind, text = b"application/json", json.dumps(COUNT).encode()
        elif method == b"GET" and path == b"/":
            kind, text = b"text/plain", b"ok"
        else:
            COUNT["exports"] += path.endswith(b"/traces")
            traces = TRACES.search(head)
            COUNT["spans"] += int(traces[1]) if traces else body.count(b'"spanId"')
            # An empty body is an empty OTLP response in protobuf; JSON wants its braces.
            protobuf = b"application/x-protobuf" in head
            kind, text = (b"application/x-protobuf", b"") if protobuf else (b"application/json", b"{}")
        self.transport.write(OK % (kind, len(text), text))


async def main(silent):
    protocol = asyncio.Protocol if silent else Sink
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main("--silent" in sys.argv))
