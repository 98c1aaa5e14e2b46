"""What the tests stand on: a real Collector and a receiver, processes, interpreters, faulty endpoints."""
