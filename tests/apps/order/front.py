"""The front, FastAPI under uvicorn: httpx to the stock, aiohttp to the notes, kafka after the response."""

import os

import aiohttp
import httpx
import kafka
from fastapi import BackgroundTasks, FastAPI

app = FastAPI()


def announce(item: str) -> None:
    producer = kafka.KafkaProducer(bootstrap_servers=os.environ["BROKER"])
    producer.send(os.environ["TOPIC"], item.encode()).get(20)
    producer.close()


@app.get("/orders/{item}")
async def order(item: str, tasks: BackgroundTasks) -> dict[str, object]:
    tasks.add_task(announce, item)
    async with httpx.AsyncClient(trust_env=False) as client:
        stock = await client.get(f"{os.environ['STOCK']}/stock/{item}")
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{os.environ['NOTES']}/notes/{item}") as answer,
    ):
        return {"stock": stock.json(), "note": await answer.text()}
