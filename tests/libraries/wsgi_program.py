"""What the programs of Flask and Django send requests with."""

# `environ(path, method, **more)` is a request's; a name with the value None is left out.
ENVIRON = """
import io, sys
def environ(path="/", method="GET", **more):
    env = {
        "REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "",
        "SERVER_NAME": "server.test", "SERVER_PORT": "8080", "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "shop.test:8000", "REMOTE_ADDR": "192.0.2.7", "REMOTE_PORT": "4711",
        "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr, "wsgi.multithread": True, "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    env.update(more)
    return {name: value for name, value in env.items() if value is not None}

def exchange(application, environ):
    statuses = []
    body = application(environ, lambda status, *a: statuses.append(status))
    text = b"".join(body).decode()
    if hasattr(body, "close"):
        body.close()
    return int(statuses[-1].split()[0]), text
"""
