"""A real Apache Kafka broker in KRaft mode, on free loopback ports, in a folder of its own."""

import re
import subprocess
import time
from pathlib import Path

from support.paths import CACHE, ROOT, free_ports
from support.process import stop

POM = ROOT / "tests" / "support" / "servers" / "kafka" / "pom.xml"
VERSION = re.findall(r"<version>(.*)</version><!-- Kafka -->", POM.read_text())[0]
JARS = CACHE / f"kafka-{VERSION}" / "lib"


class Kafka:
    """One broker; topics are made by their first use, with two partitions."""

    def __init__(self, folder: Path) -> None:
        assert JARS.is_dir(), f"{JARS} is missing: .ci/servers-kafka"
        self.port, controller = free_ports(2)
        self.address = f"127.0.0.1:{self.port}"
        self._log = folder / "kafka.log"
        settings = folder / "server.properties"
        settings.write_text(
            f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{self.address}
controller.listener.names=CONTROLLER
log.dirs={folder / "data"}
num.partitions=2
num.network.threads=1
num.io.threads=2
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
"""
        )
        java = [
            *("java", "-Xmx192m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData"),
            *("-cp", f"{JARS}/*"),
        ]
        with self._log.open("wb") as log:
            subprocess.run(
                [*java, "kafka.tools.StorageTool", "format", "-t", "remora-tests-remora-tes", "-c", settings],
                check=True,
                stdout=log,
                stderr=log,
                timeout=50,
            )
            self._process = subprocess.Popen(
                [*java, "kafka.Kafka", settings], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        end = time.monotonic() + 50
        while "Kafka Server started" not in self._log.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > end:
                self.close()
                raise AssertionError(
                    f"Kafka does not start:\n{self._log.read_text(errors='replace')[-4000:]}"
                )
            time.sleep(0.05)

    def close(self) -> None:
        """Ends it; its data are the test run's to throw away."""
        stop(self._process, timeout=5)
