//! Compiles the interface definitions with protox: no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["countersign/v1/event.proto", "countersign/v1/signing.proto", "countersign/v1/audit.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("countersign.v1.bin"), prost::Message::encode_to_vec(&descriptors))?;
    // `bytes::Bytes` for what is copied between store and wire: records, proofs and contents.
    tonic_prost_build::configure().bytes(".countersign.v1").compile_fds(descriptors)?;
    Ok(())
}
