"""Workers of task queues end by `os._exit`: what they did last arrives all the same."""

from pathlib import Path

import pytest
from support.programs import SPANS, labels
from support.servers.redis import Redis

# What Celery's prefork pool is, with `max_tasks_per_child` and a handler of `worker_process_shutdown`.
POOL = """
from billiard.pool import Pool

def work(number):
    make("task")

def ends(pid, status):
    make("ends")
    if sys.argv[1] == "raising":
        raise ValueError

if __name__ == "__main__":
    handler = None if sys.argv[1] == "none" else ends
    pool = Pool(2, maxtasksperchild=2, on_process_exit=handler)
    pool.map(work, range(8), chunksize=1)
    pool.close()
    pool.join()
"""


@pytest.mark.parametrize("handler", ["none", "plain", "raising"])
def test_a_worker_of_celery_s_pool_reports_what_it_did_last(traced, tmp_path: Path, handler: str):
    program = tmp_path / "program.py"
    program.write_text(SPANS + POOL)
    result = traced(program, handler).ok()
    assert result.agent_lines == []
    found = labels(result.spans)
    assert found["task"] == 8
    # A worker that is not needed any more is terminated.
    assert (found.get("ends", 0) >= 4) == (handler != "none")


JOBS = """
import redis, rq

def job(number):
    make("job")
    if number == 1:
        raise ValueError

if __name__ == "__main__":
    jobs = __import__("program")
    connection = redis.Redis(port=int(sys.argv[2]))
    queue = rq.Queue(sys.argv[1], connection=connection)
    for number in range(3):
        queue.enqueue(jobs.job, number)
    worker = getattr(rq, sys.argv[1])([queue], connection=connection)
    worker.work(burst=True)
    make("after")
"""


@pytest.mark.parametrize("worker", ["Worker", "SimpleWorker"])
def test_each_job_of_rq_reports(traced, tmp_path: Path, redis_server: Redis, worker: str):
    program = tmp_path / "program.py"
    program.write_text(SPANS + JOBS)
    env = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis", "PYTHONPATH": str(tmp_path)}
    result = traced(program, worker, str(redis_server.port), env=env).ok()
    assert result.agent_lines == []
    assert labels(result.spans) == {"job": 3, "after": 1}
    assert len({span.resource["process.pid"] for span in result.spans}) == (4 if worker == "Worker" else 1)
