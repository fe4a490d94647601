//! Generates the wire types from `proto/`, without protoc.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // tonic-prost-build's own switch for this has no effect.
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true);
    for service in ["sync", "conflict", "policy", "queue", "space"] {
        compiler.open_file(format!("syncline/v1/{service}_service.proto"))?;
    }
    std::fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;
    let files = compiler.file_descriptor_set();

    // Messages and the client; then the server, whose large answers are bytes
    // that were encoded once for everybody.
    tonic_prost_build::configure()
        .bytes(".")
        // Much larger than the other frames.
        .boxed(".syncline.v1.SubscribeResponse.frame.conflict")
        .boxed(".syncline.v1.WatchResponse.frame.conflict")
        .build_server(false)
        .compile_fds(files.clone())?;
    let server = out.join("server");
    std::fs::create_dir_all(&server)?;
    tonic_prost_build::configure()
        .build_client(false)
        .out_dir(server)
        .codec_path("crate::rpc::codec::LeanCodec")
        .extern_path(".syncline.v1", "crate::rpc::proto")
        .extern_path(".syncline.v1.SubscribeResponse", "crate::rpc::encoded::Encoded")
        .extern_path(".syncline.v1.WatchResponse", "crate::rpc::encoded::Encoded")
        .extern_path(".syncline.v1.ChangesSinceResponse", "crate::rpc::encoded::Encoded")
        .extern_path(".syncline.v1.ExchangeResponse", "crate::rpc::encoded::Encoded")
        .extern_path(".syncline.v1.SnapshotResponse", "crate::rpc::encoded::Encoded")
        .extern_path(".syncline.v1.ListRecordsResponse", "crate::rpc::encoded::Encoded")
        .extern_path(".syncline.v1.ListQueuedResponse", "crate::rpc::encoded::Encoded")
        .extern_path(".syncline.v1.ListConflictsResponse", "crate::rpc::encoded::Encoded")
        .extern_path(".syncline.v1.ListRecordHistoryResponse", "crate::rpc::encoded::Encoded")
        .extern_path(".syncline.v1.ListAuditEntriesResponse", "crate::rpc::encoded::Encoded")
        .compile_fds(files)?;
    Ok(())
}
