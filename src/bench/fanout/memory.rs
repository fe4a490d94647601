//! The memory of idle subscribers: how much the resident set of a server grows
//! when they come.

use super::bare::BareServer;
use super::crowd::{Crowd, Shape};
use super::peer::{Peer, Side};
use super::user;
use crate::bench::Bench;
use crate::bench::host::{Host, until_asked_to_end};
use crate::bench::report::Expected;
use crate::bench::target::{Bearer, Target};
use crate::config::{BenchKind, BenchTarget};
use crate::rpc::proto::SubscribeResponse;

pub(super) async fn round(
    bench: &mut Bench,
    round: u32,
    apart: usize,
    shared: usize,
) -> anyhow::Result<()> {
    // A hundred streams on each connection, or one.
    let (apart, shared) = (Shape::apart(apart, 1), Shape::full(shared));
    let mut sides = [Side::Ours, Side::Bare];
    if round.is_multiple_of(2) {
        sides.reverse();
    }
    let mut kib = [0.0; 2];
    for side in sides {
        let Some(grown) = growth(side, apart).await? else { return Ok(()) };
        if let Some(kib) = kib.get_mut(side as usize) {
            *kib = grown;
        }
    }
    let Some(in_shared) = growth(Side::Ours, shared).await? else { return Ok(()) };
    let [ours, bare] = kib;
    let (report, apart) = (&mut bench.report, apart.name());
    report.ratio(format!("memory, {apart}, idle"), Expected::AtMost(2.0), ours, bare);
    report.amount(format!("KiB each, {apart}, idle"), Expected::AtMost(8.0), ours);
    report.amount(format!("bare: KiB each, {apart}, idle"), Expected::Nothing, bare);
    let shared = format!("KiB each, {}, idle", shared.name());
    report.amount(shared, Expected::AtMost(1.0), in_shared);
    Ok(())
}

/// KiB for each subscriber; none where there is nothing to read that from.
async fn growth(side: Side, shape: Shape) -> anyhow::Result<Option<f64>> {
    let host = Host::start(match side {
        Side::Ours => "host-ours",
        Side::Bare => "host-bare",
    });
    let host = host.await?;
    let (uri, bearer) = (host.uri.clone(), Bearer::new(&host.word)?);
    let peer = Peer { side, uri, bearer, cursor: None };
    // What a server takes for the first one of a kind is no subscriber's.
    let first = Crowd::open(peer.clone(), shape.tenth()).await?;
    let before = host.settled().await;
    let crowd = Crowd::open(peer, shape).await?;
    let after = host.settled().await;
    crowd.close().await;
    first.close().await;
    host.end().await?;
    Ok(before.zip(after).map(|(before, after)| shape.share_of(after.saturating_sub(before))))
}

/// What that process does.
pub(crate) async fn host(kind: BenchKind) -> anyhow::Result<()> {
    if kind == BenchKind::HostBare {
        // Nothing is written, so it does not matter what events look like.
        let bare = BareServer::start(SubscribeResponse::default()).await?;
        return until_asked_to_end(&bare.uri, "-").await;
    }
    let target = Target::open(BenchTarget::Dev).await?;
    until_asked_to_end(target.uri(), &target.token_of(&user())?).await?;
    target.close().await
}
