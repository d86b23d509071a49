//! Compiles the interface definitions with protox: no protoc is needed.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["countersign/v1/event.proto", "countersign/v1/signing.proto", "countersign/v1/audit.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("countersign.v1.bin"), prost::Message::encode_to_vec(&descriptors))?;
    std::fs::write(out.join("shapes.rs"), shapes(&descriptors))?;
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    // `bytes::Bytes` for what is copied between store and wire: records, proofs and contents.
    tonic_prost_build::configure()
        .bytes(".countersign.v1")
        .codec_path("crate::codec::BoundedCodec")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

/// The table that the codec reads messages by: each message's name, and its fields that are messages or
/// lists of numbers.
fn shapes(descriptors: &FileDescriptorSet) -> String {
    let mut messages = Vec::new();
    for file in &descriptors.file {
        file.message_type.iter().for_each(|message| flatten(file.package(), message, &mut messages));
    }
    let place = |name: &str| messages.iter().position(|(full, _)| name.strip_prefix('.') == Some(full));
    let mut table = format!("static SHAPES: [(&str, Fields); {}] = [\n", messages.len());
    for (full, message) in &messages {
        let fields: Vec<String> = message
            .field
            .iter()
            .filter_map(|field| {
                let packed = field.label() == Label::Repeated && matches!(field.r#type(), Type::Uint64 | Type::Uint32);
                let inner = place(field.type_name()).map(|place| format!("Inner::Message({place})"));
                let inner = inner.or(packed.then(|| "Inner::Numbers".to_owned()))?;
                Some(format!("({}, {inner})", field.number()))
            })
            .collect();
        let name = full.strip_prefix("countersign.v1.").unwrap_or(full);
        table.push_str(&format!("    ({name:?}, &[{}]),\n", fields.join(", ")));
    }
    table.push_str("];\n");
    table
}

/// A message and those defined in it (entries of maps), by full name.
fn flatten<'d>(before: &str, message: &'d DescriptorProto, all: &mut Vec<(String, &'d DescriptorProto)>) {
    let name = format!("{before}.{}", message.name());
    message.nested_type.iter().for_each(|nested| flatten(&name, nested, all));
    all.push((name, message));
}
