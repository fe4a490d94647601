//! Connections as they come in: counted, given TLS, and closed if they do not begin to
//! speak. tonic itself keeps silent ones for ever.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{FutureExt, Stream, stream};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

use super::frame_watch::FrameWatch;
use super::rates::network;
use super::tls::Tls;
use crate::tasks::Tasks;

/// An HTTP/2 client's first words. The shortest call of HTTP/1.1 is longer.
const PREFACE_BYTES: usize = 24;
/// They must have come by then; with TLS, counted from the end of the handshake.
const PREFACE_WITHIN: Duration = Duration::from_secs(5);
/// Wait after a failed accept: out of file descriptors, mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Connections after their handshake; further ones wait until tonic takes one.
const READY_MAX: usize = 64;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) all: usize,
    /// Of one address; 0 = all.
    pub(super) address: usize,
}

/// The connections of a listener; those beyond the limits are closed at once. Handshakes are made
/// by tasks: none waits for another, nor does what is accepted next.
pub(super) fn incoming(
    listener: TcpListener,
    limits: Limits,
    tls: Option<Arc<Tls>>,
    tasks: Tasks,
) -> impl Stream<Item = io::Result<Guarded>> {
    let (done, ready) = mpsc::channel(READY_MAX);
    let door = Door { listener, room: Room::new(limits), tls, tasks, done, ready };
    stream::unfold(door, async |mut door| Some((Ok(door.next().await), door)))
}

struct Door {
    listener: TcpListener,
    room: Room,
    tls: Option<Arc<Tls>>,
    tasks: Tasks,
    done: mpsc::Sender<Guarded>,
    ready: mpsc::Receiver<Guarded>,
}

impl Door {
    /// The next connection that tonic is to serve.
    async fn next(&mut self) -> Guarded {
        loop {
            // Cancel: what was not accepted stays with the listener, what is ready in the channel.
            let accepted = tokio::select! {
                Some(ready) = self.ready.recv() => return ready,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "a connection was not accepted");
                    sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let Some(place) = self.room.enter(peer.ip()) else { continue };
            // Small frames must not wait for each other.
            stream.set_nodelay(true).ok();
            match &self.tls {
                None => return Guarded::new(Transport::Plain(stream), peer, place),
                Some(tls) => self.shake_hands(Arc::clone(tls), stream, peer, place),
            }
        }
    }

    fn shake_hands(&self, tls: Arc<Tls>, stream: TcpStream, peer: SocketAddr, place: Place) {
        let (done, stop) = (self.done.clone(), self.tasks.token());
        let shaking = async move {
            match tls.handshake(stream).await {
                Ok(stream) => {
                    let guarded = Guarded::new(Transport::Tls(Box::new(stream)), peer, place);
                    // If nobody takes it, the server ends, and so does it.
                    done.send(guarded).await.ok();
                }
                // Whoever scans ports causes them, so they are no news.
                Err(error) => debug!(%error, "a handshake failed"),
            }
        };
        drop(self.tasks.spawn("handshake", async move {
            // Cancel: the connection is closed, as no new ones are taken.
            tokio::select! {
                () = stop.cancelled() => {}
                () = shaking => {}
            }
        }));
    }
}

/// Counts connections.
struct Room {
    all: Arc<Semaphore>,
    /// Those of each address that has one, if they are limited.
    addresses: Option<(usize, Addresses)>,
}

type Addresses = Arc<Mutex<HashMap<IpAddr, usize>>>;

impl Room {
    fn new(Limits { all, address }: Limits) -> Self {
        let all = Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS)));
        Self { all, addresses: (address > 0).then(|| (address, Addresses::default())) }
    }

    /// A place for a connection from there, if there is one.
    fn enter(&self, address: IpAddr) -> Option<Place> {
        let Ok(permit) = Arc::clone(&self.all).try_acquire_owned() else {
            warn!("too many connections; one was closed");
            return None;
        };
        let counted = match &self.addresses {
            None => None,
            Some((max, addresses)) => {
                let network = network(address);
                let mut counts = addresses.lock();
                let count = counts.entry(network).or_default();
                if *count >= *max {
                    // One client can cause any number of these.
                    debug!("too many connections from one address; one was closed");
                    return None;
                }
                *count += 1;
                Some((network, Arc::clone(addresses)))
            }
        };
        Some(Place { _permit: permit, counted })
    }
}

