"""The shipping: a loop over kafka's messages that SIGTERM kills. It listens on `PORT` to say that it runs."""

import os
import socket
import sqlite3

import kafka

database = sqlite3.connect(":memory:")
consumer = kafka.KafkaConsumer(
    os.environ["TOPIC"], bootstrap_servers=os.environ["BROKER"], auto_offset_reset="earliest"
)
listening = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
for message in consumer:
    database.execute("select ?", (message.value,))
    print("shipped", flush=True)
