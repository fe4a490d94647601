//! What each layer may say, which one wins, and what people are told when it makes no sense.

mod commands;
mod keys;
mod policies;
mod tls;

use std::collections::HashMap;

use clap::CommandFactory;
use pretty_assertions::assert_eq;
use tempfile::TempDir;

use super::*;
use crate::auth::test_keys::{SECRET, TestKey};

/// The outside world of one call: variables and files.
struct World {
    dir: TempDir,
    variables: HashMap<&'static str, String>,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), variables: HashMap::new() }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.insert(name, value.into());
        self
    }

    /// Makes this the content of the configuration file.
    fn config(self, content: &str) -> Self {
        let path = self.file("syncline.toml", content);
        self.variable("SYNCLINE_CONFIG", path)
    }

    /// Runs a command line, in which `DIR` stands for the directory of the files.
    fn load(&self, line: &str) -> Result<Command, Error> {
        let line = line.replace("DIR", self.dir.path().to_str().unwrap());
        let words = ["syncline"].into_iter().chain(line.split_whitespace()).map(OsString::from);
        load(words, |name| self.variables.get(name).map(OsString::from))
    }

    /// Stops before the settings are looked at together.
    #[track_caller]
    fn parse(&self, line: &str) -> String {
        let words = ["syncline"].into_iter().chain(line.split_whitespace()).map(OsString::from);
        let environment = |name: &str| self.variables.get(name).map(OsString::from);
        format!("{:?}", layers::parse(words.collect(), &environment).unwrap().command)
    }

    #[track_caller]
    fn error(&self, line: &str) -> String {
        let error = anyhow::Error::from(self.load(line).unwrap_err());
        format!("{error:#}").replace(self.dir.path().to_str().unwrap(), "DIR")
    }

    #[track_caller]
    fn dev(&self, line: &str) -> DevConfig {
        match self.load(line).unwrap() {
            Command::Dev(config) => *config,
            other => panic!("not dev: {other:?}"),
        }
    }

    #[track_caller]
    fn serve(&self, line: &str) -> ServeConfig {
        match self.load(&format!("serve {line}")).unwrap() {
            Command::Serve(config) => *config,
            other => panic!("not serve: {other:?}"),
        }
    }
}

const DATABASE: &str = "--database-url postgres://user:hunter2@localhost/sync";
const NAMES: &str = "--jwt-issuer me --jwt-audience you";

fn secret() -> &'static str {
    str::from_utf8(SECRET).unwrap()
}

#[test]
fn dev_is_the_default_and_needs_nothing() {
    let world = World::new();
    for line in ["", "dev"] {
        let config = world.dev(line);
        assert_eq!(config.data_dir, Path::new(".syncline"));
        let server = config.server;
        assert_eq!(server.listen, "127.0.0.1:50051".parse().unwrap());
        assert_eq!(server.log.filter, "info");
        assert!((1..=64).contains(&server.committers));
        assert_eq!((server.database_connections, server.max_connections), (8, 10_000));
        assert_eq!((server.ring_bytes, server.reflection), (64 << 20, true));
        assert_eq!(server.shutdown_deadline, Duration::from_secs(10));
        assert_eq!(server.cors_origins, Origins::default(), "no other site may call");
    }
    let config = world.dev("--listen 127.0.0.1:0 --reflection false --data-dir /x");
    assert_eq!((config.server.listen.port(), config.server.reflection), (0, false));
    assert_eq!(config.data_dir, Path::new("/x"));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let world = World::new()
        .config("committers = 3\nring-bytes = \"2MiB\"\nmax-connections = 0x10\nttl = \"1h\"")
        .variable("SYNCLINE_COMMITTERS", "4")
        .variable("SYNCLINE_RING_BYTES", "3MiB")
        .variable("SYNCLINE_LOG", "");
    let server = world.dev("--committers 5").server;
    assert_eq!(server.committers, 5, "flag");
    assert_eq!(server.ring_bytes, 3 << 20, "environment");
    assert_eq!(server.max_connections, 16, "file");
    assert_eq!(server.log.filter, "info", "an empty variable is none");
}

