//! Makes an extractable Ed25519 key pair, for the test that such a key is refused.
//!
//! Arguments: module, token label, PIN (of a test token), CKA_ID as text. Prints CKA_EC_POINT in
//! hex. `SOFTHSM2_CONF` is taken from the environment.

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [module, label, pin, id] = args.as_slice() else {
        return Err("want: module, token label, PIN, CKA_ID".into());
    };
    let module = Pkcs11::new(module)?;
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
    let mut slot = None;
    for candidate in module.get_slots_with_initialized_token()? {
        if module.get_token_info(candidate)?.label() == label {
            slot = Some(candidate);
        }
    }
    let session = module.open_rw_session(slot.ok_or("no such token")?)?;
    session.login(UserType::User, Some(&AuthPin::from(pin.as_str())))?;
    let id = Attribute::Id(id.as_bytes().to_vec());
    let ed25519 = Attribute::EcParams(vec![0x06, 0x03, 0x2b, 0x65, 0x70]);
    let public = [Attribute::Token(true), Attribute::Verify(true), ed25519, id.clone()];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::Sign(true),
        id,
    ];
    let (public, _) = session.generate_key_pair(&Mechanism::EccEdwardsKeyPairGen, &public, &private)?;
    for value in session.get_attributes(public, &[AttributeType::EcPoint])? {
        if let Attribute::EcPoint(point) = value {
            println!("{}", point.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
    }
    Ok(())
}
