"""The demonstration callers of the captured gateway: none of them, nor their keys, is real."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Caller:
    """One gateway key: a person (or service) of a team, calling through one application."""

    user_id: str
    email: str
    role: str
    team_id: str
    team_alias: str
    org_id: str
    agent: str
    agent_version: str
    # USD; with a budget set, LiteLLM counts prompt tokens itself also for mock responses.
    max_budget: float = 500.0

    @property
    def key(self) -> str:
        """The demonstration bearer key, made from the user id."""
        return f"sk-demo-{self.user_id}"


_CLAIMS = ("team-claims", "Claims Handling", "org-northwind")
_SINISTRES = ("team-sinistres", "Équipe Sinistres", "org-northwind")
_LEGAL = ("team-legal", "Recht & Verträge", "org-northwind")
_FRAUD = ("team-fraud", "فريق مكافحة الاحتيال", "org-levant")
_PLATFORM = ("team-platform", "Platform Engineering", "org-northwind")
_SUPPORT_JP = ("team-support-jp", "顧客サポート", "org-higashi")
_CLINIC = ("team-clinic", "מרפאה — רישום", "org-levant")
_RESEARCH = ("team-research", "Отдел исследований", "org-higashi")

_PEOPLE = [
    Caller("amira.haddad", "amira.haddad@example.org", "analyst", *_FRAUD, "fraud-triage", "1.8.0"),
    Caller("yusuf.demir", "yusuf.demir@example.org", "analyst", *_FRAUD, "fraud-triage", "1.8.0"),
    Caller("svc-fraud-batch", "fraud-batch@example.org", "service", *_FRAUD, "fraud-batch", "0.12.4"),
    Caller("helen.osei", "helen.osei@example.com", "adjuster", *_CLAIMS, "claims-assistant", "3.2.1"),
    Caller("rob.macleod", "rob.macleod@example.com", "adjuster", *_CLAIMS, "claims-assistant", "3.2.1"),
    Caller("chloe.lefevre", "chloe.lefevre@example.com", "adjuster", *_SINISTRES, "claims-assistant", "3.1.7"),
    Caller("jonas.weiss", "jonas.weiss@example.com", "counsel", *_LEGAL, "contract-review", "2.0.3"),
    Caller("zofia.nowak", "zofia.nowak@example.com", "counsel", *_LEGAL, "contract-review", "2.0.3"),
    Caller("svc-ci", "ci@example.com", "service", *_PLATFORM, "code-review-bot", "5.14.0"),
    Caller("priya.raman", "priya.raman@example.com", "engineer", *_PLATFORM, "code-review-bot", "5.14.0"),
    Caller("sato.haruka", "sato.haruka@example.net", "agent", *_SUPPORT_JP, "support-desk", "4.0.0-rc.2"),
    Caller("kim.minjun", "kim.minjun@example.net", "agent", *_SUPPORT_JP, "support-desk", "4.0.0-rc.2"),
    Caller("noa.levi", "noa.levi@example.org", "clinician", *_CLINIC, "clinic-notes", "1.1.9"),
    Caller("pavel.orlov", "pavel.orlov@example.net", "researcher", *_RESEARCH, "paper-search", "0.9.2"),
    Caller("nguyen.thuy", "nguyen.thuy@example.net", "researcher", *_RESEARCH, "paper-search", "0.9.2"),
]

# A key with a budget of a tenth of a cent: LiteLLM soon refuses its calls.
SMALL_BUDGET = Caller(
    "temp.contractor", "temp.contractor@example.com", "contractor", *_PLATFORM,
    "code-review-bot", "5.13.2", max_budget=0.001,
)  # fmt: skip

PEOPLE = tuple(_PEOPLE)
CALLERS = {caller.key: caller for caller in (*_PEOPLE, SMALL_BUDGET)}
