"""What every unit shares: on each line `N` of standard input, run N iterations and answer the CPU they took.
`-N` runs them without the cyclic garbage collector.

The answer is `@ thread wall`: the calling thread's CPU and the time, in nanoseconds. On a line `flush`, all
that was made is exported, and the answer is `@ others`: the CPU of that and of all other threads so far.
"""

import gc
import os
import sys
from time import perf_counter_ns, process_time_ns, thread_time_ns


def _scatter(seed):
    """Blocks of random sizes, half of them freed again.

    Where objects come to lie is worth a per cent or two, and would be the same in each process of a variant.
    """
    kept = []
    for _ in range(seed % 1009):
        seed = seed * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        kept.append(bytes(seed >> 33 & (511 if seed >> 63 else 8191)))
    del kept[::2]
    return kept


_kept = _scatter(int(os.environ.get("BENCH_SCATTER", "0")))
# glibc maps and unmaps each block of 128 KiB or more, until a mapped one as large has been freed. Each read
# of asyncio's is such a block, and shrinks before it is freed: aiohttp takes a third less CPU once anything
# else in the process, an agent's export for one, has freed a large block. Here it has in every variant.
bytes(1 << 20)

UPSTREAM = os.environ.get("BENCH_UPSTREAM", "") + "/"
# "Bare plus one constant header": what any agent that propagates must add, whatever it costs itself.
HEADERS = (
    {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    if os.environ.get("BENCH_HEADER") == "1"
    else None
)


def _flush():
    variant = os.environ["BENCH_VARIANT"]
    if variant == "remora":
        import remora

        return remora.flush
    if variant == "otel":
        from opentelemetry import trace

        return getattr(trace.get_tracer_provider(), "force_flush", lambda: None)
    if variant == "ddtrace":
        from ddtrace.trace import tracer

        return tracer.flush
    return lambda: None


def main(run, reference=None):
    """Serve `run(n)`. With a `reference`, answer for both, one after the other."""
    flush = _flush()

    def measure(function, n):
        wall, thread = perf_counter_ns(), thread_time_ns()
        function(n)
        return [thread_time_ns() - thread, perf_counter_ns() - wall]

    measure(run, 1)
    print("@", flush=True)
    for line in sys.stdin:
        if line == "flush\n":
            thread = thread_time_ns()
            flush()
            print("@", process_time_ns() - thread, flush=True)
            continue
        n = int(line)
        if n < 0:
            gc.disable()
            n = -n
        answer = measure(run, n)
        if reference:
            answer += measure(reference, n)
        print("@", *answer, flush=True)
