//! `syncline doctor`: looks at everything between a command and its answer, from the address to the
//! database, and says of each whether it is well and what to do otherwise. Changes nothing, and
//! shows no token.

mod database;
mod finding;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use self::finding::Finding;
use super::ends::exit_of;
use super::output::{Output, Style, safe};
use super::{status, target, token};
use crate::client::remote::{Code, Fault, Remote};
use crate::clock::Clock;
use crate::config::{ConnectionConfig, Secret, is_loopback};
use crate::exit::{Exit, Failure};
use crate::rpc::proto::{GetStatusRequest, GetStatusResponse};

/// For a connection; a person waits.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// For an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const ROUND_TRIPS: usize = 5;

/// What was found out.
#[derive(Debug)]
struct Report {
    out: Output,
    json: bool,
    /// Because of the first that is not well.
    exit: Exit,
    broken: Option<Failure>,
}

pub(super) async fn run(
    connection: ConnectionConfig,
    database_url: Option<Secret>,
    out: Output,
) -> Result<Exit, Failure> {
    let json = connection.json;
    let mut report = Report { out, json, exit: Exit::Success, broken: None };
    if let Some(address) = reach(&mut report, &connection).await {
        if connection.server.scheme_str() == Some("https") {
            certificate(&mut report, &connection, address).await;
        } else if is_loopback(&connection.server) {
            report.ok("TLS", "none, which is well on this machine");
        } else {
            let hint = "use https: what goes there, the token as well, can be read on the way";
            report.warn("TLS", "none", hint);
        }
    }
    let server = match Remote::new(&target(&connection)) {
        Ok(remote) => health(&mut report, remote).await,
        Err(fault) => {
            report.fault("server", &fault);
            None
        }
    };
    let ahead = server.as_ref().and_then(|server| server.ahead);
    examine_token(&mut report, &connection, ahead);
    if let Some(server) = server {
        access(&mut report, &connection, &server.remote).await;
    }
    if let Some(url) = database_url {
        database::examine(&mut report, url.expose()).await;
    }
    match report.broken {
        Some(failure) => Err(failure),
        None => Ok(report.exit),
    }
}

/// Whether a connection can be made; to which address.
async fn reach(report: &mut Report, connection: &ConnectionConfig) -> Option<SocketAddr> {
    let uri = &connection.server;
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(usual);
    let addresses: Vec<SocketAddr> = match lookup_host((host.as_str(), port)).await {
        Ok(found) => found.collect(),
        Err(error) => {
            let said = format!("{} does not resolve: {error}", safe(&host));
            report.fail("address", Exit::Unreachable, said, "check the name in --server");
            return None;
        }
    };
    let mut said = format!("{} has no address", safe(&host));
    for address in addresses {
        match timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(_connected)) => {
                report.ok("address", format!("{address} takes connections"));
                return Some(address);
            }
            Ok(Err(error)) => said = format!("{address}: {error}"),
            Err(_) => said = format!("{address}: no answer within {CONNECT_WITHIN:?}"),
        }
    }
    let hint = "check that the server runs, listens there, and that no firewall is between";
    report.fail("address", Exit::Unreachable, said, hint);
    None
}

async fn certificate(report: &mut Report, connection: &ConnectionConfig, address: SocketAddr) {
    let host = connection.server.host().unwrap_or_default();
    let looked = async {
        let stream = timeout(CONNECT_WITHIN, TcpStream::connect(address)).await??;
        tls::certificate(stream, host).await
    };
    let found = match looked.await {
        Ok(found) => found,
        Err(error) => {
            let hint = "check that the server has TLS on that port, or use http";
            return report.fail("TLS", Exit::Unreachable, format!("{error:#}"), hint);
        }
    };
    report.add("TLS", &finding::certificate(&found, Clock::system().now()));
}

/// What the token says of itself, by the server's clock if that is known.
fn examine_token(
    report: &mut Report,
    connection: &ConnectionConfig,
    ahead: Option<time::Duration>,
) {
    let Some(token) = &connection.token else {
        let hint = "give --token-file, or SYNCLINE_TOKEN in the environment";
        return report.fail("token", Exit::Token, "there is none", hint);
    };
    match token::claims(token.expose()) {
        Ok(claims) => {
            let now = Clock::system().now() + ahead.unwrap_or_default();
            report.add("token", &finding::token(&claims, now));
        }
        Err(wrong) => report.fail("token", Exit::Token, wrong, "copy the whole token anew"),
    }
}

/// A server that answers.
struct Server {
    remote: Remote,
    /// How far its clock is ahead of ours, if it tells.
    ahead: Option<time::Duration>,
}

