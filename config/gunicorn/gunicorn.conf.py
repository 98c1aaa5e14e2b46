"""gunicorn with remora: nothing is needed. `remora run gunicorn -c gunicorn.conf.py app:app`.

No post_fork hook: every worker notices that it is a new process, draws ids of its own and starts its own
exporter with its first span.
"""

# With or without: a span that the master makes before the fork is the master's to send.
preload_app = True
workers = 2

# Worker threads. remora's exporter is one native thread per worker beside them, outside of the GIL.
threads = 4

# A worker that is recycled leaves by an ordinary exit, which sends its last spans: at most 2 s, 0.3 s where
# the collector cannot be reached (REMORA_EXIT_TIMEOUT).
max_requests = 10_000
max_requests_jitter = 1_000

# On SIGTERM, which gunicorn handles itself, workers finish their requests and exit, as above. The whole must
# fit into what systemd or Kubernetes allow.
graceful_timeout = 20