#[test]
fn the_flag_names_another_file_than_the_environment() {
    let world = World::new().config("committers = 3");
    let other = world.file("other.toml", "committers = 7");
    assert_eq!(world.dev(&format!("dev --config {other}")).server.committers, 7);
    assert_eq!(world.dev(&format!("--config {other}")).server.committers, 7);
    let error = world.error("--config DIR/none.toml");
    assert!(error.starts_with("cannot read DIR/none.toml: No such file"), "{error}");
}

/// A value that the flag takes, whichever it is.
fn sample(key: &str) -> &'static str {
    match key {
        "data-dir" | "jwt-secret" | "jwt-secret-file" | "jwt-public-key" | "jwt-private-key"
        | "jwt-issuer" | "jwt-audience" | "sub" | "jwks" | "jwt-user-claim"
        | "jwt-device-claim" | "jwt-grants-claim" | "tls-cert" | "tls-key" | "tls-client-ca"
        | "token" | "token-file" | "ca" | "client-cert" | "client-key" | "device" | "id"
        | "document" | "collections" | "store" | "user" | "file" => "x",
        "listen" | "metrics-listen" => "[::1]:1",
        "log" => "debug",
        "log-format" => "json",
        "committers"
        | "database-connections"
        | "max-connections"
        | "max-connections-per-address"
        | "seconds"
        | "rounds"
        | "subscribers"
        | "connections"
        | "records"
        | "space-records"
        | "space-subscriptions"
        | "reads-per-second"
        | "writes-per-second"
        | "opens-per-second"
        | "user-streams"
        | "address-calls-per-second"
        | "base"
        | "revision"
        | "limit" => "7",
        "ring-bytes" | "space-bytes" => "1GiB",
        "shutdown-deadline"
        | "ttl"
        | "clock-skew"
        | "log-retention"
        | "tombstone-retention"
        | "device-wait"
        | "wait"
        | "compaction-interval" => "30s",
        "space" => "users/x",
        "policies" => r#"{"task":{"strategy":"merge"}}"#,
        "cors-origins" => "https://a.b,http://c:1",
        "grants" => "policies",
        "reflection" => "false",
        "allow-unsafe-database"
        | "allow-plaintext"
        | "dev"
        | "json"
        | "if-new"
        | "patch"
        | "from-start"
        | "every-step"
        | "edit"
        | "offline"
        | "resume" => "true",
        "increment" => "/a=1",
        "unset" => "/a",
        "cursor" | "since" => "e:7",
        "state" => "any",
        "keep" => "mine",
        "strategy" => "merge",
        "database-url" => "postgres://x",
        "target" | "server" => "http://localhost:1",
        other => panic!("a new flag: give `{other}` a sample"),
    }
}

#[test]
fn every_flag_is_a_variable_and_a_key() {
    for command in args::Cli::command().get_subcommands() {
        let name = command.get_name();
        let line = match name {
            "bench" => "bench all",
            "put" | "get" | "rm" => &format!("{name} task 1"),
            "resolve" | "import" | "export" | "retry" | "discard" => &format!("{name} x"),
            "completions" => "completions bash",
            name => name,
        };
        let blank = World::new().parse(line);
        for key in command.get_arguments().filter_map(clap::Arg::get_long) {
            let value = sample(key);
            let typed = if value == "true" { "" } else { value };
            let expected = World::new().parse(&format!("{line} --{key} {typed}"));
            assert_ne!(expected, blank, "--{key} of {line}");
            let variable = format!("SYNCLINE_{}", key.to_uppercase().replace('-', "_")).leak();
            let world = World::new().variable(variable, value);
            assert_eq!(world.parse(line), expected, "{variable} of {line}");
            let world = World::new().config(&format!("{key} = '{value}'"));
            assert_eq!(world.parse(line), expected, "{key} of {line}");
        }
    }
}

