//! A subscriber on a task of its own, who goes on until a goal over whatever happens
//! to its connections, and who has another server for each next stream.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use syncline::rpc::proto::subscribe_response::Frame;
use tokio::sync::watch;

use super::load::passes;
use super::proxy::{Fault, Proxy, Target};
use super::seen::{Seen, View};
use super::{Client, Random, Stream, mint};

/// How a reader treats its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manner {
    /// Drops its stream after some frames.
    Drops,
    /// Its connection is cut, in the middle of a frame.
    IsCut,
    /// Takes its time for each frame, until the writers have ended.
    Slow,
    /// Reads what comes.
    Steady,
}

#[derive(Debug)]
pub struct Reader {
    pub manner: Manner,
    seen: Seen,
    clients: Vec<Client>,
    proxies: Vec<Proxy>,
    random: Random,
    /// How much its connection carries before it is cut, at most: enough for the
    /// largest frame, or it never gets anywhere.
    cut_bytes_max: u64,
    /// Where to end; beyond everything until that is known.
    goal: watch::Receiver<i64>,
}

impl Reader {
    /// A reader of alice's space.
    pub async fn new(
        servers: &[SocketAddr],
        manner: Manner,
        view: View,
        random: Random,
        goal: watch::Receiver<i64>,
    ) -> Self {
        let proxies = servers.iter().map(|it| Proxy::start(Target::Tcp(*it)));
        let proxies = join_all(proxies).await;
        let clients = proxies.iter().map(|it| Client::narrow(it.address(), &mint("alice")));
        let (seen, clients) = (Seen::new(view), clients.collect());
        Self { manner, seen, clients, proxies, random, cut_bytes_max: 64 << 10, goal }
    }

    pub fn cut_within(self, cut_bytes_max: u64) -> Self {
        Self { cut_bytes_max, ..self }
    }

    /// Reads up to the goal. Where it has to begin anew, it does.
    pub async fn run(mut self) -> (Manner, Seen) {
        for number in (0..self.clients.len()).cycle() {
            self.proxies[number].heal();
            if self.manner == Manner::IsCut {
                // Mostly little, and now and then as much as it may be.
                let bits = u64::from(self.cut_bytes_max.ilog2() - 5);
                let bytes = 64 << self.random.below(bits);
                self.proxies[number].arm(Fault::CutAnswerAfter(bytes));
            }
            let arrived = match self.seen.open(&self.clients[number]).await {
                Ok(stream) => self.read(stream).await,
                Err(status) => {
                    assert!(passes(&status), "{status:?}");
                    false
                }
            };
            if arrived {
                return (self.manner, self.seen);
            }
        }
        unreachable!("there is always one more client")
    }

    /// Reads a stream as long as it pleases; true at the goal.
    async fn read(&mut self, mut stream: Stream) -> bool {
        let mut left = 2 + self.random.below(30);
        loop {
            let goal = *self.goal.borrow_and_update();
            if self.seen.points.last() >= Some(&goal) {
                return true;
            }
            if self.manner == Manner::Drops && left == 0 {
                return false;
            }
            // Cancel: a frame that is not whole stays in the stream.
            let frame = tokio::select! {
                frame = stream.next() => frame,
                _ = self.goal.changed() => continue,
            };
            match frame {
                Ok(Some(Frame::ResyncRequired(frame))) => {
                    self.seen.begin_anew(&frame).unwrap();
                    return false;
                }
                Ok(Some(frame)) => self.seen.take(frame).unwrap(),
                Ok(None) => panic!("nobody ended the stream"),
                Err(status) => {
                    assert!(passes(&status), "{status:?}");
                    return false;
                }
            }
            left = left.saturating_sub(1);
            if self.manner == Manner::Slow && *self.goal.borrow() == i64::MAX {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
