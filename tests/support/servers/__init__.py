"""Real servers, each started and ended by the test run in a folder of its own on free loopback ports."""
