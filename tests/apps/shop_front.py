"""The shop's front: flask that asks the stock by requests. Port in `PORT`, stock's URL in `STOCK`."""

import os

import requests
from flask import Flask, abort, jsonify, redirect

app = Flask(__name__)
stock = os.environ.get("STOCK", "http://127.0.0.1:8001")


@app.get("/")
def index():
    return jsonify(shop="remora demo")


@app.get("/buy/<item>")
def buy(item):
    answer = requests.get(f"{stock}/items/{item}", timeout=5)
    if answer.status_code == 404:
        abort(404)
    answer.raise_for_status()
    return jsonify(bought=answer.json())


@app.get("/order/<item>")
def order(item):
    answer = requests.post(f"{stock}/orders", json={"item": item}, timeout=5)
    answer.raise_for_status()
    return jsonify(order=answer.json()), 201


@app.get("/latest")
def latest():
    # The stock service redirects from here to the item: two client spans.
    return jsonify(latest=requests.get(f"{stock}/latest", timeout=5).json())


@app.get("/old")
def old():
    return redirect("/latest")


@app.get("/broken")
def broken():
    requests.get(f"{stock}/broken", timeout=5).raise_for_status()
    return jsonify(never="reached")


if __name__ == "__main__":
    app.run("127.0.0.1", int(os.environ.get("PORT", "8000")), threaded=True)
