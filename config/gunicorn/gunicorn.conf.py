"""gunicorn with remora: nothing is needed. Start it with `remora run gunicorn -c gunicorn.conf.py app:app`.

No post_fork hook: every worker notices that it is a new process, draws ids of its own and starts its own exporter
with its first span.
"""

# Works as it is, with `threads`, and with `preload_app`: the master makes no span, or has its own exporter.
workers = 2
preload_app = True

# One exporter thread per worker, outside of the GIL; it counts neither here nor in `workers`.
threads = 4

# A worker that is recycled leaves by an ordinary exit, which sends its last spans (at most 2 s; 0.3 s where the
# collector cannot be reached).
max_requests = 10_000
max_requests_jitter = 1_000

# gunicorn ends its workers by SIGTERM, handled by gunicorn itself: the requests in progress are finished, then the
# worker exits and the spans are sent. Leave more than the 2 s that this may take.
graceful_timeout = 30
