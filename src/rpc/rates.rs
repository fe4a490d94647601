//! How often callers may call: each user on their own, and, before any token is looked at,
//! each address. What is too much is answered with the time after which it is not.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use tonic::{Code, Status};

use super::status::retry_after;
use crate::domain::{Rate, Rates, UserId};

/// What a call does, as rates count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Reads,
    Writes,
    /// Opens a stream or a subscription.
    Opens,
}

/// What each method counts as. One that is not here counts as a write.
const KINDS: [(&str, Kind); 23] = [
    ("SyncService/GetRecord", Kind::Reads),
    ("SyncService/ListRecords", Kind::Reads),
    ("SyncService/ChangesSince", Kind::Reads),
    ("SyncService/GetStatus", Kind::Reads),
    ("SyncService/Snapshot", Kind::Opens),
    ("SyncService/Subscribe", Kind::Opens),
    ("SyncService/Watch", Kind::Opens),
    ("ConflictService/ListConflicts", Kind::Reads),
    ("ConflictService/GetConflict", Kind::Reads),
    ("PolicyService/GetPolicy", Kind::Reads),
    ("PolicyService/ListPolicies", Kind::Reads),
    ("PolicyService/PreviewPolicy", Kind::Reads),
    ("QueueService/ListQueued", Kind::Reads),
    ("SpaceService/GetSpace", Kind::Reads),
    ("SpaceService/ListSpaces", Kind::Reads),
    ("SpaceService/ListMembers", Kind::Reads),
    ("SpaceService/ListAuditEntries", Kind::Reads),
    ("SpaceService/ListRecordHistory", Kind::Reads),
    ("SpaceService/ExportSpace", Kind::Opens),
    ("SpaceService/ExportUser", Kind::Opens),
    ("SpaceService/ImportSpace", Kind::Opens),
    ("SyncService/ReplaceAll", Kind::Opens),
    ("SyncService/Exchange", Kind::Writes),
];

impl Kind {
    /// What a call of this path counts as.
    pub(super) fn of_path(path: &str) -> Self {
        let method = path.strip_prefix("/syncline.v1.").unwrap_or(path);
        let known = KINDS.iter().find(|(of, _)| *of == method);
        known.map_or(Self::Writes, |(_, kind)| *kind)
    }

    fn of(self, rates: &Rates) -> (Rate, &'static str) {
        match self {
            Self::Reads => (rates.reads, "reads"),
            Self::Writes => (rates.writes, "writes"),
            Self::Opens => (rates.opens, "opens"),
        }
    }
}

/// Keys that are looked through for those that need not be remembered.
const KEYS_MAX: usize = 10_000;

/// A limiter that remembers only who has called lately.
struct Keyed<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<K>,
    since_trimmed: AtomicUsize,
    name: &'static str,
    rate: Rate,
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    fn new(rate: Rate, name: &'static str) -> Option<Self> {
        let quota = Quota::per_second(rate.count()?).allow_burst(rate.burst()?);
        let limiter = RateLimiter::keyed(quota);
        Some(Self { limiter, since_trimmed: AtomicUsize::new(0), name, rate })
    }

    /// Lets one more pass, or says when it may.
    fn admit(&self, key: &K) -> Result<(), Status> {
        // Whoever has all their calls saved up is as good as unknown.
        if self.since_trimmed.fetch_add(1, Ordering::Relaxed) >= KEYS_MAX {
            self.since_trimmed.store(0, Ordering::Relaxed);
            self.limiter.retain_recent();
        }
        self.limiter.check_key(key).map_err(|denied| {
            let wait = denied.wait_time_from(DefaultClock::default().now());
            let most = self.rate.count().map_or(0, std::num::NonZeroU32::get);
            let message = format!(
                "more than {most} {} a second; wait as long as retry_delay says",
                self.name
            );
            let numbers = [("kind", self.name.to_owned()), ("per_second", most.to_string())];
            // Never none: who comes back at once is refused again.
            let wait = wait.max(Duration::from_millis(1));
            retry_after(Code::ResourceExhausted, "RATE_LIMITED", message, wait, numbers)
        })
    }
}

/// All limiters of a server.
pub(super) struct Limiters {
    rates: Rates,
    reads: Option<Keyed<UserId>>,
    writes: Option<Keyed<UserId>>,
    opens: Option<Keyed<UserId>>,
    addresses: Option<Keyed<IpAddr>>,
    streams: Mutex<HashMap<UserId, usize>>,
}

impl std::fmt::Debug for Limiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiters").field("rates", &self.rates).finish_non_exhaustive()
    }
}

impl Limiters {
    pub(super) fn new(rates: Rates) -> Self {
        let of_users = |kind: Kind| {
            let (rate, name) = kind.of(&rates);
            Keyed::new(rate, name)
        };
        Self {
            reads: of_users(Kind::Reads),
            writes: of_users(Kind::Writes),
            opens: of_users(Kind::Opens),
            addresses: Keyed::new(rates.address_calls, "calls from this address"),
            streams: Mutex::default(),
            rates,
        }
    }

    /// What they are made of.
    pub(super) fn rates(&self) -> Rates {
        self.rates
    }

