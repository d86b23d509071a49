"""A small MCP server that the captured gateway calls: fixed answers from the arguments alone."""

import hashlib
import sys

from mcp.server import MCPServer

server = MCPServer("claims-db")


def _digits(*parts: str) -> int:
    """A number that depends on the arguments only, so that a re-run gives the same answers."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:4], "big")


@server.tool()
def lookup_policy(policy: str) -> dict:
    """The state of one insurance policy."""
    n = _digits("policy", policy)
    return {
        "policy": policy,
        "status": ("in force", "lapsed", "被保険者変更中", "في انتظار المراجعة")[n % 4],
        "deductible": f"{n % 900 + 100}.00",
        "currency": "EUR",
    }


@server.tool()
def exchange_rate(base: str, quote: str) -> dict:
    """A reference exchange rate as a decimal string."""
    n = _digits("fx", base, quote)
    return {"pair": f"{base}/{quote}", "rate": f"{n % 3 + 0}.{n % 1000000:06d}"}


@server.tool()
def open_ticket(title: str, team: str) -> dict:
    """Opens a ticket for a team and answers its number."""
    return {"ticket": f"T-{_digits('ticket', title, team) % 1000000:06d}", "team": team, "title": title}


@server.tool()
def archive_claim(claim: str) -> dict:
    """Always refuses, as a tool that fails."""
    raise ValueError(f"claim {claim} has open payments and cannot be archived")


if __name__ == "__main__":
    server.run(transport="streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
