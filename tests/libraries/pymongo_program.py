"""Programs that use pymongo."""

from support.otlp import Span, find
from support.process import Result

# `db` and `users`, an empty collection; `outcome(call, *args)` shows what a call raised, or `None`.
CLIENT = """
import pymongo
client = pymongo.MongoClient(os.environ["MONGO"])
db = client[os.environ["DB"]]
users = db.users

def outcome(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        show(type(error).__name__)
    else:
        show(None)
"""

# A way to the server that can be cut or stopped: `way.cut`, `way.stop` are sets of commands; `way.stopped` tells of one.
PROXY = """
import socket, threading
class Way:
    def __init__(self, target):
        self.cut, self.stop, self.stopped = set(), set(), threading.Event()
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()
    def accept(self):
        while True:
            here = self.listener.accept()[0]
            there = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self.pump, args=(here, there, True), daemon=True).start()
            threading.Thread(target=self.pump, args=(there, here, False), daemon=True).start()
    def pump(self, source, sink, requests):
        try:
            while data := source.recv(65536):
                if requests and any(name in data for name in self.cut):
                    self.cut.clear()
                    break
                if requests and any(name in data for name in self.stop):
                    self.stopped.set()
                    continue
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            try: one.shutdown(socket.SHUT_RDWR)
            except OSError: pass
way = Way(int(os.environ["MONGO"].rpartition(":")[2]))
"""

# The driver's own way to tell of commands, for what this server cannot do.
EVENTS = """
import datetime
from pymongo import monitoring
events = monitoring._EventListeners([])
SERVER = ("db.example", 27017)

def start(request, command, database="shop", server=SERVER, connection=7):
    if events.enabled_for_commands:
        events.publish_command_start(command, database, request, server, connection)

def succeed(request, reply={"ok": 1}, server=SERVER, connection=7):
    if events.enabled_for_commands:
        events.publish_command_success(datetime.timedelta(0), reply, "any", request, server, connection)

def fail(request, failure, server=SERVER, connection=7):
    if events.enabled_for_commands:
        events.publish_command_failure(datetime.timedelta(0), failure, "any", request, server, connection)
"""


def calls(result: Result) -> list[Span]:
    """Their spans in order, without the end of the client's sessions."""
    spans = find(result.spans, kind="client", scope="remora.pymongo")
    return [span for span in spans if span["db.operation.name"] != "endSessions"]


def namespace(result: Result) -> str:
    return str(calls(result)[0]["db.namespace"])


def json_of(spans: list[Span]) -> str:
    return str([span.raw for span in spans])