/// A connection's place among those that are allowed.
struct Place {
    _permit: OwnedSemaphorePermit,
    counted: Option<(IpAddr, Addresses)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((network, addresses)) = &self.counted
            && let Entry::Occupied(mut count) = addresses.lock().entry(*network)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// A connection, with TLS or without.
enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Does to the connection what is the same for both.
macro_rules! with {
    ($guarded:expr, $stream:ident => $does:expr) => {
        match &mut $guarded.stream {
            Transport::Plain($stream) => $does,
            Transport::Tls($stream) => $does,
        }
    };
}

/// A connection that must say as much as a preface in time.
pub(super) struct Guarded {
    stream: Transport,
    /// Kept from the beginning: the system forgets whose a connection was once it is reset.
    peer: SocketAddr,
    preface: Option<Preface>,
    frames: FrameWatch,
    _place: Place,
}

struct Preface {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Guarded {
    fn new(stream: Transport, peer: SocketAddr, place: Place) -> Self {
        let deadline = Box::pin(sleep(PREFACE_WITHIN));
        let preface = Some(Preface { missing: PREFACE_BYTES, deadline });
        Self { stream, peer, preface, frames: FrameWatch::new(), _place: place }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = with!(self, stream => Pin::new(stream).poll_read(context, buffer));
        let came = buffer.filled().get(before..).unwrap_or_default();
        if self.frames.see(came).is_err() {
            debug!("a connection sends nothing but pings and the like; it is closed");
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let Some(preface) = &mut self.preface else { return read };
        match read {
            Poll::Ready(Ok(())) => {
                preface.missing =
                    preface.missing.saturating_sub(buffer.filled().len().saturating_sub(before));
                if preface.missing == 0 {
                    self.preface = None;
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                if preface.deadline.poll_unpin(context).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        read
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        with!(self, stream => Pin::new(stream).poll_write(context, buffer))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(self, stream => Pin::new(stream).poll_shutdown(context))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with!(self, stream => Pin::new(stream).poll_write_vectored(context, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

impl Connected for Guarded {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        let stream = match &self.stream {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0,
        };
        TcpConnectInfo { local_addr: stream.local_addr().ok(), remote_addr: Some(self.peer) }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::StreamExt;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;
    use crate::rpc::tls::tests::Folder;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_own_number_of_places() {
        let room = Room::new(Limits { all: 5, address: 2 });
        let (v4, mapped) = (address("192.0.2.1"), address("::ffff:192.0.2.1"));
        let first = room.enter(v4);
        let second = room.enter(mapped);
        assert!(first.is_some() && second.is_some());
        assert!(room.enter(v4).is_none(), "both count as one address");
        let here = address("2001:db8:0:1::1");
        let same_network = address("2001:db8:0:1:ffff::2");
        let others = address("2001:db8:0:2::1");
        let third = (room.enter(here), room.enter(same_network));
        assert!(third.0.is_some() && third.1.is_some() && room.enter(here).is_none());
        let last = room.enter(others);
        assert!(last.is_some());
        assert!(room.enter(address("192.0.2.2")).is_none(), "no room for anybody");
        drop(first);
        assert!(room.enter(v4).is_some());
        drop((second, third, last));
        let (_, addresses) = room.addresses.unwrap();
        assert!(addresses.lock().is_empty(), "nobody is remembered");
        assert_eq!(room.all.available_permits(), 5);
    }

    #[tokio::test]
    async fn the_peer_is_known_with_tls_and_without() {
        let folder = Folder::new();
        let files = folder.files(None);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&files.cert).unwrap()).unwrap();
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(client));
        let limits = Limits { all: 9, address: 9 };
        for tls in [None, Some(Arc::new(Tls::load(files).unwrap()))] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let with_tls = tls.is_some();
            let incoming = pin!(incoming(listener, limits, tls, Tasks::new()));
            let (mut incoming, connector) = (incoming, connector.clone());
            let call = async {
                let stream = TcpStream::connect(address).await.unwrap();
                let from = stream.local_addr().unwrap();
                if with_tls {
                    let name = ServerName::try_from("localhost").unwrap();
                    drop(connector.connect(name, stream).await.unwrap());
                }
                from
            };
            let (guarded, from) = tokio::join!(incoming.next(), call);
            let seen = guarded.unwrap().unwrap().connect_info();
            assert_eq!(seen.remote_addr(), Some(from));
            assert_eq!(seen.local_addr(), Some(address));
        }
    }

    #[test]
    fn without_a_limit_addresses_are_not_counted() {
        let room = Room::new(Limits { all: 3, address: 0 });
        let places: Vec<_> = (0..4).map(|_| room.enter(address("::1"))).collect();
        assert_eq!(places.iter().flatten().count(), 3);
        assert!(room.addresses.is_none());
    }
}
