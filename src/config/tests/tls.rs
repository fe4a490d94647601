//! What may be in the clear, and where TLS finds its files.

use std::path::Path;
use std::time::Duration;

use super::{DATABASE, NAMES, World, secret};

fn line() -> String {
    format!("{DATABASE} {NAMES} --jwt-secret {}", secret())
}

#[test]
fn plaintext_stays_on_this_machine_unless_allowed() {
    let (world, line) = (World::new(), line());
    for listen in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        world.serve(&format!("{line} --listen {listen}"));
    }
    for listen in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
        let error = world.error(&format!("serve {line} --listen {listen}"));
        assert!(error.starts_with(&format!("--listen: `{listen}` is reachable")), "{error}");
        assert!(error.contains("give --tls-cert and --tls-key, or put a proxy"), "{error}");
        world.serve(&format!("{line} --listen {listen} --allow-plaintext"));
        world.serve(&format!("{line} --listen {listen} --tls-cert c --tls-key k"));
    }
}

#[test]
fn tls_needs_a_certificate_and_its_key() {
    let (world, line) = (World::new(), line());
    assert!(world.serve(&line).server.tls.is_none());
    let all = format!("{line} --tls-cert c --tls-key k --tls-client-ca a");
    let tls = world.serve(&all).server.tls.unwrap();
    assert_eq!((tls.cert.as_path(), tls.key.as_path()), (Path::new("c"), Path::new("k")));
    assert_eq!(tls.client_ca.as_deref(), Some(Path::new("a")));
    assert_eq!(tls.look_interval, Duration::from_secs(5));
    for (given, missing) in
        [("--tls-cert c", "key"), ("--tls-key k", "cert"), ("--tls-client-ca a", "cert")]
    {
        let error = world.error(&format!("serve {line} {given}"));
        let expected = format!("--tls-{missing}: missing: TLS needs a certificate and its key");
        assert_eq!(error, expected);
    }
    assert!(world.error("dev --tls-cert c").contains("unexpected argument"));
}

#[test]
fn connections_of_one_address_are_not_limited_by_default() {
    let world = World::new();
    assert_eq!(world.dev("dev").server.max_connections_per_address, 0);
    let limited = world.dev("dev --max-connections-per-address 100").server;
    assert_eq!(limited.max_connections_per_address, 100);
    let error = world.error("dev --max-connections-per-address=-1");
    assert!(error.contains("expected a number from 0 to 1000000"), "{error}");
}
