//! `syncline doctor`: looks at everything between a command and its answer, from the address to the
//! database, and says of each whether it is well and what to do otherwise. Changes nothing, and
//! shows no token.

mod database;
mod tls;
mod token;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use super::output::{Output, Style, safe, say};
use super::{shown, status, target};
use crate::client::remote::{Code, Fault, Remote};
use crate::clock::Clock;
use crate::config::{ConnectionConfig, Secret, is_loopback};
use crate::exit::{Exit, Failure};
use crate::rpc::proto::{GetStatusRequest, GetStatusResponse};

/// For a connection; a person waits.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// For an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Somebody should see to a certificate that ends by then.
const CERTIFICATE_NEAR: time::Duration = time::Duration::days(14);
/// Many issuers give tokens for an hour, which is no reason to warn of each.
const TOKEN_NEAR_SECONDS: i64 = 300;
/// Clocks that differ by more confuse the times of tokens. The server tells whole seconds.
const SKEW_MAX: time::Duration = time::Duration::seconds(5);
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
) -> Result<Exit, Failure> {
    let json = connection.json;
    let mut report = Report { out: Output::new(), json, exit: Exit::Success, broken: None };
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
    let claims = examine_token(&mut report, &connection);
    match Remote::new(&target(&connection)) {
        Ok(remote) => server(&mut report, &connection, &remote, claims).await,
        Err(fault) => report.fault("server", &fault),
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
    let now = Clock::system().now();
    let until = shown::when(Some(found.good_until));
    let names = safe(&found.names.join(", "));
    let said = format!("a certificate for {names}, good until {until}");
    if now < found.good_from || found.good_until < now {
        let hint = "give the server a new certificate, or check this machine's clock";
        report.fail("TLS", Exit::Unreachable, format!("{said}, which is not now"), hint);
    } else if found.good_until - now < CERTIFICATE_NEAR {
        report.warn("TLS", said, "renew it; the server takes a new one without a restart");
    } else {
        report.ok("TLS", said);
    }
}

fn examine_token(report: &mut Report, connection: &ConnectionConfig) -> Option<token::Claims> {
    let Some(token) = &connection.token else {
        let hint = "give --token-file, or SYNCLINE_TOKEN in the environment";
        report.fail("token", Exit::Token, "there is none", hint);
        return None;
    };
    let claims = match token::claims(token.expose()) {
        Ok(claims) => claims,
        Err(wrong) => {
            report.fail("token", Exit::Token, wrong, "copy the whole token anew");
            return None;
        }
    };
    let until = claims.expires_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let said = format!(
        "of {}, from {}, good until {}",
        safe(&claims.subject),
        safe(&claims.issuer),
        until.map_or_else(|| "nobody knows".to_owned(), |at| shown::when(Some(at)))
    );
    let left = claims.expires_at.map(|at| at - Clock::system().unix_seconds());
    match left {
        Some(left) if left <= 0 => {
            report.fail("token", Exit::Token, format!("{said}, which is over"), "get a new token");
        }
        Some(left) if left < TOKEN_NEAR_SECONDS => {
            report.warn("token", said, "it ends within minutes: get a new one in time");
        }
        _ => report.ok("token", said),
    }
    Some(claims)
}

/// What the server itself says.
async fn server(
    report: &mut Report,
    connection: &ConnectionConfig,
    remote: &Remote,
    claims: Option<token::Claims>,
) {
    match within(remote.is_serving()).await {
        Ok(true) => report.ok("health", "serving"),
        Ok(false) => {
            let hint = "it starts, stops, or has lost its database: look at its log";
            report.fail("health", Exit::Unreachable, "not serving", hint);
        }
        Err(fault) => return report.fault("health", &fault),
    }
    round_trip(report, remote).await;
    let token = connection.token.as_ref().map(|token| token.expose().trim());
    if let Err(fault) = remote.set_token(token) {
        return report.fault("access", &fault);
    }
    let request = GetStatusRequest { space: connection.space.clone(), ..Default::default() };
    let began = (Clock::system().now(), Instant::now());
    let called = async {
        let answer = remote.sync().get_status(request).await?;
        let date = answer.metadata().get("date").and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
        Ok((answer.into_inner(), date))
    };
    match within(called).await {
        Ok((status, date)) => {
            let space = safe(&status.space);
            report.ok("access", format!("the token is accepted; the space is {space}"));
            skew(report, began.0, began.1.elapsed(), date);
            tell_limits(report, &status);
        }
        Err(fault) => {
            report.fault("access", &fault);
            if claims.is_some() && fault.code == Code::Unauthenticated {
                let hint = "compare the token's issuer and time with what the server is told";
                report.warn("clock", "not compared, because the token is refused", hint);
            }
        }
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
        if within(remote.is_serving()).await.is_ok() {
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

/// The server's clock beside ours, in the middle of the call. It tells whole seconds, cut off.
fn skew(report: &mut Report, sent: OffsetDateTime, took: Duration, date: Option<OffsetDateTime>) {
    let Some(date) = date else {
        let hint = "something between us and the server leaves out the time";
        return report.warn("clock", "the server does not tell its time", hint);
    };
    let ours = sent + took / 2;
    let ahead = date + time::Duration::milliseconds(500) - ours;
    let said = format!("the server's is {:+.1} s from ours", ahead.as_seconds_f64());
    match ahead.abs() > SKEW_MAX {
        true => report.warn("clock", said, "let both machines follow a time server (NTP)"),
        false => report.ok("clock", said),
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
    fn ok(&mut self, name: &str, said: impl AsRef<str>) {
        self.add(name, ("ok", Style::Good), said.as_ref(), None);
    }

    fn warn(&mut self, name: &str, said: impl AsRef<str>, hint: &str) {
        self.add(name, ("warn", Style::Careful), said.as_ref(), Some(hint));
    }

    fn fail(&mut self, name: &str, exit: Exit, said: impl AsRef<str>, hint: impl Into<String>) {
        self.add(name, ("fail", Style::Bad), said.as_ref(), Some(&hint.into()));
        if self.exit == Exit::Success {
            self.exit = exit;
        }
    }

    /// A call that has failed.
    fn fault(&mut self, name: &str, fault: &Fault) {
        let exit = super::failed("", fault.clone()).exit;
        let hint = match (name, fault.code) {
            ("health", Code::Unavailable) if fault.message.contains("certificate") => {
                "give --ca the authority that vouches for the server, and the name it is for"
            }
            // What is known already need not be advised.
            (_, Code::Unavailable) => "see above, and the server's log",
            _ => fault.hint().unwrap_or("look at the server's log"),
        };
        self.fail(name, exit, safe(&fault.to_string()), hint);
    }

    fn add(&mut self, name: &str, verdict: (&str, Style), said: &str, hint: Option<&str>) {
        let (word, style) = verdict;
        let printed = if self.json {
            let value = json!({"check": name, "verdict": word, "detail": said, "hint": hint});
            say(&value.to_string())
        } else {
            let word = self.out.paint(style, &format!("{word:<4}"));
            let line = format!("{word}  {name:<11}  {said}");
            say(&line).and_then(|()| match hint {
                Some(hint) => say(&format!("{:19}{hint}", "")),
                None => Ok(()),
            })
        };
        if let Err(failure) = printed {
            self.broken.get_or_insert(failure);
        }
    }
}
