//! Readiness for operators, and what anyone may read over HTTPS.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_hsm::PoolState;
use countersign_proto::v1::audit_service_server::AuditServiceServer;
use countersign_proto::v1::signing_service_server::SigningServiceServer;
use countersign_trail::document::TokenRole;
use countersign_trail::evidence::{KeyFiles, derive_key_files};
use countersign_trail::jcs;
use countersign_trail::origin::Origin;
use serde_json::json;
use tonic_health::server::HealthReporter;

use super::audit::Audit;
use super::signing::Signing;
use super::submit::read_refusal;
use crate::appliance::Appliance;
use crate::http::{Published, Readiness};
use crate::metrics::HsmState;
use crate::reason::{Reason, Refusal};

/// Whether the daemon can sign, from the workers' own probe signatures.
pub struct Health {
    appliance: Arc<Appliance>,
}

impl Health {
    /// Over the running appliance.
    pub fn new(appliance: Arc<Appliance>) -> Health {
        Health { appliance }
    }

    /// Keeps gRPC health and the tokens' metrics current for as long as its task runs.
    pub async fn report(self: Arc<Self>, reporter: HealthReporter, every: Duration) {
        let mut told = None;
        loop {
            let ready = self.readiness().is_ok();
            if told != Some(ready) {
                if ready {
                    reporter.set_serving::<SigningServiceServer<Signing>>().await;
                } else {
                    reporter.set_not_serving::<SigningServiceServer<Signing>>().await;
                }
                // Reading needs no HSM.
                reporter.set_serving::<AuditServiceServer<Audit>>().await;
                told = Some(ready);
            }
            let tokens =
                [(TokenRole::Record, &self.appliance.record_token), (TokenRole::Admin, &self.appliance.admin_token)];
            for (role, token) in tokens {
                self.appliance.metrics.hsm_state(role, hsm_state(&token.pool().state().borrow()));
            }
            self.appliance.metrics.in_flight(self.appliance.admission.in_flight());
            tokio::time::sleep(every).await;
        }
    }
}

fn hsm_state(state: &PoolState) -> HsmState {
    match state {
        PoolState::Ready => HsmState::Ready,
        PoolState::Starting => HsmState::Starting,
        PoolState::Degraded { .. } => HsmState::Degraded,
        PoolState::Down { .. } => HsmState::Down,
    }
}

impl Readiness for Health {
    fn readiness(&self) -> Result<(), Refusal> {
        let Appliance { record_token, admin_token, clock, trails, .. } = &*self.appliance;
        let tokens = [("record", record_token.trouble()), ("admin", admin_token.trouble())];
        let stopped = trails.iter().map(|(origin, trail)| (origin, trail.now().stopped));
        ready(tokens, clock.stopped(), stopped)
    }
}

/// Whether both tokens sign, the clock is trusted and no trail is stopped.
fn ready<'a>(
    tokens: [(&str, Option<Reason>); 2],
    clock: Option<Reason>,
    trails: impl IntoIterator<Item = (&'a Origin, Option<Reason>)>,
) -> Result<(), Refusal> {
    for (name, trouble) in tokens {
        if let Some(reason) = trouble {
            return Err(Refusal::new(reason, format_args!("the {name} token cannot sign")));
        }
    }
    if let Some(reason) = clock {
        return Err(Refusal::from(reason));
    }
    match trails.into_iter().find_map(|(origin, stopped)| Some((origin, stopped?))) {
        Some((origin, reason)) => Err(Refusal::new(reason, format_args!("{origin} is stopped"))),
        None => Ok(()),
    }
}

/// The public, read-only view.
pub struct Public {
    appliance: Arc<Appliance>,
}

impl Public {
    /// Over the running appliance.
    pub fn new(appliance: Arc<Appliance>) -> Public {
        Public { appliance }
    }

    fn key_files(&self) -> Result<KeyFiles, Refusal> {
        derive_key_files(&self.appliance.admin).map_err(|error| Refusal::new(Reason::Internal, error))
    }
}

impl Published for Public {
    async fn keys(&self) -> Result<Bytes, Refusal> {
        Ok(self.key_files()?.key_file.into())
    }

    async fn jwks(&self) -> Result<Bytes, Refusal> {
        Ok(self.key_files()?.jwks.into())
    }

    async fn trails(&self) -> Result<Bytes, Refusal> {
        let trail = |trail: &crate::sequencer::TrailHandle| {
            let facts = trail.facts();
            json!({"mode": facts.mode.word(), "origin": facts.origin})
        };
        let trails: Vec<_> = self.appliance.trails.values().map(trail).collect();
        let bytes = jcs::to_canonical(&json!({"genesis": self.appliance.genesis, "trails": trails}));
        Ok(bytes.map_err(|error| Refusal::new(Reason::Internal, error))?.into())
    }

    async fn checkpoint(&self, origin: &Origin) -> Result<Bytes, Refusal> {
        let trail = self.appliance.trail(origin.as_str())?;
        let no = trail.facts().no;
        let newest = self.appliance.store.reader().run(move |snapshot| snapshot.newest_checkpoint(no)).await;
        let newest = newest.map_err(|error| read_refusal(&error))?;
        newest.map(|note| note.note).ok_or_else(|| Refusal::from(Reason::NotFound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_that_stops_signing_makes_the_daemon_unready() {
        let origins = ["acme.example/a", "acme.example/b"].map(|name| Origin::parse(name).unwrap());
        let why = |admin, clock, last| {
            let trails = origins.iter().zip([None, last]);
            ready([("record", None), ("admin", admin)], clock, trails).map_err(|refusal| refusal.reason())
        };
        assert_eq!(why(None, None, None), Ok(()));
        assert_eq!(why(Some(Reason::PinLatched), None, None), Err(Reason::PinLatched));
        assert_eq!(why(None, Some(Reason::ClockStep), None), Err(Reason::ClockStep));
        assert_eq!(why(None, None, Some(Reason::TrailLatched)), Err(Reason::TrailLatched));
    }
}
