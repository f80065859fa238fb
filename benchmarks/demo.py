"""How fast the page answers, and what it needs under load: `python benchmarks/demo.py [--requests=200 --at_once=8]`.

Starts the demo as a process and asks it by gradio_client for the four calls in turn. Linux only (/proc).
"""

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402  the path first

from benchmarks.common import peak_memory  # noqa: E402

PORT = 7897
PHOTO = ROOT / "dataset" / "sample" / "photos" / "alps_noon.jpg"
SIDE = 1024  # pixels of the painting that is timed


def seconds_of(call: Callable) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def wait_for(server: subprocess.Popen) -> None:
    """Until the page answers, or the server has ended."""
    while server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 1):
            return
        time.sleep(0.05)


def measure(server: subprocess.Popen, folder: Path, requests: int, at_once: int) -> dict[str, float]:
    """Seconds of single calls and of many at once, requests without an answer, MB, and files that were left."""
    from gradio_client import Client, handle_file

    metrics = {"from the command to the page": seconds_of(lambda: wait_for(server))}
    client = Client(f"http://127.0.0.1:{PORT}/", verbose=False, analytics_enabled=False)
    large = folder / "photo.jpg"
    Image.open(PHOTO).convert("RGB").resize((SIDE, SIDE)).save(large)
    photo = handle_file(str(PHOTO))
    calls = (
        partial(client.predict, title="雪", api_name="/compose"),
        lambda: Image.open(client.predict(handle_file(str(large)), api_name="/paint")).load(),
        partial(client.predict, photo, title="雪", api_name="/postcard"),
        partial(client.predict, photo, api_name="/classify"),
    )
    metrics |= {"first poem": seconds_of(calls[0]), "second poem": seconds_of(calls[0])}
    calls[1]()  # loads the painter
    metrics[f"painting of {SIDE} x {SIDE}"] = median(seconds_of(calls[1]) for _ in range(3))
    with ThreadPoolExecutor(at_once) as pool:
        start = time.perf_counter()
        jobs = [pool.submit(seconds_of, call) for call in islice(cycle(calls), requests)]
        errors = [error for job in jobs if (error := job.exception())]
        metrics[f"{requests} requests, {at_once} at once"] = time.perf_counter() - start
    for error in dict.fromkeys(map(repr, errors)):
        print(error, file=sys.stderr)
    seconds = [job.result() for job in jobs if not job.exception()]
    metrics |= {"of these, lost": len(errors), "median seconds of a request": median(seconds)}
    metrics["95 % of them within"] = quantiles(seconds, n=20)[-1]
    metrics["peak memory, MB"] = peak_memory(Path(f"/proc/{server.pid}"))
    time.sleep(1)
    metrics["files left"] = sum(file.is_file() for file in folder.glob("shihua_*/**/*"))
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--at_once", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / "main.py", "demo", f"--port={PORT}"]
        server = subprocess.Popen(command, env={**os.environ, "TMPDIR": folder})
        try:
            metrics = measure(server, Path(folder), options.requests, options.at_once)
        finally:
            server.terminate()
            server.wait()
    for name, value in metrics.items():
        print(f"{name:32} {value:8.2f}")


if __name__ == "__main__":
    main()
