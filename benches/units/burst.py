"""BENCH_SPANS no-op spans as fast as they can be made, then a normal exit. Says the wall time of the loop."""

import os
import time

VARIANT = os.environ["BENCH_VARIANT"]
N = int(os.environ["BENCH_SPANS"])

if VARIANT == "remora":
    from remora import traced

    @traced
    def work():
        pass

    def run():
        for _ in range(N):
            work()
elif VARIANT == "otel":
    from opentelemetry import trace

    def run():
        start = trace.get_tracer("bench").start_as_current_span
        for _ in range(N):
            with start("work"):
                pass
elif VARIANT == "ddtrace":
    from ddtrace.trace import tracer

    def run():
        start = tracer.trace
        for _ in range(N):
            with start("work"):
                pass
else:

    def run():
        pass


begin = time.perf_counter()
run()
# The clock is the system's: the parent reads the same one when the process is gone.
print("@", time.perf_counter() - begin, time.monotonic(), flush=True)
