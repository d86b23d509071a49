"""Captures LiteLLM's own log of a seeded run: starts the proxy, calls it over loopback HTTP, stops it.

    python capture.py --out ../testdata/litellm-raw.jsonl [--seed 20261] [--events 2120]

Every call carries its own `x-litellm-call-id`; the run fails unless LiteLLM logged each of them.
"""

import argparse
import collections
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from scenarios import Call, Scenarios

HERE = Path(__file__).resolve().parent
# Seconds that a server may take to answer for the first time, and the log to become complete.
START_SECONDS = 120
DRAIN_SECONDS = 60


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(what: str, seconds: float, ready, *processes: subprocess.Popen) -> None:
    """Polls `ready` until it holds; fails when the time is over or a process has ended."""
    deadline = time.monotonic() + seconds
    while not ready():
        if ended := [process.args[0] for process in processes if process.poll() is not None]:
            raise SystemExit(f"{what}: {Path(ended[0]).name} ended early, see the log beside the output")
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not reached within {seconds:.0f} s")
        time.sleep(0.2)


def listening(port: int) -> bool:
    """Whether somebody accepts connections on the loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def send(client: httpx.Client, call: Call) -> int:
    """Makes one call, reads the whole answer (also of a stream) and returns the HTTP status."""
    headers = {
        "authorization": f"Bearer {call.key or call.caller.key}",
        "user-agent": f"{call.caller.agent}/{call.caller.agent_version}",
        "x-litellm-call-id": call.call_id,
        "traceparent": f"00-{call.trace_id}-{call.trace_id[16:]}-01",
        "baggage": f"session.id={call.session_id}",
    }
    with client.stream("POST", call.path, json=call.body, headers=headers) as response:
        body = response.read()
    if response.status_code not in call.expect:
        raise SystemExit(f"{call.kind} answered {response.status_code}, expected {sorted(call.expect)}: {body[:400]!r}")
    return response.status_code


def logged_ids(path: Path) -> list[str]:
    """The call ids in the log so far (complete lines only)."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line)["litellm_call_id"] for line in lines]


def await_log(calls: list[Call], output: Path, processes: list[subprocess.Popen]) -> None:
    """Waits until LiteLLM has logged every call; names the kinds of those that it did not.

    A call refused while its key is checked (unknown, over budget) is logged under an id of
    LiteLLM's own, so those are only counted.
    """
    kinds = {call.call_id: call.kind for call in calls if call.kind not in ("unknown_key", "small_budget")}

    def complete() -> bool:
        ids = logged_ids(output)
        return len(ids) >= len(calls) and kinds.keys() <= set(ids)

    try:
        wait_until("every call logged", DRAIN_SECONDS, complete, *processes)
    except SystemExit as error:
        missing = collections.Counter(kinds[call_id] for call_id in kinds.keys() - set(logged_ids(output)))
        raise SystemExit(f"{error}; missing by id: {dict(missing)}") from error


def run(calls: list[Call], output: Path, log: Path) -> None:
    """Drives the proxy through `calls`; `output` receives LiteLLM's payloads."""
    proxy_port, tools_port = free_port(), free_port()
    environment = os.environ | {
        "CAPTURE_OUTPUT": str(output),
        "CAPTURE_TOOLS_URL": f"http://127.0.0.1:{tools_port}/mcp",
        "LITELLM_MASTER_KEY": "sk-" + secrets.token_hex(32),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PYTHONPATH": str(HERE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "DISABLE_ADMIN_UI": "True",
        "NO_DOCS": "True",
    }
    litellm = str(Path(sys.executable).with_name("litellm"))
    proxy_command = [
        litellm,
        "--config",
        str(HERE / "proxy_config.yaml"),
        "--host",
        "127.0.0.1",
        "--port",
        str(proxy_port),
    ]
    tools_command = [sys.executable, str(HERE / "tools_server.py"), str(tools_port)]
    with log.open("wb") as sink:
        started: list[subprocess.Popen] = []
        try:
            for command, port in ((tools_command, tools_port), (proxy_command, proxy_port)):
                started.append(subprocess.Popen(command, env=environment, stdout=sink, stderr=sink))
                wait_until(
                    f"start of {Path(command[0]).name}", START_SECONDS, lambda port=port: listening(port), *started
                )
            statuses = collections.Counter()
            with httpx.Client(base_url=f"http://127.0.0.1:{proxy_port}", timeout=60) as client:
                for number, call in enumerate(calls, 1):
                    statuses[send(client, call)] += 1
                    if number % 250 == 0:
                        print(f"{number}/{len(calls)} calls", file=sys.stderr)
            await_log(calls, output, started)
            print("answers by HTTP status:", dict(sorted(statuses.items())), file=sys.stderr)
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait(timeout=30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the raw payloads go (replaced)")
    parser.add_argument(
        "--seed", type=int, default=20261, help="seed of everything that is drawn (default %(default)s)"
    )
    parser.add_argument("--events", type=int, default=2120, help="about how many calls to make (default %(default)s)")
    arguments = parser.parse_args()
    calls = Scenarios(arguments.seed).build(arguments.events)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "raw.jsonl"
        log = arguments.out.with_suffix(".log")
        run(calls, output, log)
        lines = output.read_bytes()
    arguments.out.write_bytes(lines)
    log.unlink()
    kinds = collections.Counter(call.kind for call in calls)
    print(
        f"{lines.count(10)} payloads, {len(lines)} bytes, from {len(calls)} calls: {dict(sorted(kinds.items()))}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
