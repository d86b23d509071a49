//! The mark of admin checkpoints, against a real token: over restarts, crashes and damage.

// Tests may stop at the first surprise; the lint's own setting covers test functions alone.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::PathBuf;

use common::{INSTANCE, MODULE, Token, binding, checkpoint, generate, item, ready, token_with_key, trail, verify};
use countersign_faulty_transcript::{
    Action, ENV_DIR, ENV_MODULE, Function, Rule, Transcript, Which, calls, find_library, write_control,
};
use countersign_hsm::{HsmError, KeyBinding, Mark, Marked, Pool, Reason, RecoveryProof, SignItem};
use countersign_trail::hash::Hash;
use countersign_trail::keys::Algorithm;
use countersign_trail::signing::Purpose;

/// A token with a mark and the key of an admin trail.
async fn admin_token() -> (Token, KeyBinding) {
    let token = Token::new();
    let pool = token.start(Vec::new());
    ready(&pool).await;
    pool.create_mark().await.unwrap();
    let key = generate(&pool, "admin-checkpoint", Algorithm::Ed25519).await;
    pool.finalize_key(&key.cka_id, INSTANCE, "admin-checkpoint").await.unwrap();
    pool.shutdown().await;
    (token, KeyBinding { purpose: Purpose::AdminCheckpoint, ..binding(&key) })
}

fn file(token: &Token) -> PathBuf {
    token.path("state").join(format!("{}.mark", token.serial))
}

fn marked() -> Marked {
    Marked::checkpoints(&trail())
}

fn mark(size: u64, variant: u8) -> Mark {
    Mark { of: marked(), size, input: Hash::of(&checkpoint(size, variant)) }
}

async fn sign(pool: &Pool, key: &KeyBinding, size: u64, variant: u8) -> Result<Vec<u8>, HsmError> {
    let message = checkpoint(size, variant);
    let signature = pool.sign(vec![item(key.kid, message.clone())]).await?.remove(0);
    verify(key, &message, &signature);
    Ok(signature.to_vec())
}

fn reason<T: std::fmt::Debug>(result: Result<T, HsmError>) -> Reason {
    result.unwrap_err().reason()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_checkpoint_takes_one_input_over_restarts_of_the_workers() {
    let (token, key) = admin_token().await;
    let pool = token.start(vec![key.clone()]);
    ready(&pool).await;
    assert_eq!(pool.mark(&marked()).await.unwrap(), None, "a probe is no checkpoint");
    for size in [1, 2] {
        sign(&pool, &key, size, 1).await.unwrap();
    }
    let third = sign(&pool, &key, 3, 1).await.unwrap();
    let mac = pool.mac([7; 32]).await.unwrap();
    pool.shutdown().await;

    // New workers, whose guards know nothing; sizes 2 and 3 are of different ones.
    let pool = token.start(vec![key.clone()]);
    ready(&pool).await;
    assert_eq!(pool.mark(&marked()).await.unwrap(), Some(mark(3, 1)));
    assert_eq!(reason(sign(&pool, &key, 3, 2).await), Reason::PositionConflict);
    pool.shutdown().await;
    let pool = token.start(vec![key.clone()]);
    ready(&pool).await;
    assert_eq!(sign(&pool, &key, 3, 1).await.unwrap(), third, "what a crash interrupted is signed again");
    // Nothing below it, in whatever name.
    for variant in [1, 2] {
        assert_eq!(reason(sign(&pool, &key, 2, variant).await), Reason::PositionStale);
        let recovery = Some(RecoveryProof { digest: [7; 32], mac });
        let recovered = SignItem { kid: key.kid, message: checkpoint(1, variant).into(), recovery };
        assert_eq!(reason(pool.sign(vec![recovered]).await), Reason::PositionStale);
    }
    assert_eq!(pool.mark(&marked()).await.unwrap(), Some(mark(3, 1)), "a refusal moves nothing");
    sign(&pool, &key, 4, 2).await.unwrap();
    assert_eq!(pool.mark(&marked()).await.unwrap(), Some(mark(4, 2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_authentic_mark_no_admin_checkpoint_is_signed() {
    let (token, key) = admin_token().await;
    let pool = token.start(vec![key.clone()]);
    ready(&pool).await;
    sign(&pool, &key, 1, 1).await.unwrap();
    let genuine = std::fs::read(file(&token)).unwrap();
    let forged = String::from_utf8(genuine.clone()).unwrap().replace("\"size\":1", "\"size\":0").into_bytes();
    for harm in [Some(forged), Some(Vec::new()), None] {
        match &harm {
            Some(bytes) => std::fs::write(file(&token), bytes).unwrap(),
            None => std::fs::remove_file(file(&token)).unwrap(),
        }
        assert_eq!(reason(sign(&pool, &key, 2, 1).await), Reason::MarkState);
        assert_eq!(reason(pool.mark(&marked()).await), Reason::MarkState);
        assert_eq!(reason(pool.create_mark().await), Reason::HsmRejected, "not while the token has keys");
        pool.probe().await.unwrap();
    }
    // An operator's word heals it, and never moves it back.
    pool.confirm_mark(mark(1, 1)).await.unwrap();
    assert_eq!(std::fs::read(file(&token)).unwrap(), genuine);
    sign(&pool, &key, 2, 1).await.unwrap();
    assert_eq!(reason(pool.confirm_mark(mark(1, 1)).await), Reason::PositionStale);
    assert_eq!(reason(pool.confirm_mark(mark(2, 2)).await), Reason::PositionConflict);
    assert_eq!(pool.mark(&marked()).await.unwrap(), Some(mark(2, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mark_is_there_before_the_token_is_asked() {
    let (token, key) = admin_token().await;
    let faults = token.path("faults");
    std::fs::create_dir(&faults).unwrap();
    let mut spec = token.spec(vec![key.clone()]);
    spec.token.module = find_library().unwrap();
    spec.token.workers = 1;
    spec.token.sessions_per_worker = 1;
    spec.command.envs.push((ENV_MODULE.into(), MODULE.into()));
    spec.command.envs.push((ENV_DIR.into(), faults.clone().into()));
    let pool = Pool::start(spec).unwrap();
    ready(&pool).await;
    // The worker dies in the very call that would sign.
    let next = calls(&faults, Function::C_Sign).unwrap() + 1;
    let rule = Rule { function: Function::C_Sign, which: Which::Only(next), action: Action::Abort };
    write_control(&faults, &[rule]).unwrap();
    assert_eq!(reason(sign(&pool, &key, 1, 1).await), Reason::HsmUnavailable);
    ready(&pool).await;
    assert_eq!(pool.mark(&marked()).await.unwrap(), Some(mark(1, 1)));
    assert_eq!(reason(sign(&pool, &key, 1, 2).await), Reason::PositionConflict);
    sign(&pool, &key, 1, 1).await.unwrap();
    let inputs = |variant| {
        let transcript = Transcript::read(&faults).unwrap();
        transcript.asked().filter(|asked| asked.input == checkpoint(1, variant)).count()
    };
    assert_eq!((inputs(1), inputs(2)), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn trails_of_gateways_have_no_mark() {
    let (token, key) = token_with_key(Algorithm::Ed25519).await;
    let pool = token.start(vec![key.clone()]);
    ready(&pool).await;
    sign(&pool, &key, 1, 1).await.unwrap();
    assert!(!file(&token).exists());
}