#[test]
fn mistakes_in_the_file_are_named_with_their_line() {
    let rows = [
        (
            "\n\nlistne = 1",
            "3: unknown key `listne`; keys are the flags that `syncline help serve` lists",
        ),
        ("data_dir = \"x\"", "1: unknown key `data_dir`; keys are written like `data-dir`"),
        (
            "config = \"x\"",
            "1: unknown key `config`; keys are the flags that `syncline help serve` lists",
        ),
        (
            "[serve]\nlisten = \"x\"",
            "1: unknown key `serve`; keys are the flags that `syncline help serve` lists",
        ),
        (
            "#\nlisten = 5",
            "2: `listen`: `5` is not allowed: expected an IP address and a port, as in 127.0.0.1:50051",
        ),
        (
            "listen = \"\"",
            "1: `listen`: `` is not allowed: expected an IP address and a port, as in 127.0.0.1:50051",
        ),
        ("committers = 0", "1: `committers`: `0` is not allowed: expected a number from 1 to 64"),
        ("committers = 65", "1: `committers`: `65` is not allowed: expected a number from 1 to 64"),
        (
            "committers = 1.5",
            "1: `committers`: `1.5` is not allowed: expected a number from 1 to 64",
        ),
        ("committers = [1]", "1: `committers` must be a string, a number or a boolean"),
        ("committers = -1", "1: `committers`: `-1` is not allowed: expected a number from 1 to 64"),
        ("reflection = 1", "1: `reflection`: `1` is not allowed: expected one of true, false"),
        ("json = 1", "1: `json`: `1` is not allowed: expected true or false"),
        (
            "log-format = \"xml\"",
            "1: `log-format`: `xml` is not allowed: expected one of auto, pretty, json",
        ),
        (
            "ttl = \"10\"",
            "1: `ttl`: `10` is not allowed: expected a whole number with a unit: 500ms, 10s, 5m, 24h or 7d",
        ),
        (
            "cors-origins = \"null\"",
            "1: `cors-origins`: `null` is not allowed: the origin `null` can be that of any site's page",
        ),
        ("ring-bytes = \"1KiB\"", "1: `ring-bytes`: `1KiB` is not allowed: must be 1MiB to 64GiB"),
        ("committers = 1\ncommitters = 2", "2: duplicate key"),
        ("jwt-secret = \"hunter2", "1: invalid basic string, expected `\"`"),
    ];
    for (content, expected) in rows {
        let error = World::new().config(content).error("dev");
        assert_eq!(error, format!("DIR/syncline.toml:{expected}"));
    }
}

#[test]
fn mistakes_elsewhere_say_what_is_allowed() {
    let world = World::new().variable("SYNCLINE_SHUTDOWN_DEADLINE", "soon");
    assert_eq!(
        world.error("dev"),
        "SYNCLINE_SHUTDOWN_DEADLINE: `soon` is not allowed: expected a whole number with a unit: \
         500ms, 10s, 5m, 24h or 7d"
    );
    let dev = world.dev("--shutdown-deadline 1s");
    assert_eq!(dev.server.shutdown_deadline, Duration::from_secs(1), "hidden by the flag");
    let error = World::new().error("--committers many");
    let expected = "invalid value 'many' for '--committers <N>': expected a number from 1 to 64";
    assert!(error.starts_with(expected), "{error}");
    assert!(World::new().error("--committers 1 --committers 2").contains("multiple times"));
    assert!(World::new().error("--log a=b").contains("`info` is one that works"));
    assert!(World::new().error("frobnicate").starts_with("unrecognized subcommand"));
    assert!(matches!(World::new().load("--help"), Err(Error::Clap(help)) if !help.use_stderr()));
}

