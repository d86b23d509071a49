"""What the captured LiteLLM proxy loads: users and teams, one guardrail, and the payload logger.

Everything here plugs into hooks that LiteLLM documents (`custom_auth`, `guardrails`, `callbacks`).
The logger writes LiteLLM's own StandardLoggingPayload, one JSON object a line, in the order in
which LiteLLM finished its calls. It adds nothing; what it takes away is listed in `scrub`.
"""

import json
import os
import re
import time

from fastapi import HTTPException
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.types.guardrails import GuardrailEventHooks

from people import CALLERS

OUTPUT_PATH = os.environ["CAPTURE_OUTPUT"]


async def user_api_key_auth(request, api_key: str) -> UserAPIKeyAuth:
    """Resolves a demonstration key to its user, team and organisation, or refuses it."""
    caller = CALLERS.get(api_key)
    if caller is None:
        raise ProxyException(
            message="Authentication Error: the key is not known to this gateway",
            type="auth_error",
            param="api_key",
            code=401,
        )
    return UserAPIKeyAuth(
        api_key=api_key,
        key_alias=caller.agent,
        user_id=caller.user_id,
        user_email=caller.email,
        team_id=caller.team_id,
        team_alias=caller.team_alias,
        org_id=caller.org_id,
        max_budget=caller.max_budget,
        metadata={"allow_client_mock_response": True, "role": caller.role},
    )


class HumanReviewGuardrail(CustomGuardrail):
    """Flags what a person should look at, and holds what a person must release first."""

    FLAG = re.compile(r"legal threat|Rechtsanwalt|avocat|محامٍ|律师|adwokat", re.IGNORECASE)
    HOLD = re.compile(r"life insurance payout above|Auszahlung über|versement supérieur à|高額支払", re.IGNORECASE)

    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        start = time.time()
        text = "\n".join(
            message["content"]
            for message in data.get("messages") or []
            if isinstance(message, dict) and isinstance(message.get("content"), str)
        )
        held, flagged = self.HOLD.search(text), self.FLAG.search(text)
        if not (held or flagged):
            self._record(data, "success", "NONE", [], start)
            return data
        if held:
            self._record(data, "guardrail_intervened", "ESCALATE", ["large_payout"], start)
            raise HTTPException(
                status_code=403,
                detail={"error": "Held for human review: large_payout", "guardrail": self.guardrail_name},
            )
        self._record(data, "guardrail_flagged", "FLAG", ["legal_dispute"], start)
        return data

    def _record(self, data, status, action, categories, start):
        end = time.time()
        self.add_standard_logging_guardrail_information_to_request_data(
            guardrail_provider="human-review",
            guardrail_json_response={"action": action, "categories": categories},
            request_data=data,
            guardrail_status=status,
            start_time=start,
            end_time=end,
            duration=end - start,
            event_type=GuardrailEventHooks.pre_call,
            tracing_detail={"guardrail_action": action, "violation_categories": categories},
        )


# What the logger takes out of a payload, by its place: nothing here is used by the mapping.
DROPPED = {
    # Bulk: LiteLLM's own price table, deployment hashes, copies of figures that stand elsewhere.
    "": {
        "model_map_information",
        "hidden_params",
        "cost_breakdown",
        "standard_built_in_tools_params",
        "model_id",
        "request_tags",
        "completionStartTime",
        "requester_ip_address",
        "user_agent",
        "request_model_access_groups",
    },
    # The caller's address and headers (loopback here), the hash of the key, the tool server's address.
    "metadata": {
        "user_api_key_hash",
        "requester_ip_address",
        "requester_metadata",
        "requester_custom_headers",
        "usage_object",
        "applied_guardrails",
        "user_api_key_spend",
        "user_api_key_max_budget",
        "used_client_oauth_token",
    },
    "mcp_tool_call_metadata": {"mcp_server_resource"},
    # File names of the machine that ran the capture.
    "error_information": {"traceback"},
    "guardrail_information": {
        "start_time",
        "end_time",
        "duration",
        "match_details",
        "patterns_checked",
        "guardrail_id",
        "risk_score",
    },
}
# Content stands exactly as LiteLLM reports it, nulls included.
UNTOUCHED = {"messages", "response", "model_parameters", "arguments", "guardrail_response"}
KEY_HASH = re.compile(r"\b[0-9a-f]{64}\b")


def scrub(value, place=""):
    """A payload without `DROPPED` fields, nulls, empty strings and containers, and key hashes."""
    if isinstance(value, dict):
        kept = {}
        for name, inner in value.items():
            if name in DROPPED.get(place, ()):
                continue
            if name == "guardrail_response" and isinstance(inner, dict) and "choices" in inner:
                continue  # a post-call guardrail repeats the whole answer of the model
            inner = inner if name in UNTOUCHED else scrub(inner, name)
            if inner is not None and inner != "" and inner != {} and inner != []:
                kept[name] = inner
        return kept
    if isinstance(value, list):
        return [scrub(inner, place) for inner in value]
    return KEY_HASH.sub("(key hash)", value) if isinstance(value, str) else value


class PayloadLogger(CustomLogger):
    """Appends each StandardLoggingPayload to the capture file."""

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self._append(kwargs)

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self._append(kwargs)

    def _append(self, kwargs):
        payload = kwargs.get("standard_logging_object")
        if payload is None:
            raise RuntimeError("LiteLLM reported a call without a standard_logging_object")
        line = json.dumps(scrub(payload), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        with open(OUTPUT_PATH, "a", encoding="utf-8") as out:
            out.write(line + "\n")


payload_logger = PayloadLogger()