    /// Lets a call or a frame of a user pass. Of somebody who acts for another it is the
    /// actor who is asked.
    pub(super) fn admit(&self, user: &UserId, kind: Kind) -> Result<(), Status> {
        let limiter = match kind {
            Kind::Reads => &self.reads,
            Kind::Writes => &self.writes,
            Kind::Opens => &self.opens,
        };
        limiter.as_ref().map_or(Ok(()), |limiter| limiter.admit(user))
    }

    /// Lets a call from an address pass.
    pub(super) fn admit_address(&self, address: IpAddr) -> Result<(), Status> {
        let admit = |limiter: &Keyed<IpAddr>| limiter.admit(&network(address));
        self.addresses.as_ref().map_or(Ok(()), admit)
    }

    /// Counts a stream of a user, as long as they keep what they are given.
    pub(super) fn open(self: &Arc<Self>, user: &UserId) -> Result<OpenStream, Status> {
        let most = self.rates.user_streams;
        let mut streams = self.streams.lock();
        let open = streams.entry(user.clone()).or_default();
        if most > 0 && *open >= most {
            let message = format!("the user has {most} streams open; end one first");
            let numbers = [("kind", "streams".to_owned()), ("max", most.to_string())];
            let wait = Duration::from_secs(1);
            let code = Code::ResourceExhausted;
            return Err(retry_after(code, "RATE_LIMITED", message, wait, numbers));
        }
        *open += 1;
        Ok(OpenStream { limiters: Arc::clone(self), user: user.clone() })
    }
}

/// A stream that counts.
#[derive(Debug)]
pub(super) struct OpenStream {
    limiters: Arc<Limiters>,
    user: UserId,
}

impl OpenStream {
    /// By which its frames are counted.
    pub(super) fn limiters(&self) -> &Limiters {
        &self.limiters
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut streams = self.limiters.streams.lock();
        if let Some(open) = streams.get_mut(&self.user) {
            *open -= 1;
            if *open == 0 {
                streams.remove(&self.user);
            }
        }
    }
}

/// What counts as one address: who has an IPv6 address has a whole /64 of them.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => {
            let prefix = six.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(std::net::Ipv6Addr::from_bits(prefix))
        }
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[test]
    fn every_method_that_is_named_is_there() {
        use prost::Message;
        let set = crate::rpc::proto::DESCRIPTOR_SET;
        let set = prost_types::FileDescriptorSet::decode(set).unwrap();
        let services = set.file.iter().flat_map(|file| &file.service);
        let methods: Vec<_> = services
            .flat_map(|it| {
                it.method.iter().map(|method| format!("{}/{}", it.name(), method.name()))
            })
            .collect();
        for (method, _) in KINDS {
            assert!(methods.iter().any(|known| known == method), "{method}");
        }
        assert_eq!(Kind::of_path("/syncline.v1.SyncService/GetRecord"), Kind::Reads);
        assert_eq!(Kind::of_path("/syncline.v1.SyncService/Mutate"), Kind::Writes);
        assert_eq!(Kind::of_path("/some.other/Thing"), Kind::Writes);
    }

    #[test]
    fn who_calls_too_often_is_told_when_to_come_back_and_nobody_else() {
        let rates = Rates { writes: Rate::per_second(5), ..Rates::default() };
        let limiters = Limiters::new(rates);
        let admitted = (0..100).filter(|_| limiters.admit(&user("a"), Kind::Writes).is_ok());
        // The burst, and what comes meanwhile.
        assert!((10..12).contains(&admitted.count()));
        let refused = limiters.admit(&user("a"), Kind::Writes).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.get_details_error_info().unwrap().reason, "RATE_LIMITED");
        let wait = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!(!wait.is_zero() && wait <= Duration::from_millis(200), "{wait:?}");
        assert!(limiters.admit(&user("b"), Kind::Writes).is_ok());
        assert!(limiters.admit(&user("a"), Kind::Reads).is_ok());
    }

    #[test]
    fn streams_count_until_they_end() {
        let limiters = Arc::new(Limiters::new(Rates { user_streams: 2, ..Rates::default() }));
        let first = limiters.open(&user("a")).unwrap();
        let _second = limiters.open(&user("a")).unwrap();
        assert!(limiters.open(&user("a")).is_err());
        let _other = limiters.open(&user("b")).unwrap();
        drop(first);
        let third = limiters.open(&user("a")).unwrap();
        assert!(limiters.open(&user("a")).is_err());
        drop(third);
        assert_eq!(limiters.streams.lock().get(&user("a")), Some(&1));
    }

    #[test]
    fn addresses_of_one_network_count_together() {
        let limiters =
            Limiters::new(Rates { address_calls: Rate::per_second(1), ..Rates::default() });
        let admit = |address: &str| limiters.admit_address(address.parse().unwrap()).is_ok();
        assert!(admit("2001:db8::1") && admit("2001:db8::2") && !admit("2001:db8::3"));
        assert!(admit("2001:db8:0:1::1"));
        assert!(admit("192.0.2.1") && admit("::ffff:192.0.2.1") && !admit("192.0.2.1"));
        assert!(admit("192.0.2.2"));
    }
}