#[test]
fn serve_needs_a_database_a_key_and_names() {
    let world = World::new();
    let key = format!("--jwt-secret {}", secret());
    assert!(world.error("serve").starts_with("--database-url: missing"));
    assert!(world.error(&format!("serve {DATABASE}")).starts_with("--jwt-public-key: missing"));
    let error = world.error(&format!("serve {DATABASE} {key}"));
    assert!(error.starts_with("--jwt-issuer: missing"), "{error}");
    let error = world.error(&format!("serve {DATABASE} {key} --jwt-issuer me"));
    assert!(error.starts_with("--jwt-audience: missing"), "{error}");
    let error = world.error(&format!("serve {DATABASE} {key} --jwt-issuer= --jwt-audience you"));
    assert!(error.starts_with("--jwt-issuer: missing"), "{error}");
    let error = world.error(&format!("serve --database-url mysql://u:hunter2@h {key} {NAMES}"));
    assert_eq!(error, "--database-url: must begin with postgres:// or postgresql://");
    let error = world.error(&format!("serve {DATABASE} --jwt-secret short {NAMES}"));
    let expected = "the secret has 5 bytes, HS256 needs at least 32";
    assert_eq!(error, format!("--jwt-secret: the key cannot be used: {expected}"));

    let config = world.serve(&format!("{DATABASE} {key} {NAMES} --allow-unsafe-database"));
    assert_eq!(config.database_url.expose(), "postgres://user:hunter2@localhost/sync");
    assert!(config.allow_unsafe_database);
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && !shown.contains(secret()), "{shown}");
}

#[test]
fn serve_reads_database_url_as_other_tools_do() {
    let line = format!("--jwt-secret {} {NAMES}", secret());
    let url = |world: World| world.serve(&line).database_url.expose().to_owned();
    let plain = || World::new().variable("DATABASE_URL", "postgres://plain");
    assert_eq!(url(plain()), "postgres://plain");
    assert_eq!(url(plain().variable("SYNCLINE_DATABASE_URL", "postgres://own")), "postgres://own");
    assert_eq!(url(plain().variable("SYNCLINE_DATABASE_URL", "")), "postgres://plain");
    assert_eq!(url(plain().config("database-url = \"postgres://file\"")), "postgres://plain");
}

#[test]
fn token_signs_with_the_development_secret_or_a_given_key() {
    let world = World::new();
    let now = 1_800_000_000;
    let mint = |line: &str| match world.load(line).unwrap() {
        Command::Token(config) => config.signer.mint(&config.user, config.ttl, now).unwrap(),
        other => panic!("not token: {other:?}"),
    };
    let dev = "token --sub alice --data-dir DIR/data";
    let hint = "there is no DIR/data/dev.secret: run `syncline dev` once, or give a key";
    assert_eq!(world.error(dev), format!("--data-dir: {hint}"));
    world.file("data/dev.secret", secret());
    let line_end = world.file("data/other", format!("\n {} \r\n\n", secret()));
    let expected = format!("\n {} ", secret()).into_bytes();
    assert_eq!(read_secret(Path::new(&line_end)).unwrap(), expected, "only the end is cut");
    let key = KeyConfig::Secret(SECRET.to_vec());
    let verifier = Verifier::new(&key, DEV_ISSUER, DEV_AUDIENCE).unwrap();
    let principal = verifier.verify(&mint(dev), now).unwrap();
    assert_eq!((principal.caller.user.as_str(), principal.expires_at), ("alice", now + 86_400));

    let key = TestKey::p256();
    world.file("key.pem", &key.private_pem);
    let verifier = Verifier::new(&key.verifying(), "me", "you").unwrap();
    let line = format!("token --sub alice --ttl 1h --jwt-private-key DIR/key.pem {NAMES}");
    assert_eq!(verifier.verify(&mint(&line), now).unwrap().expires_at, now + 3_600);

    assert!(world.error("token").starts_with("--sub: missing"));
    assert!(world.error("token --sub a --ttl 0s").contains("must be 1s to 366d"));
    assert!(world.error(&format!("{dev} --jwt-issuer me")).contains("need a key"));
    let no_names = world.error("token --sub a --jwt-private-key DIR/key.pem");
    assert!(no_names.starts_with("--jwt-issuer: missing"), "{no_names}");
}

#[test]
fn health_asks_the_default_address_unless_told_another() {
    let world = World::new();
    let target = |line: &str| match world.load(line).unwrap() {
        Command::Health(config) => config.target,
        other => panic!("not health: {other:?}"),
    };
    assert_eq!(target("health"), "http://127.0.0.1:50051");
    assert_eq!(target("health --target http://[::1]:7"), "http://[::1]:7");
    for bad in ["", "h:1", "http://", "https://h:1", "ftp://h:1"] {
        let error = world.error(&format!("health --target={bad}"));
        assert!(error.contains("expected http://host:port"), "{error}");
    }
}
