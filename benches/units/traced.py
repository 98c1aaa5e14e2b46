"""`@traced` on a function that does nothing, beside the same function bare, in one process."""

import os

import loop

VARIANT = os.environ["BENCH_VARIANT"]


def plain(a):
    return a


def work(a):
    return a


if VARIANT == "remora":
    from remora import traced

    work = traced(work)
elif VARIANT == "otel":
    from opentelemetry import trace

    work = trace.get_tracer("bench").start_as_current_span("work")(work)
elif VARIANT == "ddtrace":
    from ddtrace.trace import tracer

    work = tracer.wrap("work")(work)


# Two loops with the same text: a shared one would share the interpreter's inline caches.
def bare(n):
    f = plain
    for _ in range(n):
        f(1)


def run(n):
    f = work
    for _ in range(n):
        f(1)


loop.main(run, bare)