/// What a server says to anybody.
async fn health(report: &mut Report, remote: Remote) -> Option<Server> {
    let began = (Clock::system().now(), Instant::now());
    let health = match within(remote.health()).await {
        Ok(health) => health,
        Err(fault) => {
            report.fault("health", &fault);
            return None;
        }
    };
    let took = began.1.elapsed();
    if health.is_serving {
        report.ok("health", "serving");
    } else {
        let hint = "it starts, stops, or has lost its database: look at its log";
        report.fail("health", Exit::Unreachable, "not serving", hint);
    }
    round_trip(report, &remote).await;
    let date = health.date.and_then(|date| OffsetDateTime::parse(&date, &Rfc2822).ok());
    // In the middle of the call. It tells whole seconds, cut off.
    let ahead = date.map(|date| date + time::Duration::milliseconds(500) - began.0 - took / 2);
    report.add("clock", &finding::skew(ahead));
    Some(Server { remote, ahead })
}

/// What it says to who has this token.
async fn access(report: &mut Report, connection: &ConnectionConfig, remote: &Remote) {
    let token = connection.token.as_ref().map(|token| token.expose().trim());
    if let Err(fault) = remote.set_token(token) {
        return report.fault("access", &fault);
    }
    let request = GetStatusRequest { space: connection.space.clone(), ..Default::default() };
    let called = async { Ok(remote.sync().get_status(request).await?.into_inner()) };
    match within(called).await {
        Ok(status) => {
            let space = safe(&status.space);
            report.ok("access", format!("the token is accepted; the space is {space}"));
            tell_limits(report, &status);
            let limits = status.limits.unwrap_or_default();
            let room = [
                ("records", status.records, limits.space_records),
                ("bytes", status.bytes, limits.space_bytes),
            ];
            report.add("room", &finding::room(room));
        }
        Err(fault) => report.fault("access", &fault),
    }
}

async fn within<T>(call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let late = || Fault::of(Code::DeadlineExceeded, format!("no answer within {ANSWER_WITHIN:?}"));
    timeout(ANSWER_WITHIN, call).await.unwrap_or_else(|_| Err(late()))
}

async fn round_trip(report: &mut Report, remote: &Remote) {
    let mut spans = Vec::new();
    for _ in 0..ROUND_TRIPS {
        let began = Instant::now();
        if within(remote.health()).await.is_ok() {
            spans.push(began.elapsed());
        }
    }
    spans.sort();
    match spans.get(spans.len() / 2) {
        Some(median) => {
            report.ok("round trip", format!("{:.1} ms", median.as_secs_f64() * 1_000.0));
        }
        None => report.warn("round trip", "not measured", "the server answers now and then"),
    }
}

fn tell_limits(report: &mut Report, status: &GetStatusResponse) {
    let told = [
        "message bytes",
        "document bytes",
        "batch mutations",
        "reads per second",
        "writes per second",
    ];
    let limits = status.limits.iter().flat_map(status::limits);
    let limits: Vec<_> = limits
        .filter(|(name, _)| told.contains(name))
        .map(|(name, number)| format!("{number} {name}"))
        .collect();
    report.ok("limits", limits.join(", "));
}

impl Report {
    fn ok(&mut self, name: &str, said: impl Into<String>) {
        self.add(name, &Finding::Ok(said.into()));
    }

    fn warn(&mut self, name: &str, said: impl Into<String>, hint: &str) {
        self.add(name, &Finding::Warn(said.into(), hint.into()));
    }

    fn fail(&mut self, name: &str, exit: Exit, said: impl Into<String>, hint: impl Into<String>) {
        self.add(name, &Finding::Fail(exit, said.into(), hint.into()));
    }

    /// A call that has failed.
    fn fault(&mut self, name: &str, fault: &Fault) {
        let exit = exit_of(fault.code);
        let hint = match (name, fault.code) {
            ("health", Code::Unavailable) if fault.message.contains("certificate") => {
                "give --ca the authority that vouches for the server, and the name it is for"
            }
            ("access", Code::Unauthenticated) => {
                "compare the token's issuer and times with what the server is told"
            }
            // What is known already need not be advised.
            (_, Code::Unavailable) => "see above, and the server's log",
            _ => fault.hint().unwrap_or("look at the server's log"),
        };
        self.fail(name, exit, safe(&fault.to_string()), hint);
    }

    fn add(&mut self, name: &str, finding: &Finding) {
        let (word, style, said, hint) = match finding {
            Finding::Ok(said) => ("ok", Style::Good, said, None),
            Finding::Warn(said, hint) => ("warn", Style::Careful, said, Some(hint)),
            Finding::Fail(_, said, hint) => ("fail", Style::Bad, said, Some(hint)),
        };
        if let (Finding::Fail(exit, ..), Exit::Success) = (finding, self.exit) {
            self.exit = *exit;
        }
        let out = self.out;
        let printed = if self.json {
            let value = json!({"check": name, "verdict": word, "detail": said, "hint": hint});
            out.say_json(&value)
        } else {
            let word = out.paint(style, &format!("{word:<4}"));
            out.say(&format!("{word}  {name:<11}  {said}")).and_then(|()| match hint {
                Some(hint) => out.say(&format!("{:19}{hint}", "")),
                None => Ok(()),
            })
        };
        if let Err(failure) = printed {
            self.broken.get_or_insert(failure);
        }
    }
}
