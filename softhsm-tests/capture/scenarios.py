"""What the capture asks of the gateway: one function per kind of call, and how often each occurs."""

import json
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from corpus import Corpus
from people import PEOPLE, SMALL_BUDGET, Caller

MODELS = [
    "gpt-4o", "gpt-4o-mini", "claude-sonnet", "gemini-flash", "mistral-large", "deepseek-chat", "house-model", "local-llama",
]  # fmt: skip

_SYSTEM = "You are a careful assistant. Answer in the language of the question."


def _function(name: str, *params: str) -> dict:
    properties = {param: {"type": "string"} for param in params}
    schema = {"type": "object", "properties": properties, "required": list(params)}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TOOLS = [
    _function("lookup_policy", "policy"),
    _function("exchange_rate", "base", "quote"),
    _function("open_ticket", "title", "team"),
]
PAYMENT_TOOL = _function("payments_transfer", "iban", "amount")


@dataclass
class Call:
    """One HTTP request to the gateway."""

    kind: str
    path: str
    body: dict
    caller: Caller
    call_id: str
    trace_id: str
    session_id: str
    key: str = ""
    expect: set[int] = field(default_factory=lambda: {200})


class Scenarios:
    """Builds the whole list of calls from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.corpus = Corpus(self.rng)
        self.sessions = [self._uuid() for _ in range(160)]

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def _call(self, kind: str, body: dict, path: str = "/v1/chat/completions", **more) -> Call:
        caller = more.pop("caller", None) or self.rng.choice(PEOPLE)
        if path.startswith("/v1/") and self.rng.random() < 0.35:
            body["user"] = f"customer-{self.rng.randrange(1, 400):04d}"
        return Call(
            kind, path, body, caller, self._uuid(), f"{self.rng.getrandbits(128):032x}", self.rng.choice(self.sessions),
            **more,
        )  # fmt: skip

    def _messages(self, question: str) -> list[dict]:
        messages = [{"role": "user", "content": question}]
        if self.rng.random() < 0.3:
            earlier, reply = self.corpus.exchange()
            messages = [{"role": "user", "content": earlier}, {"role": "assistant", "content": reply}, *messages]
        if self.rng.random() < 0.4:
            messages.insert(0, {"role": "system", "content": _SYSTEM})
        return messages

    def _body(self, question: str, **more) -> dict:
        body = {"model": self.rng.choice(MODELS), "messages": self._messages(question)}
        if self.rng.random() < 0.5:
            body["max_tokens"] = self.rng.choice([64, 256, 800, 1024])
        if self.rng.random() < 0.3:
            body["temperature"] = self.rng.choice([0, 0.1, 0.7])
        return body | more

    def plain(self) -> Call:
        question, answer = self.corpus.exchange()
        return self._call("plain", self._body(question, mock_response=answer))

    def reported_usage(self) -> Call:
        """A mock answer with usage figures of its own, as a provider reports them."""
        question, answer = self.corpus.exchange()
        prompt, completion = self.rng.randrange(12, 4000), self.rng.randrange(3, 900)
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        if self.rng.random() < 0.3:
            usage["prompt_tokens_details"] = {"cached_tokens": prompt // 2}
        message = {"role": "assistant", "content": answer}
        return self._call(
            "reported_usage", self._body(question, mock_response=self._completion(message, "stop", usage))
        )

    def _completion(self, message: dict, finish: str, usage: dict) -> dict:
        return {
            "id": f"chatcmpl-{self._uuid()}",
            "object": "chat.completion",
            "choices": [{"index": 0, "finish_reason": finish, "message": message}],
            "usage": usage,
        }

    def stream(self) -> Call:
        question, answer = self.corpus.exchange()
        if self.rng.random() < 0.15:
            answer += " " + self.corpus.output_finding()
        return self._call("stream", self._body(question, mock_response=answer, stream=True) | {"max_tokens": 400})

    def masked_input(self) -> Call:
        question, answer = self.corpus.exchange()
        for _ in range(self.rng.choice([1, 1, 1, 2, 3])):
            question += " " + self.corpus.finding()
        return self._call("masked_input", self._body(question, mock_response=answer))

    def masked_output(self) -> Call:
        question, answer = self.corpus.exchange()
        return self._call(
            "masked_output", self._body(question, mock_response=f"{answer} {self.corpus.output_finding()}")
        )

    def _arguments(self) -> tuple[str, dict]:
        title, _ = self.corpus.exchange()
        return self.rng.choice([
            ("lookup_policy", {"policy": f"P-{self.rng.randrange(1000, 9999)}"}),
            ("exchange_rate", {"base": self.rng.choice(["EUR", "USD", "JOD"]), "quote": self.rng.choice(["JPY", "PLN", "GBP"])}),
            ("open_ticket", {"title": title, "team": self.rng.choice(["claims", "法務", "الدعم"])}),
        ])  # fmt: skip

    def _tool_call(self, name: str, arguments: dict) -> dict:
        text = json.dumps(arguments, ensure_ascii=False)
        return {
            "id": f"call_{self.rng.getrandbits(64):016x}",
            "type": "function",
            "function": {"name": name, "arguments": text},
        }

    def tool_call(self) -> Call:
        question, _ = self.corpus.exchange()
        calls = [self._tool_call(*self._arguments()) for _ in range(self.rng.choice([1, 1, 1, 2]))]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
        prompt, completion = self.rng.randrange(90, 900), self.rng.randrange(15, 90)
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        answer = self._completion(message, "tool_calls", usage)
        return self._call("tool_call", self._body(question, tools=TOOLS, mock_response=answer))

    def tool_result(self) -> Call:
        """The turn after a tool call: its result goes in, an answer comes out."""
        question, answer = self.corpus.exchange()
        call = self._tool_call(*self._arguments())
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": self.corpus.exchange()[1]},
        ]
        return self._call(
            "tool_result",
            {"model": self.rng.choice(MODELS), "messages": messages, "tools": TOOLS, "mock_response": answer},
        )

    def denied_tool(self) -> Call:
        question, _ = self.corpus.exchange()
        call = self._tool_call(
            "payments_transfer", {"iban": "DE89370400440532013000", "amount": f"{self.rng.randrange(10, 900)}.00"}
        )
        body = self._body(question, tools=[PAYMENT_TOOL], mock_tool_calls=[call], mock_response="…")
        return self._call("denied_tool", body, expect={400})

    def mcp_tool(self) -> Call:
        name, arguments = self._arguments()
        return self._call(
            "mcp_tool", {"server_id": "claims_db", "name": name, "arguments": arguments}, "/mcp-rest/tools/call"
        )

    def mcp_failure(self) -> Call:
        arguments = {"claim": f"C-{self.rng.randrange(10_000, 99_999)}"}
        body = {"server_id": "claims_db", "name": "archive_claim", "arguments": arguments}
        return self._call("mcp_failure", body, "/mcp-rest/tools/call")

    def blocked(self) -> Call:
        body = self._body(self.corpus.blocked(), mock_response="never sent", stream=self.rng.random() < 0.2)
        return self._call("blocked", body, expect={400})

    def flagged(self) -> Call:
        return self._call("flagged", self._body(self.corpus.flagged(), mock_response=self.corpus.exchange()[1]))

    def held(self) -> Call:
        return self._call("held", self._body(self.corpus.held(), mock_response="never sent"), expect={403})

    def provider_failure(self) -> Call:
        mock, code = self.rng.choice([
            ("litellm.RateLimitError", 429), ("litellm.ContextWindowExceededError", 400),
            ("litellm.InternalServerError", 500), ("Exception: content_filter_policy", 400),
        ])  # fmt: skip
        body = self._body(self.corpus.exchange()[0], mock_response=mock)
        # mistral-large has a fallback, which would answer with the same mock error.
        body["model"] = self.rng.choice([model for model in MODELS if model != "mistral-large"])
        return self._call("provider_failure", body, expect={code})

    def timeout(self) -> Call:
        body = self._body(self.corpus.exchange()[0], mock_timeout=True, timeout=0.02)
        body["model"] = self.rng.choice(["gpt-4o", "gpt-4o-mini", "deepseek-chat"])
        return self._call("timeout", body, expect={408})

    def broken_stream(self) -> Call:
        body = self._body(self.corpus.exchange()[0], mock_response="Exception: mock_streaming_error", stream=True)
        body["model"] = self.rng.choice(["gpt-4o", "gpt-4o-mini"])
        return self._call("broken_stream", body, expect={200, 529})

    def fallback(self) -> Call:
        question, answer = self.corpus.exchange()
        body = self._body(question, mock_response=answer, mock_testing_fallbacks=True) | {"model": "mistral-large"}
        return self._call("fallback", body)

    def embedding(self) -> Call:
        vector = [round(self.rng.uniform(-1, 1), 7) for _ in range(8)]
        texts = [self.corpus.exchange()[0] for _ in range(self.rng.choice([1, 2, 4]))]
        return self._call(
            "embedding", {"model": "embed-small", "input": texts, "mock_response": vector}, "/v1/embeddings"
        )

    def responses_api(self) -> Call:
        question, answer = self.corpus.exchange()
        body = {"model": self.rng.choice(["gpt-4o", "gpt-4o-mini"]), "input": question, "mock_response": answer}
        return self._call("responses_api", body, "/v1/responses")

    def document(self) -> Call:
        question = self.corpus.document(self.rng.choice([1500, 3000, 6000, 9000]))
        answer = self.corpus.document(self.rng.choice([300, 2500]))
        return self._call("document", self._body(question, mock_response=answer, stream=self.rng.random() < 0.3))

    def unknown_key(self) -> Call:
        body = self._body(self.corpus.exchange()[0], mock_response="never sent")
        return self._call("unknown_key", body, key=f"sk-demo-stranger-{self.rng.randrange(9)}", expect={401})

    def small_budget(self) -> Call:
        """Answered while the budget lasts, refused after."""
        body = self._body("Review this diff, please.", mock_response="LGTM ✅")
        return self._call(
            "small_budget", body | {"model": "gpt-4o", "max_tokens": 16}, caller=SMALL_BUDGET, expect={200, 422, 429}
        )

    def build(self, total: int) -> list[Call]:
        """`total` calls in a fixed mixture; the counts are exact, the order is drawn."""
        shares: list[tuple[Callable[[], Call], float]] = [
            (self.plain, 0.235), (self.reported_usage, 0.13), (self.stream, 0.17), (self.masked_input, 0.09),
            (self.masked_output, 0.03), (self.tool_call, 0.06), (self.tool_result, 0.03), (self.denied_tool, 0.012),
            (self.mcp_tool, 0.045), (self.mcp_failure, 0.005), (self.blocked, 0.04), (self.flagged, 0.022),
            (self.held, 0.012), (self.provider_failure, 0.03), (self.timeout, 0.006), (self.broken_stream, 0.008),
            (self.fallback, 0.01), (self.embedding, 0.02), (self.responses_api, 0.015), (self.document, 0.012),
            (self.unknown_key, 0.008), (self.small_budget, 0.01),
        ]  # fmt: skip
        makers: list[Callable[[], Call]] = []
        for maker, share in shares:
            makers += [maker] * max(1, round(total * share))
        self.rng.shuffle(makers)
        return [maker() for maker in makers]
