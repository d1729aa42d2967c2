//! Turns proto/ into Rust: protox parses (no protoc to install), connectrpc-build writes messages and service traits.

use std::error::Error;
use std::path::PathBuf;

use buffa_codegen::BytesRepr;
use connectrpc_build::{CodeGenConfig, Config};

const INCLUDE: &str = "proto";
const FILES: [&str; 2] = ["process/process.proto", "filesystem/filesystem.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={INCLUDE}");
    println!("cargo:rerun-if-changed=build.rs");

    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let descriptors = out_dir.join("descriptors.bin");
    let mut compiler = protox::Compiler::new([INCLUDE])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    std::fs::write(&descriptors, compiler.encode_file_descriptor_set())?;

    // The directives above say it all; the generator's own would watch a file this script writes.
    Config::new()
        .buffa_config(messages())
        .files(&FILES)
        .descriptor_set(descriptors)
        .emit_rerun_directives(false)
        .gate_client_feature(true)
        .include_file("_connectrpc.rs")
        .compile()?;
    Ok(())
}

fn messages() -> CodeGenConfig {
    let mut config = CodeGenConfig::default();
    config.generate_json = true;
    config.preserve_unknown_fields = false;
    // Output of a process is passed on, not copied.
    config.bytes_fields = vec![(".".into(), BytesRepr::Bytes)];
    config.unboxed_oneof_fields = vec![".process".into()];
    config.emit_register_fn = false;
    config
}
