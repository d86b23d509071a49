//! Category, decision and result of a call, from LiteLLM's status, its guardrails and its error.
//!
//! | LiteLLM says | category | decision | result |
//! |---|---|---|---|
//! | failure, a guardrail intervened with the action `ESCALATE` | escalation | escalate | escalated |
//! | failure, a guardrail intervened | block | block | blocked |
//! | failure, a budget was exceeded | cost | block | blocked |
//! | failure, 401 by the gateway itself | auth | block | blocked |
//! | failure, a rate limit of the gateway | block | block | blocked |
//! | any other failure | normal | allow, or none | failed |
//! | success, a guardrail flagged | escalation | escalate | delivered, or redacted |
//! | success, something was masked | redaction | redact | redacted |
//! | any other success | normal | allow, or none | delivered |
//!
//! "allow, or none": `allow` when guardrails ran and each of them answered.

use crate::MapError;
use crate::event::{Category, Decision, Outcome};
use crate::payload::{ErrorInformation, Guardrail, Payload, text};

/// A guardrail's action that holds a call for a person, in the configuration's own words.
const ESCALATE_ACTION: &str = "ESCALATE";

/// Decides by the table above, first row that fits.
///
/// # Errors
/// [`MapError::Status`] when LiteLLM's status is neither success nor failure.
pub fn decide(payload: &Payload<'_>) -> Result<(Category, Decision, Outcome), MapError> {
    match payload.status.as_str() {
        "success" => Ok(answered(payload.guardrails())),
        "failure" => Ok(refused_or_failed(payload)),
        other => Err(MapError::Status(other.chars().take(64).collect())),
    }
}

/// The guardrail that made the call something else than allowed, if one did.
#[must_use]
pub fn deciding(guardrails: &[Guardrail]) -> Option<&Guardrail> {
    let first = |test: fn(&Guardrail) -> bool| guardrails.iter().find(|guardrail| test(guardrail));
    first(|guardrail| guardrail.is("guardrail_intervened"))
        .or_else(|| first(|guardrail| guardrail.is("guardrail_flagged")))
        .or_else(|| first(Guardrail::masked))
}

fn answered(guardrails: &[Guardrail]) -> (Category, Decision, Outcome) {
    // An intervention in a call that was answered all the same is one that changed it.
    let redacted = guardrails.iter().any(|guardrail| guardrail.masked() || guardrail.is("guardrail_intervened"));
    if guardrails.iter().any(|guardrail| guardrail.is("guardrail_flagged")) {
        let outcome = if redacted { Outcome::Redacted } else { Outcome::Delivered };
        (Category::Escalation, Decision::Escalate, outcome)
    } else if redacted {
        (Category::Redaction, Decision::Redact, Outcome::Redacted)
    } else {
        (Category::Normal, undisturbed(guardrails), Outcome::Delivered)
    }
}

fn refused_or_failed(payload: &Payload<'_>) -> (Category, Decision, Outcome) {
    let guardrails = payload.guardrails();
    let mut intervened = guardrails.iter().filter(|guardrail| guardrail.is("guardrail_intervened")).peekable();
    if intervened.peek().is_some() {
        return if intervened.any(|guardrail| guardrail.guardrail_action.as_deref() == Some(ESCALATE_ACTION)) {
            (Category::Escalation, Decision::Escalate, Outcome::Escalated)
        } else {
            (Category::Block, Decision::Block, Outcome::Blocked)
        };
    }
    match payload.error_information.as_ref().and_then(gateway_refusal) {
        Some(category) => (category, Decision::Block, Outcome::Blocked),
        None => (Category::Normal, undisturbed(guardrails), Outcome::Failed),
    }
}

/// The category of a refusal by the gateway itself, `None` when it was no refusal.
fn gateway_refusal(error: &ErrorInformation) -> Option<Category> {
    let by_gateway = text(error.error_rate_limit_category.as_ref()).is_some_and(|by| by.starts_with("litellm_"));
    if text(error.error_rate_limit_type.as_ref()) == Some("budget") {
        Some(Category::Cost)
    } else if text(error.error_code.as_ref()) == Some("401") && text(error.llm_provider.as_ref()).is_none() {
        Some(Category::Auth)
    } else {
        by_gateway.then_some(Category::Block)
    }
}

fn undisturbed(guardrails: &[Guardrail]) -> Decision {
    let answered = |guardrail: &Guardrail| guardrail.is("success");
    if !guardrails.is_empty() && guardrails.iter().all(answered) { Decision::Allow } else { Decision::None }
}
